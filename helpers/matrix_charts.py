"""Charts of tables: confusion matrices and heat maps, with the numbers written into the cells.

Each function returns a figure for ``plots.show``. What a colour says is printed too, so that a
print in grey can be read.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.plots import INK, spell


def _cell_texts(ax: Axes, shade: np.ndarray, texts: np.ndarray, image, size: float) -> None:
    """Write ``texts`` into the cells of a matrix, white on dark and black on light."""
    for (i, j), words in np.ndenumerate(texts):
        if not words:
            continue
        known = np.isfinite(shade[i, j])
        red, green, blue, _ = image.cmap(image.norm(shade[i, j])) if known else (1, 1, 1, 1)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        ax.text(j, i, words, ha="center", va="center", fontsize=size,
                color="white" if dark else INK)  # fmt: skip


def _matrix_axes(ax: Axes, xlabels, ylabels) -> None:
    ax.set(xticks=range(len(xlabels)), yticks=range(len(ylabels)))
    ax.set_xticklabels(xlabels)
    ax.set_yticklabels(ylabels)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def confusion(
    counts: dict[str, np.ndarray] | np.ndarray,
    labels: list[str],
    *,
    columns: list[str] | None = None,
    unit: str = "images",
    boundary: int | None = None,
) -> Figure:
    """Return confusion matrices: counts, and the share of each row (the true class) below them.

    ``counts`` is int (rows, columns), true by predicted, or several such under their titles.
    ``labels`` name the rows and, unless ``columns`` does, the columns. ``boundary`` draws a line
    after that many classes, for example between benign and malignant types.
    """
    panels = counts if isinstance(counts, dict) else {"": counts}
    columns = columns or labels
    cell = 0.72 if len(columns) > 3 else 1.15
    width = max(len(columns) * cell + 1.7, 3.4) * len(panels)
    height = len(labels) * min(cell, 0.72) + 1.3
    fig, axes = plt.subplots(1, len(panels), figsize=(width, height), squeeze=False)
    for ax, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        matrix = np.asarray(matrix)
        totals = matrix.sum(1, keepdims=True)
        share = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
        image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        texts = np.array([
            [f"{n}\n{s:.0%}" if n else "0" * bool(total) for n, s in zip(row, part, strict=True)]
            for row, part, total in zip(matrix, share, totals[:, 0], strict=True)
        ])  # fmt: skip
        _cell_texts(ax, share, texts, image, 8.5)
        names = [f"{name} (n={n})" for name, n in zip(labels, totals[:, 0], strict=True)]
        _matrix_axes(ax, columns, names)
        ax.set(title=title, xlabel="predicted class")
        if boundary:
            ax.axhline(boundary - 0.5, color=INK, lw=1)
            ax.axvline(boundary - 0.5, color=INK, lw=1)
    axes[0, 0].set_ylabel(f"true class (n {unit})" if unit else "true class (n)")
    return fig


def heat_map(
    value: pd.DataFrame,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    *,
    xlabel: str,
    ylabel: str,
    label: str,
    limits: tuple[float, float] | None = None,
    digits: int = 2,
) -> Figure:
    """Return a heat map with the value and its 95% interval written into each cell.

    The frames share their index (rows) and columns; a missing cell stays white and says so.
    ``label`` names the colour scale, ``limits`` are its ends.
    """
    numbers = value.to_numpy(float)
    fig, ax = plt.subplots(figsize=(1.35 * numbers.shape[1] + 2.4, 0.75 * numbers.shape[0] + 1.2))
    lowest, highest = limits or (np.nanmin(numbers), np.nanmax(numbers))
    image = ax.imshow(numbers, cmap="cividis", vmin=lowest, vmax=highest, aspect="auto")
    texts = np.empty(numbers.shape, object)
    for i, j in np.ndindex(numbers.shape):
        words = f"{numbers[i, j]:.{digits}f}" if np.isfinite(numbers[i, j]) else "not\nstudied"
        ends = [float(part.iloc[i, j]) for part in (low, high) if part is not None]
        if len(ends) == 2 and np.isfinite(ends).all() and np.isfinite(numbers[i, j]):
            words += f"\n{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
        texts[i, j] = words
    _cell_texts(ax, numbers, texts, image, 9)
    _matrix_axes(ax, [spell(name) for name in value.columns], [spell(name) for name in value.index])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    bar = fig.colorbar(image, ax=ax, label=label, shrink=0.9)
    bar.outline.set_visible(False)
    return fig
