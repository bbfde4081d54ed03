"""How the eight tumour types of the phantom are built: maps of their compartments, in µm.

A wall map gives the depth inside an epithelium, from its basement membrane (0) towards the
lumen; negative values lie in the stroma. Beyond the thickness of the epithelium lies the lumen.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from phantom.tissue_cells import scatter
from phantom.tissue_noise import field

FAR = 1e3  # µm: an epithelium without a lumen, or nothing of the kind near


class Plan(NamedTuple):
    """The architecture of one picture. Maps: float32 (height, width), lengths in µm."""

    wall: np.ndarray  # depth inside the epithelium
    lumen: np.ndarray  # depth inside a lumen
    mucin: np.ndarray  # depth inside a pool of mucin
    layers: tuple[float, ...] = ()  # depths of rows of nuclei; empty: a sheet without order
    ordered: bool = True  # the first row is flat (myoepithelium)
    girth: float = 1.0  # size of the nuclei of the epithelium
    halo: float = 0.0  # width of the cleft round the epithelium
    files: bool = False  # single files of cells in the stroma
    collagen: float = 0.5  # 0 loose and pale, 1 dense and pink
    spindle: float = 1.5  # stromal nuclei for each 1,000 µm²


def draw_plan(kind: str, shape: tuple[int, int], step: float, rng) -> Plan:
    """Return the plan of a tumour type on a grid of `step` µm.

    A place is looked for (on a grid of few points) where something of the epithelium is seen,
    as the people who took the pictures did; now and then any place that is not empty will do.
    """
    seeds = rng.integers(2**62, size=20)
    choosy = rng.random() < 0.93
    far = [(side - 1) * step for side in shape]
    for seed in seeds[:-1]:
        plan = _build(kind, (14, 20), far, seed)
        if _worth_a_picture(plan, choosy):
            return _build(kind, shape, far, seed)
    return _build(kind, shape, far, seeds[-1])


def _build(kind, shape, far, seed) -> Plan:
    axes = (np.linspace(0, end, n, dtype=np.float32) for end, n in zip(far, shape, strict=True))
    y, x = np.meshgrid(*axes, indexing="ij")
    return _BUILDERS[kind](x, y, np.random.default_rng(seed))


def _worth_a_picture(plan: Plan, choosy: bool) -> bool:
    """Return whether a place is not empty and, for the choosy, shows what the type is about."""
    if np.mean(plan.lumen > 0) > 0.4:
        return False
    epithelium = np.mean((plan.wall > 0) & (plan.lumen < 0))
    pools = np.mean(plan.mucin > 0)
    shown = 0.15 < epithelium < 0.9 and (pools > 0.3 or pools == 0)
    return shown or plan.files or not choosy


def _adenosis(x, y, rng):
    wall = _glands(x, y, rng.uniform(34, 44), (0.34, 0.47), 0.2, rng)
    lobule = 25 * (_smooth(x, y, 120, rng) + 1.0)
    wall = np.minimum(wall, lobule)
    return Plan(wall, wall - 11.5, _none(x), (2.2, 7), collagen=rng.uniform(0.3, 0.7))


def _tubular(x, y, rng):
    wall = _glands(x, y, rng.uniform(48, 62), (0.34, 0.5), 0.2, rng)
    collagen = rng.uniform(0.1, 0.4)
    return Plan(wall, wall - 12.5, _none(x), (2.2, 8), collagen=collagen, spindle=1.2)


def _fibroadenoma(x, y, rng):
    ridge = _ridge(x, y, rng.uniform(85, 120), rng)
    segments = 40 * (_smooth(x, y, 110, rng) + 0.35)
    wall = np.minimum(rng.uniform(14, 21) - ridge, segments)
    collagen = rng.uniform(0.0, 0.35)
    return Plan(wall, wall - 13, _none(x), (2.2, 8), collagen=collagen, spindle=2.6)


def _phyllodes(x, y, rng):
    cleft = _level(x, y, rng.uniform(60, 90), 0.7, rng)
    collagen = rng.uniform(0.15, 0.4)
    return Plan(cleft + 13, cleft, _none(x), (2.2, 8), collagen=collagen, spindle=6.0)


def _ductal(x, y, rng):
    wall = _level(x, y, rng.uniform(28, 70), rng.uniform(-0.5, 0.3), rng)
    holes = np.minimum(_level(x, y, 14, rng.uniform(0.9, 2.6), rng), wall - 9)
    halo, collagen = max(0, rng.normal(-1, 3)), rng.uniform(0.5, 1)
    return Plan(wall, holes, _none(x), halo=halo, collagen=collagen, spindle=1.8)


def _lobular(x, y, rng):
    collagen = rng.uniform(0.6, 1)
    return Plan(*3 * [_none(x)], files=True, collagen=collagen, spindle=1.2)


def _mucinous(x, y, rng):
    pool = _level(x, y, rng.uniform(80, 130), -0.5, rng)
    wall = np.minimum(_level(x, y, rng.uniform(20, 34), rng.uniform(0.4, 0.8), rng), pool - 12)
    return Plan(wall, _none(x), pool, collagen=rng.uniform(0.4, 0.8), girth=0.9)


def _papillary(x, y, rng):
    ridge = _ridge(x, y, rng.uniform(32, 46), rng)
    wall, collagen = ridge - rng.uniform(3, 8), rng.uniform(0.2, 0.5)
    lumen = wall - rng.uniform(15, 22)
    rows = (3, 8, 13)
    return Plan(wall, lumen, _none(x), rows, False, collagen=collagen, spindle=2.5)


_BUILDERS = {
    "A": _adenosis,
    "F": _fibroadenoma,
    "PT": _phyllodes,
    "TA": _tubular,
    "DC": _ductal,
    "LC": _lobular,
    "MC": _mucinous,
    "PC": _papillary,
}


def _none(x):
    return np.full_like(x, -FAR)


def _smooth(x, y, length, rng):
    return field(x, y, length, rng, order=2)


def _level(x, y, length, threshold, rng):
    """Return the depth (about µm) inside where a smooth field exceeds a threshold."""
    height = _smooth(x, y, length, rng) + _ripples(x, y, length, rng) - threshold
    return _as_depth(height, x, length)


def _ridge(x, y, length, rng):
    """Return the distance (about µm) from the zero lines of a smooth field."""
    height = _smooth(x, y, length, rng) + _ripples(x, y, length, rng)
    return np.abs(_as_depth(height, x, length))


def _ripples(x, y, length, rng):
    """Return the finer waves of an outline, down to the size of a cell."""
    waves = 0.13 * _smooth(x, y, length / 4, rng)
    return waves + (1.3 / length) * field(x, y, 9, rng, order=1)


def _as_depth(height, x, length):
    """Return height over slope, with a floor for the slope where the field is flat."""
    gy, gx = np.gradient(height, x[0, 1] - x[0, 0])
    return height / np.sqrt(gx**2 + gy**2 + (0.5 / length) ** 2)


def _glands(x, y, gap, radius, disorder, rng):
    """Return the depth inside round glands, `gap` µm apart, of `radius` (range) times the gap."""
    seen = (np.ptp(x) + 4 * gap, np.ptp(y) + 4 * gap)
    cx, cy = (c - 2 * gap for c in scatter(*seen, gap, disorder, rng))
    radii = gap * rng.uniform(*radius, len(cx))
    warp = 1.2 * disorder * gap
    x = x + warp * _smooth(x, y, 0.9 * gap, rng)
    y = y + warp * _smooth(x, y, 0.9 * gap, rng)
    points = np.stack([x.ravel(), y.ravel()], 1)
    distance, owner = cKDTree(np.stack([cx, cy], 1)).query(points)
    return (radii[owner] - distance).reshape(x.shape).astype(np.float32)
