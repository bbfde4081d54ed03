"""Figures of results: a DataFrame in, a matplotlib figure out, for ``plots.show``.

Colours are safe for colour-blind readers; shapes or printed numbers repeat what a colour says, so
that a print in grey can be read. A model has the same colour and shape in the whole series.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.plots import INK, OTHER_COLORS, PALETTE, REFERENCE, look, spell
from helpers.scores import as_text


def intervals(
    frame, *, rows="model", marks=None, panels=None, xlabel="AUC", reference=None, percent=False
) -> Figure:
    """Return dots with 95% intervals, a row for each value of ``rows``, the numbers beside them.

    ``frame`` has value, ci_low and ci_high (missing: no whisker) and the columns named by ``rows``,
    ``marks`` (several dots in a row, told apart by colour and shape) and ``panels`` (one below the
    other). The order is that of the frame. ``reference`` draws a dashed line: 0.5 for chance.
    ``percent`` writes shares so. Of an empty frame the figure says that there is nothing to show.
    """
    marks = marks or rows
    if frame.empty:
        return _nothing("No score is defined here: the test part lacks a class.")
    parts = list(frame.groupby(panels, sort=False)) if panels else [("", frame)]
    looks = look(frame[marks])
    if marks == rows and not PALETTE.keys() & looks.keys():  # rows that are no models look alike
        looks = dict.fromkeys(looks, {"color": OTHER_COLORS[0], "marker": "o"})
    counts = [part[rows].nunique() for _, part in parts]
    per_row = 0.32 if marks == rows else max(0.4, 0.23 * len(looks))
    size = (7.5, 0.9 + 0.4 * len(parts) + per_row * sum(counts))
    options = {"sharex": True, "squeeze": False, "height_ratios": counts}
    fig, axes = plt.subplots(len(parts), 1, figsize=size, **options)
    for ax, (title, part) in zip(axes[:, 0], parts, strict=True):
        _interval_rows(ax, part, rows, marks, looks, percent)
        ax.set_title(spell(title))
        if reference is not None:
            ax.axvline(reference, color=REFERENCE, ls="--", lw=1, zorder=0)
    axes[-1, 0].set_xlabel(f"{xlabel} (95% interval)")
    axes[-1, 0].locator_params(axis="x", nbins=6)
    if percent:
        axes[-1, 0].xaxis.set_major_formatter(PercentFormatter(1, 0))
    if marks != rows and len(looks) > 1:
        for name, own in looks.items():
            axes[0, 0].plot([], [], own["marker"], color=own["color"], label=spell(name))
        legend_below(fig, axes[0, 0])
    return fig


def _interval_rows(ax, frame, rows, marks, looks, percent):
    """Draw dots with whiskers on ``ax``, one line of text beside each."""
    order = list(frame[rows].unique())
    names = list(looks) if marks != rows else []
    step = min(0.34, 0.66 / max(len(names), 1))
    for band in range(1, len(order), 2) if names else ():
        ax.axhspan(band - 0.5, band + 0.5, color="#f4f4f4", lw=0, zorder=0)
    for item in frame.to_dict("records"):
        shift = (names.index(str(item[marks])) - (len(names) - 1) / 2) * step if names else 0.0
        y, own = order.index(item[rows]) + shift, looks[str(item[marks])]
        low, high = item.get("ci_low", np.nan), item.get("ci_high", np.nan)
        ax.plot([low, high], [y, y], color=own["color"], lw=1.8, solid_capstyle="butt")
        size = 10 if own["marker"] in "*X" else 6.5  # these fill less of their square
        ax.plot(item["value"], y, own["marker"], color=own["color"], ms=size, mec="white")
        words = as_text({"ci_low": low, "ci_high": high, **item}, percent=percent)
        place = {"va": "center", "transform": ax.get_yaxis_transform()}
        ax.text(1.02, y, words.replace("-", "\N{MINUS SIGN}"), fontsize=8.5, color=INK, **place)
    ax.set(yticks=range(len(order)), yticklabels=[spell(row) for row in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _nothing(why: str) -> Figure:
    fig, ax = plt.subplots(figsize=(7.5, 1))
    ax.text(0.5, 0.5, why, ha="center", va="center")
    ax.axis("off")
    return fig


def legend_below(fig: Figure, ax: Axes, columns: int = 4) -> None:
    """Put the legend of ``ax`` under the figure, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    if ax.get_legend():
        ax.get_legend().remove()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def sheet(images, titles, *, columns=4, row_titles=None) -> Figure:
    """Return images side by side, uint8 (height, width, 3), each with its title above it.

    ``row_titles`` stand at the left of the rows. Show sheets with ``jpeg=True``, and images of the
    data with ``tissue=True``. ValueError without images.
    """
    if len(images) == 0:
        raise ValueError("sheet needs at least one image.")
    n_rows = -(-len(images) // columns)
    tall, wide = np.asarray(images[0]).shape[:2]
    lines = max(title.count("\n") + 1 for title in titles) if any(titles) else 0
    height = n_rows * (7.8 / columns * tall / wide + 0.15 * lines + 0.08)
    fig, axes = plt.subplots(n_rows, columns, figsize=(7.8, height), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    for position, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        if position >= len(images):
            continue
        ax.imshow(images[position], interpolation="antialiased")
        ax.set_title(titles[position], fontsize=8, pad=3)
        if row_titles and position % columns == 0:
            ax.set_ylabel(row_titles[position // columns], fontsize=9)
    return fig


def heat_map(value, text=None, *, xlabel, ylabel, label, limits=(None, None)) -> Figure:
    """Return a heat map of ``value`` with ``text`` (or the value, two digits) in its cells.

    ``text`` has the shape of ``value``. A missing value stays white and reads "not studied".
    ``label`` names the colour scale, ``limits`` are its ends.
    """
    words = value.map("{:z.2f}".format) if text is None else text
    fig, ax = plt.subplots(figsize=(1.35 * value.shape[1] + 2.4, 0.75 * value.shape[0] + 1.2))
    scale = {"vmin": limits[0], "vmax": limits[1], "cbar_kws": {"label": label}}
    _cells(ax, value, words, cmap="cividis", **scale)
    for i, j in np.argwhere(value.isna()):
        ax.text(j + 0.5, i + 0.5, "not\nstudied", ha="center", va="center", color=INK)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return fig


def _cells(ax: Axes, value: pd.DataFrame, words, **options) -> None:
    style = {"annot_kws": {"size": 8.5}, "linewidths": 1, "linecolor": "white"}
    sns.heatmap(value, annot=np.asarray(words), fmt="", ax=ax, **style, **options)
    ax.set_xticks(ax.get_xticks(), [spell(name) for name in value.columns], rotation=0)
    ax.set_yticks(ax.get_yticks(), [spell(name) for name in value.index], rotation=0)
    ax.grid(visible=False)
    ax.tick_params(length=0)


def curves(frame, x, y, *, hue="model", xlabel, ylabel) -> Figure:
    """Return ``y`` against ``x``, a line for each value of ``hue``, in the order of the frame.

    Where the frame has finite ci_low and ci_high, a band shows them. The figure's one axes take
    further lines, such as a reference.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4))
    for name, own in look(frame[hue]).items():
        part = frame[frame[hue].astype(str) == name].sort_values(x)
        if "ci_low" in part:
            band = {"color": own["color"], "alpha": 0.14, "lw": 0}
            ax.fill_between(part[x], part["ci_low"], part["ci_high"], **band)
        ax.plot(part[x], part[y], color=own["color"], ls=own["ls"], lw=1.8, label=spell(name))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend_below(fig, ax)
    return fig
