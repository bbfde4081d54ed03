"""Charts of P(malignant) and of what is decided by it: patients, calibration, referral, benefit.

Each function returns a figure for ``plots.show``, in the colours and shapes of ``helpers.charts``.
The tables of the curves come from ``helpers.calibration`` and ``helpers.decisions``.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.plots import INK, REFERENCE, legend_below, look, spell


def reliability_plot(bins: dict[str, pd.DataFrame], unit: str = "images") -> Figure:
    """Return observed against predicted share of malignant, one panel a model, counts below.

    Each table has a row a bin: low, high, n, mean_p, share, ci_low, ci_high. A well calibrated
    model lies on the dashed diagonal.
    """
    fig, axes = plt.subplots(2, len(bins), figsize=(3.9 * len(bins), 4.9), height_ratios=[4, 1],
                             sharex=True, sharey="row", squeeze=False)  # fmt: skip
    looks = look(bins)
    for (top, bottom), (name, part) in zip(axes.T, bins.items(), strict=True):
        color = looks[name]["color"]
        top.plot([0, 1], [0, 1], "--", color=REFERENCE, lw=1)
        top.vlines(part["mean_p"], part["ci_low"], part["ci_high"], color=color, lw=1.8)
        top.plot(part["mean_p"], part["share"], "o-", color=color, ms=6, mec="white", lw=1)
        bottom.bar(part["low"], part["n"], part["high"] - part["low"], align="edge", color=color,
                   edgecolor="white")  # fmt: skip
        top.set(title=spell(name), xlim=(0, 1), ylim=(-0.03, 1.03))
        bottom.set(xlabel="predicted P(malignant)")
    axes[0, 0].set_ylabel("observed share malignant")
    axes[1, 0].set_ylabel(unit)
    return fig


def risk_coverage_plot(curves: dict[str, pd.DataFrame], targets: tuple[float, ...] = ()) -> Figure:
    """Return the error rate of the cases a model keeps, against the share that it keeps.

    Each table has coverage and risk, both 0 to 1, and ci_low, ci_high of the risk where known.
    ``targets`` draws lines at error rates that one might ask for.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4))
    for name, style in look(curves).items():
        part = curves[name].sort_values("coverage")
        if "ci_low" in part:
            ax.fill_between(part["coverage"], part["ci_low"], part["ci_high"], lw=0,
                            color=style["color"], alpha=0.14)  # fmt: skip
        ax.plot(part["coverage"], part["risk"], color=style["color"], ls=style["ls"], lw=1.8,
                label=spell(name))  # fmt: skip
    for position, target in enumerate(targets):
        label = "error rates asked for" if position == 0 else None
        ax.axhline(target, color=REFERENCE, ls=":", lw=1, label=label)
    ax.set(xlabel="share of cases that the model decides (the rest is referred)", xlim=(0, 1.005))
    highest = max(part[part["coverage"] > 0.25].filter(["risk", "ci_high"]).max().max()
                  for part in curves.values())  # fmt: skip
    ax.set(ylabel="error rate among them", ylim=(0, max(1.1 * highest, 0.05)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_below(fig, ax)
    return fig


def decision_plot(curves: dict[str, pd.DataFrame], band: str = "") -> Figure:
    """Return net benefit against the threshold probability (Vickers and Elkin 2006).

    Each table has threshold, net_benefit and treat_all; that of ``band`` also ci_low and ci_high.
    Referring nobody has net benefit 0. The axis stops a little below 0: far below, a policy is only
    ever harmful.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4))
    for name, style in look(curves).items():
        part = curves[name]
        if name == band:
            ax.fill_between(part["threshold"], part["ci_low"], part["ci_high"], lw=0,
                            color=style["color"], alpha=0.14)  # fmt: skip
        line = {"color": style["color"], "ls": style["ls"], "lw": 1.8, "label": spell(name)}
        ax.plot(part["threshold"], part["net_benefit"], **line)
    first = next(iter(curves.values()))
    ax.plot(first["threshold"], first["treat_all"], color="#999999", lw=1.4, label="refer all")
    ax.axhline(0, color=INK, lw=1.2, ls=(0, (1, 1)), label="refer none")
    highest = max(part["net_benefit"].max() for part in curves.values())
    ax.set(ylim=(-0.25 * max(highest, 0.1), 1.1 * max(highest, 0.1)), xlim=(0, 1))
    ax.set(xlabel="threshold: P(malignant) from which a case is referred", ylabel="net benefit")
    legend_below(fig, ax)
    return fig


def patient_plot(patients: pd.DataFrame, images: pd.DataFrame) -> Figure:
    """Return each patient's mean P(malignant) over a tick for each of its images, in order.

    ``patients``: accession, tumor_class, tumor_type, p_malignant, a row each. ``images``: accession
    and p_malignant. Blue circles are benign, red squares malignant.
    """
    fig, ax = plt.subplots(figsize=(7.5, 0.21 * len(patients) + 1.3))
    row = dict(zip(patients["accession"], range(len(patients)), strict=True))
    own = images[images["accession"].isin(row)]
    ax.plot(own["p_malignant"], own["accession"].map(row), "|", color="#9a9a9a", ms=8, zorder=1)
    for kind, part in patients.groupby("tumor_class"):
        style = look([kind])[kind]
        ax.plot(part["p_malignant"], part["accession"].map(row), style["marker"], ms=8, mec="white",
                color=style["color"], label=f"truly {kind}")  # fmt: skip
    ax.axvline(0.5, color=REFERENCE, ls="--", lw=1, zorder=0)
    names = patients["accession"] + " (" + patients["tumor_type"] + ")"
    ax.set_yticks(range(len(names)), names, fontsize=8.5)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(-0.02, 1.02))
    ax.set(xlabel="P(malignant): mean of the patient, and each image (grey)")
    legend_below(fig, ax)
    return fig
