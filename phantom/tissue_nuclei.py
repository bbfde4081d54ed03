"""Nuclei of the phantom: what they are, and how they are painted."""

from typing import NamedTuple

import numpy as np

from phantom.tissue_noise import field


class Nuclei(NamedTuple):
    """Nuclei in µm and rad, each array float (n,)."""

    x: np.ndarray
    y: np.ndarray
    long: np.ndarray  # half axes
    short: np.ndarray
    angle: np.ndarray
    density: np.ndarray  # haematoxylin
    pale: np.ndarray  # 0: dense chromatin, 1: open, with rim and nucleolus
    rough: np.ndarray  # irregularity of the outline


def join(parts: list[Nuclei]) -> Nuclei:
    """Return all nuclei of the parts as one."""
    return Nuclei(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def grow(x, y, angle, radius, ratio, atypia, rng) -> Nuclei:
    """Return nuclei at x, y: more varied, paler and rougher with atypia (0 to 1).

    `radius` is the mean radius (µm), `ratio` the length over the width.
    """
    n = len(x)
    radius = radius * np.exp((0.05 + 0.2 * atypia) * np.clip(rng.normal(size=n), -2, 2))
    stretch = np.sqrt(np.maximum(ratio * np.exp(0.12 * rng.normal(size=n)), 1))
    density = 1.45 * np.exp((0.1 + 0.14 * atypia) * rng.normal(size=n))
    pale = np.clip(0.1 + 0.75 * atypia + 0.2 * rng.normal(size=n), 0, 1)
    rough = 0.06 + 0.1 * atypia + np.zeros(n)
    angle = angle + (0.1 + 0.4 * atypia) * rng.normal(size=n)
    return Nuclei(x, y, radius * stretch, radius / stretch, angle, density, pale, rough)


def paint(nuclei: Nuclei, shape: tuple[int, int], um: float, rng) -> tuple:
    """Return haematoxylin (float32) and coverage (0 to 1), each (height, width), at um µm a px."""
    height, width = shape
    ink = np.zeros(height * width, np.float32)
    cover = np.zeros(height * width, np.float32)
    reach = np.ceil(nuclei.long * 1.2 / um + 1).astype(int)
    for size in np.unique(reach):
        members = Nuclei(*(column[reach == size] for column in nuclei))
        _paint_size(members, int(size), shape, um, ink, cover, rng)
    return ink.reshape(shape), cover.reshape(shape)


def _paint_size(nuclei: Nuclei, reach: int, shape: tuple, um: float, ink, cover, rng) -> None:
    """Draw nuclei of one patch size into the flat planes ink and cover."""
    n = Nuclei(*(column[:, None, None].astype(np.float32) for column in nuclei))
    span = np.arange(-reach, reach + 1)
    cols = np.round(n.x / um).astype(int) + span
    rows = np.round(n.y / um).astype(int) + span[:, None]
    dx, dy = (cols * um - n.x).astype(np.float32), (rows * um - n.y).astype(np.float32)
    cos, sin = np.cos(n.angle), np.sin(n.angle)
    u, v = (dx * cos + dy * sin) / n.long, (dy * cos - dx * sin) / n.short
    radius = np.sqrt(u**2 + v**2)
    if reach > 3:
        radius = radius + n.rough * field(u + 7 * n.x, v + 7 * n.y, 0.5, rng)
    edge = np.clip((1 - radius) * n.short / max(um, 0.4) + 0.5, 0, 1)
    inside = (cols >= 0) & (cols < shape[1]) & (rows >= 0) & (rows < shape[0]) & (edge > 0)
    places = (rows * shape[1] + cols)[inside]
    body = (edge * _chromatin(n, u, v, radius, reach, rng))[inside]
    edge = edge[inside]
    np.maximum.at(cover, places, edge)
    np.maximum.at(ink, places, body)
    ink[places[edge > 0.5]] = body[edge > 0.5]  # the last one lies on top, and is not seen through


def _chromatin(n: Nuclei, u, v, radius, reach: int, rng) -> np.ndarray:
    """Return the haematoxylin within nuclei: rim, clumps and nucleolus where they can be seen."""
    if reach < 5:
        return n.density * (1 - 0.35 * n.pale) * np.ones_like(radius)
    clumps = field(u + 5 * n.x, v + 5 * n.y, 0.13, rng)
    rim = np.exp(-(((radius - 0.9) / 0.13) ** 2))
    places = rng.uniform(-0.45, 0.45, (2, *n.x.shape)).astype(np.float32)
    nucleolus = np.exp(-(((u - places[0]) ** 2 + (v - places[1]) ** 2) / 0.04))
    inner = 0.95 - 0.5 * n.pale + (0.12 + 0.1 * n.pale) * clumps
    return n.density * np.clip(inner + (0.1 + 0.3 * n.pale) * rim + 0.6 * n.pale * nucleolus, 0, 2)
