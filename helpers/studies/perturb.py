"""Changes to an image that should not change its diagnosis: stain, blur, compression, rotation.

Every function takes and gives uint8 images (n, height, width, 3). Lengths are in pixels of the
image given, so a blur is relative to the size that the model sees.
"""

import io

import numpy as np
import pandas as pd
from keras import ops
from PIL import Image
from scipy import ndimage

from helpers.bootstrap import mean_interval
from helpers.stain import shift_stain

STRENGTHS = {  # of each kind, from weak to strong
    "stain": (10, 20, 40),
    "blur": (0.5, 1.0, 2.0),
    "jpeg": (90, 60, 30),
    "rotation": (5, 20, 180),
}
LABELS = {
    "stain": "stain: haematoxylin up, eosin down by (%)",
    "blur": "blur: standard deviation (px)",
    "jpeg": "JPEG compression: quality (100 is best)",
    "rotation": "rotation (degrees)",
}


def stain(images: np.ndarray, percent: float) -> np.ndarray:
    """Return images with ``percent`` more haematoxylin and as much less eosin (Ruifrok 2001)."""
    gain = np.tile(np.float32([percent, -percent, 0]) / 100, (len(images), 1))
    shifted = ops.convert_to_numpy(shift_stain(images, gain, np.zeros_like(gain)))
    return shifted.round().astype("uint8")


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return images under a Gaussian blur of standard deviation ``sigma`` pixels."""
    soft = ndimage.gaussian_filter(images.astype("float32"), (0, sigma, sigma, 0), mode="reflect")
    return soft.round().astype("uint8")


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Return images after JPEG compression at ``quality`` (1 to 95; 100 keeps nearly all)."""

    def through(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="jpeg", quality=int(quality))
        return np.asarray(Image.open(buffer))

    return np.stack([through(image) for image in images])


def rotation(images: np.ndarray, degrees: float) -> np.ndarray:
    """Return images turned anticlockwise about their centre; corners are filled by reflection.

    180 degrees is exact. Other angles interpolate linearly.
    """
    if degrees % 360 == 180:
        return images[:, ::-1, ::-1]
    turned = ndimage.rotate(
        images.astype("float32"), degrees, axes=(2, 1), reshape=False, order=1, mode="reflect"
    )
    return turned.round().clip(0, 255).astype("uint8")


KINDS = {"stain": stain, "blur": blur, "jpeg": jpeg, "rotation": rotation}


def apply(kind: str, images: np.ndarray, strength: float) -> np.ndarray:
    """Return ``images`` changed by ``kind``, one of KINDS, at ``strength`` in its own unit."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no known change; allowed: {', '.join(KINDS)}.")
    return KINDS[kind](images, strength)


def sweep(images: np.ndarray, predict) -> dict[tuple[str, float], np.ndarray]:
    """Return ``predict`` of the images under each kind and strength, by (kind, strength)."""
    return {
        (kind, strength): predict(apply(kind, images, strength))
        for kind, strengths in STRENGTHS.items()
        for strength in strengths
    }


def stability(images: np.ndarray, predict, groups, **boot) -> pd.DataFrame:
    """Return how far probabilities move under each kind and strength, in the order of STRENGTHS.

    ``predict`` takes images and gives probabilities (n,); ``groups`` (n,) are the patients for the
    intervals. Columns: kind, change (a label with its unit), strength, value (mean absolute change)
    with ci_low, ci_high and n's, and decisions_changed, the share of images that cross 0.5.
    """
    base = predict(images)
    return pd.DataFrame([
        {"kind": kind, "change": LABELS[kind], "strength": f"{strength:g}"}
        | mean_interval(np.abs(p - base), groups, **boot)
        | {"decisions_changed": ((p >= 0.5) != (base >= 0.5)).mean()}
        for (kind, strength), p in sweep(images, predict).items()
    ])  # fmt: skip
