"""Drawing one picture of phantom tissue, stained with haematoxylin and eosin."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from phantom.tissue_cells import place, scatter
from phantom.tissue_noise import enlarge, field, picture_field, ramp
from phantom.tissue_nuclei import Nuclei, paint
from phantom.tissue_plan import Plan, draw_plan
from phantom.tissue_stain import Patient, develop

FIELD_UM = {40: 875.0, 100: 350.0, 200: 175.0, 400: 87.5}  # width of the field
MALIGNANT = ("DC", "LC", "MC", "PC")
EDGE_UM = 7.0  # drawn beyond the frame, so that it cuts nuclei
COARSE = 2  # px between the points of the maps of the architecture


def sources() -> list[Path]:
    """Return the files of the code that draws."""
    return sorted(Path(__file__).parent.glob("tissue*.py"))


def draw_image(
    tumor_type: str,
    magnification: int,
    size: tuple[int, int],
    patient: Patient,
    rng: np.random.Generator,
    signal: float,
    signature: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture, uint8 (height, width, 3), and its nuclei, bool (height, width).

    `signal` is the share of patients whose tissue is of `tumor_type`; that of the others is of a
    type drawn without regard to it. The atypia of nuclei depends on whether the tissue is of a
    malignant type, and on the patient by `signature`.
    """
    kind = tumor_type if patient.typical < signal else patient.kind
    malignant = 1 if kind in MALIGNANT else -1
    score = malignant + 0.5 * signature * patient.atypia + 0.3 * rng.normal()
    atypia = 1 / (1 + np.exp(-1.5 * score))
    um = FIELD_UM[magnification] / size[1]
    edge = int(np.ceil(EDGE_UM / um / COARSE)) * COARSE
    shape = tuple(side + side % COARSE + 2 * edge for side in size)
    ink, eosin, cover = _stains(kind, atypia, 0.2 * signature * patient.collagen, shape, um, rng)
    frame = (slice(edge, edge + size[0]), slice(edge, edge + size[1]))
    image = develop(ink[frame], eosin[frame], patient, signature, um, rng)
    return image, cover[frame] > 0.5


