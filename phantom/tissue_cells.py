"""Where the cells of the phantom lie: in rows along walls, in sheets, in files, in stroma."""

import numpy as np
from scipy.spatial import cKDTree

from phantom.tissue_noise import at, field
from phantom.tissue_nuclei import Nuclei, grow, join


def scatter(width: float, height: float, gap: float, jitter: float, rng) -> tuple:
    """Return x, y of a jittered hexagonal grid over width and height, all in µm."""
    rows = np.arange(-1, height / (gap * 0.866) + 1)
    columns = np.arange(-1, width / gap + 1)
    x = (columns[None] + (rows[:, None] % 2) / 2) * gap
    y = np.broadcast_to(rows[:, None] * gap * 0.866, x.shape)
    spread = jitter * gap
    shift = rng.uniform(0, gap, 2)
    x = x.ravel() + rng.normal(0, spread, x.size) + shift[0]
    y = y.ravel() + rng.normal(0, spread, y.size) + shift[1]
    return x, y


def thin(x: np.ndarray, y: np.ndarray, gap: float) -> np.ndarray:
    """Return which points stay (bool) so that those are at least `gap` apart, and few gaps open."""
    stays, open_ = np.zeros(len(x), bool), np.ones(len(x), bool)
    left, right = cKDTree(np.stack([x, y], 1)).query_pairs(gap, output_type="ndarray").T
    while open_.any():
        both = open_[left] & open_[right]
        left, right = left[both], right[both]
        first = open_.copy()
        first[np.maximum(left, right)] = False
        stays |= first
        open_[left[first[right]]] = False
        open_[right[first[left]]] = False
        open_ &= ~first
    return stays


def place(plan, across: np.ndarray, atypia: float, step: float, rng) -> Nuclei:
    """Return all nuclei of a picture from its plan and the map across its fibres (step: µm)."""
    parts = [_row(plan, number, atypia, step, rng) for number in range(len(plan.layers))]
    if not plan.layers:
        parts.append(_sheet(plan, atypia, step, rng))
    parts.append(_spindles(plan, across, atypia, step, rng))
    parts.append(_lymphocytes(plan, step, rng))
    if plan.files:
        parts.append(_files(across, plan, atypia, step, rng))
    return join(parts)


def _extent(plan, step: float) -> tuple:
    height, width = plan.wall.shape
    return width * step, height * step


def _snap(plane, x, y, step: float, target) -> tuple:
    """Move points to where a map has the value target(map): x, y, direction of slope, error."""
    gy, gx = np.gradient(plane, step)
    for _ in range(3):
        sx, sy = at(gx, x, y, step), at(gy, x, y, step)
        norm = np.maximum(sx**2 + sy**2, 0.1)
        value = at(plane, x, y, step, order=1)
        miss = value - target(value)
        x, y = x - miss * sx / norm, y - miss * sy / norm
    value = at(plane, x, y, step, order=1)
    return x, y, np.arctan2(at(gy, x, y, step), at(gx, x, y, step)), np.abs(value - target(value))


def _row(plan, number: int, atypia: float, step: float, rng) -> Nuclei:
    """Return one row of nuclei along the wall: the first flat, the others upright."""
    depth, flat = plan.layers[number], number == 0 and plan.ordered
    gap = (8.5 if flat else 5.0 + 1.2 * atypia) * plan.girth
    x, y = scatter(*_extent(plan, step), gap * 0.6, 0.25, rng)
    near = np.abs(at(plan.wall, x, y, step) - depth) < 0.6 * gap + step
    x, y, angle, miss = _snap(plan.wall, x[near], y[near], step, lambda value: depth)
    kept = miss < 1
    x, y, angle = x[kept], y[kept], angle[kept]
    stays = thin(x, y, gap)
    x, y = (p[stays] + rng.normal(0, 0.5 + 1.1 * atypia, stays.sum()) for p in (x, y))
    radius = (1.7 if flat else 2.5 + 1.2 * atypia) * plan.girth
    angle = angle[stays] + (np.pi / 2 if flat else 0)
    return grow(x, y, angle, radius, 2.4 if flat else 1.6, atypia, rng)


def _sheet(plan, atypia: float, step: float, rng) -> Nuclei:
    """Return nuclei that fill an epithelium without order."""
    gap = (7.2 + 2.6 * atypia) * plan.girth
    x, y = scatter(*_extent(plan, step), gap, 0.25, rng)
    kept = (at(plan.wall, x, y, step) > 2) & (at(plan.lumen, x, y, step) < -2)
    x, y = x[kept], y[kept]
    stays = thin(x, y, 0.7 * gap)
    x, y = x[stays], y[stays]
    angle = rng.uniform(0, np.pi, len(x))
    return grow(x, y, angle, (2.6 + 1.5 * atypia) * plan.girth, 1.3, atypia, rng)


def _spindles(plan, across, atypia: float, step: float, rng) -> Nuclei:
    """Return the thin nuclei of the stroma, along its fibres."""
    x, y = scatter(*_extent(plan, step), np.sqrt(1150 / plan.spindle), 0.45, rng)
    crowd = field(x, y, 60, rng) + rng.normal(0, 0.7, len(x))
    kept = (at(plan.wall, x, y, step) < -3) & (at(plan.mucin, x, y, step) < 0) & (crowd > -1)
    x, y = x[kept], y[kept]
    gy, gx = np.gradient(across, step)
    angle = np.arctan2(at(gy, x, y, step), at(gx, x, y, step)) + np.pi / 2
    ratio = np.exp(rng.normal(1.35, 0.35, len(x)))
    return grow(x, y, angle, 2.2, ratio, 0.25 + 0.2 * atypia, rng)


def _lymphocytes(plan, step: float, rng) -> Nuclei:
    """Return small dark round nuclei, in swarms in the stroma."""
    x, y = scatter(*_extent(plan, step), 8, 0.3, rng)
    swarm = field(x, y, 50, rng) + 0.6 * rng.normal(size=len(x))
    kept = (at(plan.wall, x, y, step) < -2) & (at(plan.mucin, x, y, step) < 0)
    kept &= swarm > rng.uniform(1.7, 3.2)
    x, y = x[kept], y[kept]
    return grow(x, y, 0 * x, 2.1, 1.1, 0.05, rng)._replace(density=np.full(len(x), 1.7))


def _files(across, plan, atypia: float, step: float, rng) -> Nuclei:
    """Return tumour cells in single files between the fibres."""
    gap, between = 6.5 + 1.5 * atypia, rng.uniform(13, 24)
    x, y = scatter(*_extent(plan, step), gap * 0.7, 0.25, rng)
    height, width = across.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32) * step
    uneven = across + 0.3 * between * field(columns, rows, 25, rng, order=1)
    x, y, angle, miss = _snap(uneven, x, y, step, lambda v: np.round(v / between) * between)
    kept = (miss < 1) & (field(x, y, 18, rng) + field(x, y, 90, rng) > rng.normal(0.1, 0.5))
    x, y, angle = x[kept], y[kept], angle[kept]
    stays = thin(x, y, gap)
    x, y = (p[stays] + rng.normal(0, 1.1, stays.sum()) for p in (x, y))
    return grow(x, y, angle[stays] + np.pi / 2, 2.5 + 0.8 * atypia, 1.3, 0.7 * atypia, rng)
