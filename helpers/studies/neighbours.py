"""What features know about patients and types: nearest neighbours, and maps in two dimensions."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from helpers.bootstrap import interval, resamples
from helpers.plots import OTHER_COLORS


def mean_interval(values, accession, n_boot=2000, seed=0):
    """Return (mean, low, high) of ``values`` (n,), NaN left out; bootstrap over accessions."""
    known = np.isfinite(values)
    names, codes = np.unique(np.asarray(accession)[known], return_inverse=True)
    if not len(names):
        return np.nan, np.nan, np.nan
    weights = resamples(len(names), n_boot, seed)
    means = (
        weights @ np.bincount(codes, values[known]) / np.maximum(weights @ np.bincount(codes), 1)
    )
    return (means[0], *interval(means)) if len(names) > 1 else (means[0], np.nan, np.nan)


def standardise(x: np.ndarray) -> np.ndarray:
    """Return ``x`` (n, d) with mean 0 and deviation 1 in each column, float32; constants to 0."""
    deviation = x.std(0)
    return ((x - x.mean(0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def nearest(x: np.ndarray, exclude: np.ndarray | None = None, block: int = 1024) -> np.ndarray:
    """Return the row number of each row's nearest other row, Euclidean, int64 (n,).

    ``x``: float (n, d). Rows that share the row's value in ``exclude`` (n,) are passed over, for
    instance those of the same patient. -1 where no row is left.
    """
    n = len(x)
    exclude = np.arange(n) if exclude is None else np.asarray(exclude)
    squares = np.einsum("ij,ij->i", x, x)
    found = np.full(n, -1)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        distance = squares[None, :] - 2 * (x[rows] @ x.T)
        barred = exclude[rows, None] == exclude[None, :]
        distance[barred] = np.inf
        found[rows] = np.where(barred.all(1), -1, distance.argmin(1))
    return found


def agreement(x: np.ndarray, labels: np.ndarray, exclude: np.ndarray | None = None):
    """Return (agrees, chance), float64 (n,) each, for the rows' nearest neighbours.

    ``agrees`` is 1 where the neighbour (see :func:`nearest`) has the row's label, and NaN where
    there is none. ``chance`` is the share of the allowed rows that have it: what a neighbour drawn
    at random would give.
    """
    labels = np.asarray(labels)
    exclude = np.arange(len(labels)) if exclude is None else np.asarray(exclude)
    neighbour = nearest(x, exclude)
    agrees = np.where(neighbour < 0, np.nan, labels[neighbour] == labels)
    same_label = _counts(labels) - _counts(labels, exclude)
    allowed = len(labels) - _counts(exclude)
    chance = np.where(allowed > 0, same_label / np.maximum(allowed, 1), np.nan)
    return agrees, chance


def known(x, types, patients, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return how often rows' nearest neighbours share their patient or type, and by chance.

    ``x``: float (n, d), standardised; ``types``, ``patients``: (n,). Columns: question, drawn
    (``nearest neighbour`` or ``chance``), value, ci_low, ci_high (shares of rows, 0 to 1).
    """
    questions = {
        "same patient": (patients, None),
        "same type": (types, None),
        "same type, own patient barred": (types, patients),
    }
    rows = [
        (words, mark, *mean_interval(values, patients, n_boot, seed))
        for words, (labels, barred) in questions.items()
        for mark, values in zip(
            ("nearest neighbour", "chance"), agreement(x, labels, barred), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=["question", "drawn", "value", "ci_low", "ci_high"])


def tell(shares: pd.DataFrame) -> str:
    """Return one sentence on the result of :func:`known`."""
    share = shares.set_index(["question", "drawn"])["value"].map("{:.0%}".format)
    patient, kind = share["same patient"], share["same type, own patient barred"]
    return (
        f"The nearest image is of the same patient in {patient['nearest neighbour']} (chance "
        f"{patient['chance']}); of the same type, own patient barred, in "
        f"{kind['nearest neighbour']} (chance {kind['chance']})."
    )


@threadpool_limits.wrap(limits=1)  # small matrices are slower on several threads
def two_maps(z: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return ``z`` (n, d) in two dimensions, float (n, 2), by "PCA" and by "t-SNE".

    t-SNE (van der Maaten and Hinton 2008) starts from the first 50 principal components.
    """
    components = PCA(min(50, *z.shape), random_state=seed).fit_transform(z)
    tsne = TSNE(perplexity=min(30, len(z) // 4), init="pca", random_state=seed)
    return {"PCA": components[:, :2], "t-SNE": tsne.fit_transform(components)}


def _scatter(ax: Axes, points: np.ndarray, labels: np.ndarray, names) -> None:
    """Draw points (n, 2): those with a label in ``names`` in colour and shape, others in grey."""
    ax.plot(*points[~np.isin(labels, names)].T, ".", color="#d0d0d0", ms=3, zorder=0)
    for number, (name, mark) in enumerate(zip(names, "osD^osD^", strict=False)):
        color = OTHER_COLORS[number % 4]
        fill = "none" if number < 4 else color
        ax.plot(*points[labels == name].T, mark, mec=color, mfc=fill, ms=4.5, label=name)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_maps(maps: dict[str, np.ndarray], colours: dict[str, tuple]) -> Figure:
    """Return each map of features, (n, 2), as a row, coloured in several ways.

    ``colours``: way -> (labels (n,), up to eight of them to colour); the first four are hollow.
    """
    n_rows, n_columns = len(maps), len(colours)
    fig, axes = plt.subplots(
        n_rows, n_columns, figsize=(3.9 * n_columns, 3.7 * n_rows), squeeze=False
    )
    for row, (method, points) in zip(axes, maps.items(), strict=True):
        for ax, (way, (labels, names)) in zip(row, colours.items(), strict=True):
            _scatter(ax, points, labels, names)
            ax.set_title(f"{method}, by {way}")
    for ax in axes[-1]:
        ax.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, fontsize=8, handletextpad=0.1
        )
    return fig


def _counts(*keys: np.ndarray) -> np.ndarray:
    """Return for each row how many rows share all its ``keys``, itself included."""
    codes = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        part = np.unique(key, return_inverse=True)[1]
        codes = codes * (part.max() + 1) + part
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return counts[inverse]