def _stains(kind: str, atypia: float, denser: float, shape: tuple, um: float, rng) -> tuple:
    """Return haematoxylin, eosin and the coverage by nuclei, each (height, width)."""
    step = um * COARSE
    coarse = (shape[0] // COARSE, shape[1] // COARSE)
    plan = draw_plan(kind, coarse, step, rng)
    plan = plan._replace(collagen=float(np.clip(plan.collagen + denser, 0, 1)))
    across, along = _fibres(plan, step, rng)
    cells = place(plan, across, atypia, step, rng)
    ink, cover = paint(cells, shape, um, rng)
    red = _blood(shape, um, rng)
    soft, snouts = max(um, 0.6), picture_field(shape, 3.5 / um, rng)
    wall = enlarge(plan.wall, shape)
    inside = ramp(wall, soft)
    lumen = ramp(enlarge(plan.lumen, shape) + snouts, soft)
    mucin = ramp(enlarge(plan.mucin, shape), soft) * (1 - inside)
    body, stroma = inside * (1 - lumen), (1 - inside) * (1 - mucin)
    if plan.halo:
        stroma = stroma * (1 - ramp(plan.halo + 2 * snouts + wall, soft))
    along, across = enlarge(along, shape), enlarge(across, shape)
    haze, pink = _stroma(along, across, plan.collagen, um, rng)
    cell_haze, cell_pink = _cytoplasm(plan, cells, atypia, shape, um, rng)
    pale = mucin * _mucus(along, across, rng) if mucin.any() else mucin
    haze = stroma * haze + body * cell_haze + pale
    eosin = stroma * pink + body * cell_pink + 0.35 * pale + inside * lumen * _fluid(shape, um, rng)
    eosin = eosin * (1 - 0.6 * cover) + 0.9 * red * (1 - body)
    uneven = 1 + 0.08 * picture_field(shape, 120, rng)
    return uneven * np.maximum(ink + 0.4 * haze * cover, haze), uneven * eosin, cover


def _fibres(plan: Plan, step: float, rng) -> tuple:
    """Return the coordinates (µm) across and along the fibres of the stroma, round the glands."""
    y, x = np.mgrid[0 : plan.wall.shape[0], 0 : plan.wall.shape[1]].astype(np.float32) * step
    angle = rng.uniform(0, np.pi)
    sway = 60 * field(x, y, 260, rng, 2) + 20 * field(x, y, 70, rng, 2)
    crimp = 2.6 * field(x, y, 16, rng, 2)
    bend = 1.5 * gaussian_filter(np.clip(plan.wall, -40, 5), 4 / step)
    across = y * np.cos(angle) - x * np.sin(angle) + sway + crimp + bend
    return across, x * np.cos(angle) + y * np.sin(angle)


def _stroma(along, across, collagen: float, um: float, rng) -> tuple:
    """Return haematoxylin and eosin of the fibrous stroma: bundles, fibrils and slits."""
    shape, loose = along.shape, 0.4 + 0.6 * collagen
    bundles = field(along, across, (36 * loose, 5), rng)
    fibrils = field(along, across, (14 * loose, max(1.3, um)), rng)
    fine = field(along, across, (7, max(0.6, um)), rng) if um < 0.6 else 0
    grain = picture_field(shape, max(0.8 / um, 1), rng)
    patches = picture_field(shape, 70 / um, rng)
    mesh = picture_field(shape, max(4 / um, 1), rng)
    openness = field(along, across, (22 * loose, 2.6), rng) + 0.4 * fibrils + 0.5 * patches
    openness = openness + (1.2 - collagen) * 0.6 * mesh
    gaps = ramp(openness - (0.6 + 1.0 * collagen), 0.5)
    solid = 1 - (0.75 + 0.2 * collagen) * gaps
    eosin = 0.22 + 0.42 * collagen + 0.1 * patches + 0.1 * bundles + 0.07 * fibrils
    eosin = eosin + 0.04 * fine + 0.05 * grain
    haze = 0.05 + 0.1 * (1 - collagen) + 0.03 * bundles + 0.03 * fibrils + 0.02 * grain
    return np.clip(haze, 0, None) * solid, np.clip(eosin, 0.03, None) * solid


def _mucus(along, across, rng) -> np.ndarray:
    """Return the haematoxylin of mucin: pale, with streaks."""
    streaks = field(along, across, (35, 5), rng) + 0.6 * field(along, across, 9, rng)
    return np.clip(0.14 + 0.06 * streaks, 0.02, None)


def _fluid(shape: tuple, um: float, rng) -> np.ndarray | float:
    """Return the eosin of what lies in a lumen: mostly nothing, now and then a secretion."""
    if rng.random() < 0.6:
        return 0.0
    clots = picture_field(shape, 18 / um, rng) + 0.25 * picture_field(shape, 3 / um, rng)
    return 0.13 * ramp(clots - 0.7, 1.2) * (1 + 0.3 * picture_field(shape, 2.5 / um, rng))


def _cytoplasm(plan, cells: Nuclei, atypia: float, shape: tuple, um: float, rng) -> tuple:
    """Return haematoxylin and eosin of the bodies of epithelial cells, with their borders."""
    grain = picture_field(shape, max(0.9 / um, 1), rng)
    clouds = picture_field(shape, 7 / um, rng)
    eosin = 0.34 + 0.05 * grain + 0.05 * clouds
    haze = 0.16 + 0.12 * atypia + 0.04 * grain + 0.03 * clouds
    if um < 0.7 and len(cells.x) > 2:
        border = _borders(plan, cells, shape, um)
        eosin, haze = eosin + 0.12 * border, haze + 0.05 * border
    return haze, eosin


def _borders(plan, cells: Nuclei, shape: tuple, um: float) -> np.ndarray:
    """Return where two nuclei of an epithelium are equally near: 1 there, 0 away from it."""
    every = max(1, round(1.2 / (um * COARSE)))
    wall = plan.wall[::every, ::every]
    rows, columns = np.nonzero(wall > -1)
    points = np.stack([columns, rows], 1) * (um * COARSE * every)
    near, _ = cKDTree(np.stack([cells.x, cells.y], 1)).query(points, k=2)
    border = np.full(wall.shape, 9, np.float32)
    border[rows, columns] = near[:, 1] - near[:, 0]
    return np.exp(-((enlarge(border, shape) / 1.1) ** 2))


def _blood(shape: tuple, um: float, rng) -> np.ndarray:
    """Return the coverage by red cells, 0 to 1: a few swarms outside the epithelium."""
    x, y = scatter(shape[1] * um, shape[0] * um, 6.2, 0.2, rng)
    kept = field(x, y, 28, rng) > rng.uniform(2.0, 3.5)
    x, y = x[kept], y[kept]
    size = np.full(len(x), 2.9)
    disc = Nuclei(x, y, size * 1.1, size, x, 0 * x + 1, 0 * x, 0 * x + 0.05)
    return paint(disc, shape, um, rng)[1]
