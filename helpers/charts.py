"""Charts of results: scores with their intervals, and sheets of images.

Each function returns a figure for ``plots.show``. Colours are safe for colour-blind readers, and
shapes or printed numbers repeat what a colour says, so that a print in grey can be read. A model
has the same colour and shape in the whole series.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.plots import INK, OTHER_COLORS, PALETTE, REFERENCE, legend_below, look, spell


def _interval_rows(ax: Axes, frame: pd.DataFrame, rows: str, marks: str, looks: dict, digits: int):
    """Draw dots with whiskers on ``ax``, one line of text beside each."""
    order = list(frame[rows].unique())
    names = list(looks) if marks != rows else []
    step = min(0.34, 0.66 / max(len(names), 1))
    for band in range(1, len(order), 2) if names else ():
        ax.axhspan(band - 0.5, band + 0.5, color="#f4f4f4", lw=0, zorder=0)
    for item in frame.to_dict("records"):
        shift = (names.index(str(item[marks])) - (len(names) - 1) / 2) * step if names else 0.0
        y, style = order.index(item[rows]) + shift, looks[str(item[marks])]
        low, high = item.get("ci_low", np.nan), item.get("ci_high", np.nan)
        ax.plot([low, high], [y, y], color=style["color"], lw=1.8, solid_capstyle="butt")
        size = 10 if style["marker"] in "*X" else 6.5  # these fill less of their square
        ax.plot(item["value"], y, style["marker"], color=style["color"], ms=size, mec="white")
        spread = f" ({low:.{digits}f} to {high:.{digits}f})" if np.isfinite(low) else ""
        words = f"{item['value']:.{digits}f}{spread}".replace("-", "\N{MINUS SIGN}")
        ax.text(1.02, y, words, va="center", fontsize=8.5, color=INK,
                transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set(yticks=range(len(order)), yticklabels=[spell(row) for row in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def interval_plot(
    frame: pd.DataFrame,
    *,
    rows: str = "model",
    marks: str | None = None,
    panels: str | None = None,
    xlabel: str = "AUC",
    limits: tuple[float, float] | None = None,
    reference: float | None = None,
    digits: int = 2,
) -> Figure:
    """Return dots with 95% intervals, a row for each value of ``rows``, the numbers beside them.

    ``frame`` has value, ci_low and ci_high (missing: no whisker) and the columns named by ``rows``,
    ``marks`` (several dots in a row, told apart by colour and shape) and ``panels`` (one below the
    other). The order is that of the frame. ``reference`` draws a dashed line: 0.5 for chance. Of an
    empty frame the figure says that there is nothing to show.
    """
    marks = marks or rows
    if frame.empty:
        return _nothing("No score is defined here: the test part lacks a class.")
    groups = list(frame.groupby(panels, sort=False)) if panels else [("", frame)]
    names = [str(name) for name in frame[marks].unique()]
    looks = look(names)
    if marks == rows and not PALETTE.keys() & set(names):  # rows that are no models look alike
        looks = dict.fromkeys(names, {"color": OTHER_COLORS[0], "marker": "o"})
    counts = [part[rows].nunique() for _, part in groups]
    per_row = 0.32 if marks == rows else max(0.4, 0.23 * len(looks))
    height = 0.9 + 0.4 * len(groups) + per_row * sum(counts)
    fig, axes = plt.subplots(
        len(groups), 1, figsize=(7.5, height), sharex=True, squeeze=False, height_ratios=counts
    )
    for ax, (title, part) in zip(axes[:, 0], groups, strict=True):
        _interval_rows(ax, part, rows, marks, looks, digits)
        ax.set_title(spell(title))
        if reference is not None:
            ax.axvline(reference, color=REFERENCE, ls="--", lw=1, zorder=0)
    axes[-1, 0].set(xlabel=f"{xlabel} (95% interval)", xlim=limits)
    if marks != rows and len(looks) > 1:
        for name, style in looks.items():
            axes[0, 0].plot([], [], style["marker"], color=style["color"], label=spell(name))
        legend_below(fig, axes[0, 0])
    return fig


def _nothing(why: str) -> Figure:
    """Return a figure that says why there is nothing to show."""
    fig, ax = plt.subplots(figsize=(7.5, 1))
    ax.text(0.5, 0.5, why, ha="center", va="center")
    ax.axis("off")
    return fig


def image_sheet(
    images: list[np.ndarray] | np.ndarray,
    titles: list[str],
    *,
    columns: int = 4,
    frames: list[str] | None = None,
    row_titles: list[str] | None = None,
    width: float = 7.8,
) -> Figure:
    """Return images side by side, uint8 (height, width, 3), each with its title above it.

    ``frames`` gives a border colour to each image (None: no border). ``row_titles`` stand at the
    left of the rows. ``width`` is that of the figure, inches. Show sheets with ``jpeg=True``.
    """
    if len(images) == 0:
        raise ValueError("image_sheet needs at least one image.")
    n_rows = -(-len(images) // columns)
    tall, wide = np.asarray(images[0]).shape[:2]
    lines = max(title.count("\n") + 1 for title in titles) if any(titles) else 0
    height = n_rows * (width / columns * tall / wide + 0.15 * lines + 0.08)
    fig, axes = plt.subplots(n_rows, columns, figsize=(width, height), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    for position, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        if position >= len(images):
            continue
        ax.imshow(images[position], interpolation="antialiased")
        ax.set_title(titles[position], fontsize=8, pad=3)
        if frames and frames[position]:
            ax.spines[:].set(visible=True, color=frames[position], linewidth=2)
        if row_titles and position % columns == 0:
            ax.set_ylabel(row_titles[position // columns], fontsize=9)
    return fig
