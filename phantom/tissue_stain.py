"""Stains and camera of the phantom: what the slides of one accession share."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

HAEMATOXYLIN = (0.54, 0.75, 0.38)  # optical density in red, green and blue
EOSIN = (0.10, 0.90, 0.42)
TYPES = ("A", "F", "PT", "TA", "DC", "LC", "MC", "PC")
LIGHT = (236, 235, 234)  # grey levels of the empty slide


class Patient(NamedTuple):
    """What the slides of one accession share: normal draws, scaled by `signature`, and its type."""

    haematoxylin: np.ndarray  # hue (3,)
    eosin: np.ndarray  # hue (3,)
    strength: np.ndarray  # of the two stains (2,)
    background: np.ndarray  # (3,)
    brightness: float
    blur: float
    grain: float  # noise of the camera
    sharpening: float  # by the camera
    vignette: float
    collagen: float
    atypia: float
    typical: float  # uniform, 0 to 1: below `signal`, the tissue is what the label says
    kind: str  # else it is of this type, drawn without regard to the label


def draw_patient(rng: np.random.Generator) -> Patient:
    """Return the traits of an accession."""
    z = rng.normal(size=18)
    kind = TYPES[rng.integers(len(TYPES))]
    return Patient(z[:3], z[3:6], z[6:8], z[8:11], *z[11:], rng.random(), kind)


def develop(ink, eosin, patient: Patient, signature: float, um: float, rng) -> np.ndarray:
    """Return the picture, uint8 (height, width, 3), of two stains at `um` µm a pixel.

    The stains absorb light by the law of Beer and Lambert; then the camera adds blur and noise.
    """
    hues = (HAEMATOXYLIN, patient.haematoxylin, 0.24), (EOSIN, patient.eosin, 0.3)
    vectors = [np.array(v) * np.exp(spread * signature * z) for v, z, spread in hues]
    vectors = [vector / np.linalg.norm(vector) for vector in vectors]
    strength = np.exp(0.3 * signature * patient.strength + 0.05 * rng.normal(size=2))
    width = ink.shape[1]
    blur = width / 350 * 0.55 * np.exp(0.32 * signature * patient.blur)
    planes = [gaussian_filter(plane, blur) for plane in (ink, eosin)]
    sharpening = max(0, 0.9 * signature * patient.sharpening)
    planes = [p + sharpening * (p - gaussian_filter(p, 2.5 * blur)) for p in planes]
    depth = sum(s * p[..., None] * v for s, p, v in zip(strength, planes, vectors, strict=True))
    light = np.array(LIGHT) + 8 * signature * patient.background
    light = light * np.exp(0.08 * signature * patient.brightness + 0.02 * rng.normal())
    grain = 1.5 * np.exp(0.7 * signature * patient.grain)
    shade = 1 - 0.15 * signature * abs(patient.vignette) * _off_centre(ink.shape)
    image = shade * light * np.exp(-depth) + grain * rng.normal(size=(*ink.shape, 1))
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _off_centre(shape: tuple[int, int]) -> np.ndarray:
    """Return how far from the centre, squared: 0 to 1 in the corners, (height, width, 1)."""
    y, x = (np.linspace(-1, 1, side) for side in shape)
    return (y[:, None, None] ** 2 + x[:, None] ** 2) / 2
