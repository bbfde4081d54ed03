"""Smooth random fields for the phantom, all sampled from a few periodic tiles."""

from functools import cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

TILE = 1024  # px; a power of two
GRAIN = 10  # px of a tile in one unit of length of a field
FINE = 1.5  # the same, in the tile for texture of a few px


@cache
def _tile(grain: float, order: int) -> np.ndarray:
    """Return a periodic Gaussian field, float32 (TILE, TILE), or its spline coefficients."""
    white = np.random.default_rng(20160701).normal(size=(TILE, TILE))
    smooth = gaussian_filter(white, grain, mode="wrap")
    smooth = (smooth - smooth.mean()) / smooth.std()
    if order > 1:
        smooth = spline_filter(smooth, order, mode="grid-wrap")
    return smooth.astype(np.float32)


def field(x: np.ndarray, y: np.ndarray, length: float | tuple, rng, order: int = 0) -> np.ndarray:
    """Return a smooth random field at the points x, y: float32, mean 0, variance about 1.

    `length` is the correlation length along x and y (one number: both), in the unit of x and y.
    Each call draws another place of the tile. Order 0 (nearest) will do for texture; where the
    slope of the field counts, order 2 avoids facets.
    """
    along, across = length if isinstance(length, tuple) else (length, length)
    shift = rng.uniform(0, TILE, size=2)
    places = y * (GRAIN / across) + shift[0], x * (GRAIN / along) + shift[1]
    if order == 0:
        rows, columns = (np.floor(place).astype(np.int32) & (TILE - 1) for place in places)
        return _tile(GRAIN, 1)[rows, columns]
    return map_coordinates(
        _tile(GRAIN, order), places, np.float32, order, mode="grid-wrap", prefilter=False
    )


def picture_field(shape: tuple[int, int], length: float, rng) -> np.ndarray:
    """Return a smooth random field over the pixels of a picture; `length` is in px.

    Stretching a piece of a tile is much faster than sampling it point by point.
    """
    grain = GRAIN if length > 8 else FINE
    scale = grain / length
    height, width = (side * scale for side in shape)
    top, left = rng.integers(TILE, size=2)
    rows = np.arange(top, top + int(height) + 2) % TILE
    columns = np.arange(left, left + int(width) + 2) % TILE
    piece = Image.fromarray(_tile(grain, 1)[np.ix_(rows, columns)])
    box = (0, 0, width, height)
    return np.asarray(piece.resize(shape[::-1], Image.Resampling.BILINEAR, box))


def ramp(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return how far inside an edge: 0 outside, 1 inside, linear over `softness`."""
    return np.clip(distance / np.float32(softness) + np.float32(0.5), 0, 1)


def at(plane: np.ndarray, x: np.ndarray, y: np.ndarray, step: float, order: int = 0) -> np.ndarray:
    """Return a map (grid of `step` µm, from 0) at points in µm: the nearest value, or linear."""
    if order:
        return map_coordinates(
            plane, [y / step, x / step], order=1, mode="nearest", prefilter=False
        )
    rows = np.clip(np.rint(y / step).astype(np.int32), 0, plane.shape[0] - 1)
    columns = np.clip(np.rint(x / step).astype(np.int32), 0, plane.shape[1] - 1)
    return plane[rows, columns]


def enlarge(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a coarse map on the pixels of the picture, float32 of this shape."""
    picture = Image.fromarray(np.asarray(plane, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))
