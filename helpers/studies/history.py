"""Learning curves from the histories that training.fit returns."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.charts import REFERENCE

COLORS = {"": REFERENCE, "val_": "#D55E00"}
NAMES = {"": "training", "val_": "validation"}


def learning_curves(history, run=("protocol", "fold", "seed")) -> Figure:
    """Return loss and accuracy against epoch, for training and validation patients.

    ``history``: the tables of several trainings, one below the other, with the columns ``run`` that
    tell them apart. Thin lines are trainings, thick ones their mean over those still running.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
    for ax, name in zip(axes, ("loss", "accuracy"), strict=True):
        for part in COLORS:
            if part + name in history:
                _draw(ax, history, part, name, list(run))
        ax.set(xlabel="epoch", ylabel=f"{name}, patients weigh the same")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        ax.set_xlim(0.5, history["epoch"].max() + 0.5)
    highest = history.filter(regex="loss$").max().max()
    axes[0].set_ylim(0, 1.05 * min(highest, 3 * history["loss"].max()))
    axes[0].legend()
    return fig


def _draw(ax: Axes, history, part: str, name: str, run: list[str]) -> None:
    column, color, style = part + name, COLORS[part], "-" if part else "--"
    for _, one in history.groupby(run):
        ax.plot(one["epoch"], one[column], style, color=color, lw=0.7, alpha=0.4)
    mean = history.groupby("epoch")[column].mean()
    ax.plot(mean.index, mean, "o" + style, color=color, lw=2.2, ms=4, label=NAMES[part])


def best_epochs(history, run=("protocol", "fold", "seed")):
    """Return the row of each training whose validation loss is least; the last without one."""
    groups = history.groupby(list(run))
    if "val_loss" not in history:
        return groups.tail(1)
    rows = history["val_loss"].fillna(float("inf")).groupby([history[c] for c in run]).idxmin()
    return history.loc[rows]
