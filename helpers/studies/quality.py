"""Per-image statistics: focus, brightness, background and stain; and where their variance lies.

Optical density is ``-log10((value + 1) / 256)``: 0 for white, additive in the amounts of stain
(Beer and Lambert). Haematoxylin and eosin are separated with the standard vectors of Ruifrok and
Johnston (Analytical and Quantitative Cytology and Histology 23:291-299, 2001).
"""

from itertools import pairwise

import numpy as np
import pandas as pd

from helpers.data.images import parallel

# Rows: haematoxylin, eosin; columns: red, green, blue. The third row is at right angles to both.
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
BACKGROUND_OD = 0.06  # above the slide's own white, in each channel; found by eye on real images
DENSITY = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)
COLOURS = ["od_red", "od_green", "od_blue", "haematoxylin", "eosin", "brightness"]


def image_statistics(images: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    """Return one row an image, in the order of ``index``.

    images: uint8 (n, height, width, 3), 0 to 255. Columns: image_id; focus, the variance of the
    Laplacian of the grey image (Pertuz et al., Pattern Recognition 46:1415-1432, 2013), at the size
    given; brightness, mean grey value, 0 to 255; background, share of pixels as light as the
    lightest of the same slide and magnification; od_red, od_green, od_blue, mean optical density
    of the other pixels; haematoxylin and eosin, the amounts of stain that explain it.
    """
    white = np.array(parallel(lambda i: _white(images[i]), range(len(images)), "White points"))
    white = pd.DataFrame(white).groupby(
        [index["slide"].to_numpy(), index["magnification"].to_numpy()]
    )
    white = white.transform("min").to_numpy(np.float32)
    rows = parallel(lambda i: _statistics(images[i], white[i]), range(len(images)), "Statistics")
    table = pd.DataFrame(rows)
    table[["haematoxylin", "eosin"]] = unmix(table[["od_red", "od_green", "od_blue"]].to_numpy())
    table.insert(0, "image_id", index["image_id"].to_numpy())
    return table


def _white(image: np.ndarray) -> np.ndarray:
    """Optical density of the lightest hundredth of the pixels, by channel: float (3,)."""
    return DENSITY[np.percentile(image.reshape(-1, 3), 99, axis=0).astype(np.uint8)]


def _statistics(image: np.ndarray, white: np.ndarray) -> dict:
    density = DENSITY[image]
    tissue = ((density - white) >= BACKGROUND_OD).any(-1)
    grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    red, green, blue = density[tissue if tissue.any() else ...].reshape(-1, 3).mean(0)
    return {
        "focus": laplacian_variance(grey),
        "brightness": float(grey.mean()),
        "background": 1 - float(tissue.mean()),
        "od_red": float(red),
        "od_green": float(green),
        "od_blue": float(blue),
    }


def laplacian_variance(grey: np.ndarray) -> float:
    """Return the variance of the 4-neighbour Laplacian of ``grey`` (height, width)."""
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * centre).var())


def unmix(density: np.ndarray) -> np.ndarray:
    """Return haematoxylin and eosin (n, 2) of mean optical densities (n, 3), by least squares
    with a third, residual colour at right angles to both."""
    stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    residual = np.cross(stains[0], stains[1])
    basis = np.vstack([stains, residual / np.linalg.norm(residual)])
    return (density @ np.linalg.inv(basis))[:, :2]


def variance_parts(values: np.ndarray, table: pd.DataFrame) -> dict:
    """Split the variance of ``values`` (n,) after each magnification's mean is taken out.

    table: tumor_class, accession, slide and magnification of the same rows. Returns nested shares
    of the sum of squares that add up to 1 (``between classes``, ``between accessions`` of a class,
    ``between slides`` of an accession, ``within slides``), and ``accessions by chance``: what
    accessions would get if images belonged to them at random, (accessions - classes) / (n - 1).
    """
    keys = ["tumor_class", "accession", "slide"]
    frame = table[keys].reset_index(drop=True)
    frame["value"] = values
    means = frame.groupby(table["magnification"].to_numpy())["value"].transform("mean")
    frame["value"] -= means
    levels = [np.zeros(len(frame))]
    levels += [frame.groupby(keys[:n])["value"].transform("mean").to_numpy() for n in (1, 2, 3)]
    levels.append(frame["value"].to_numpy())
    sums = [((fine - coarse) ** 2).sum() for coarse, fine in pairwise(levels)]
    names = ["between classes", "between accessions", "between slides", "within slides"]
    groups = frame.groupby(keys[:2]).ngroups - frame["tumor_class"].nunique()
    shares = {name: part / sum(sums) for name, part in zip(names, sums, strict=True)}
    return shares | {"accessions by chance": groups / (len(frame) - 1)}
