"""Tables and figures of the leakage audit of notebook 02."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import charts, metrics, plots
from helpers.splits import label
from helpers.studies import leakage

KINDS = ("image", "slide", "official", "accession")  # from the leakiest to the clean one
GREY = "#666666"
SHARED = {"slide": "slides", "accession": "accessions", "pixel_sha256": "pixel-identical images"}
SHOWN = ("accuracy", "balanced_accuracy", "auc")


def overlap_table(shared, plan):
    """What stands on both sides of each protocol's folds: protocol, folds, and the counts.

    shared: protocol -> counts, as splits.check_disjoint returns them; plan: the table of splits.
    """
    rows = pd.DataFrame(shared).T.rename_axis("protocol").reset_index()
    rows["folds"] = rows["protocol"].map(plan.groupby("protocol")["fold"].nunique())
    rows["protocol"] = rows["protocol"].map(label)
    return rows[["protocol", "folds", *SHARED]].rename(columns=SHARED)


def pooled_rows(scores):
    """The rows of metrics over all magnifications, with split, text and column to show them by.

    split: the protocol's label; text: value and interval; column: as in "image auc".
    """
    rows = scores[scores["magnification"].eq("all")].copy()
    rows["split"] = rows["protocol"].map(label)
    rows["text"] = [metrics.as_text(row) for row in rows.to_dict("records")]
    rows["column"] = rows["level"] + " " + rows["metric"].str.replace("_", " ")
    return rows


def audit_table(audit, models):
    """A row for each model and kind of split, leakiest first; the SHOWN metrics as text."""
    columns = [f"{level} {m.replace('_', ' ')}" for level in ("image", "accession") for m in SHOWN]
    wide = audit.pivot_table(
        index=["model", "split"], columns="column", values="text", aggfunc="first"
    )
    order = [(model, label(kind)) for model in models for kind in KINDS]
    return wide.reindex(index=order, columns=columns).reset_index()


def sister_table(groups, n_boot=2000, seed=0):
    """Accuracy of images for each group of test slides and each model, in the official folds.

    groups: name -> predictions; an empty one gives no row. Columns: those of metrics.score and
    "test slides" (the group), training (the model), slides (how many).
    """
    rows = []
    for group, part in groups.items():
        for model, frame in part.groupby("model", sort=False):
            found = metrics.score(frame, "malignancy", "official", "image", n_boot, seed)
            found = found[found["metric"].eq("accuracy")]
            slides = frame["slide"].nunique()
            rows.append(found.assign(**{"test slides": group, "training": model, "slides": slides}))
    return pd.concat(rows, ignore_index=True)


def shown_rows(scores):
    """The SHOWN metrics over all magnifications, of images and accessions."""
    rows = scores[scores["metric"].isin(SHOWN) & scores["magnification"].eq("all")]
    return rows[rows["level"].ne("slide")].drop(columns="notebook")


def control_figure(rows):
    """Scores of the negative control, a panel for each split, the leaky one first."""
    drawing = rows.assign(metric=rows["metric"].str.replace("_", " "))
    drawing["split"] = drawing["protocol"].map(label) + " split"
    drawing = drawing.sort_values("protocol", ascending=False, kind="stable")
    return charts.interval_plot(
        drawing, rows="metric", marks="level", panels="split", xlabel="score", reference=0.5
    )


def permutation_figure(auc, null):
    """The AUC of the true classes beside its distribution under permuted ones."""
    fig, ax = plt.subplots(figsize=(7.5, 3))
    ax.hist(null, bins=30, color="#bbbbbb", edgecolor="white", label="classes permuted")
    ax.axvline(auc, color=plots.PALETTE["probe"], lw=2.5, label=f"true classes: {auc:.2f}")
    ax.set(xlabel="AUC, accession level", ylabel="permutations")
    charts.legend_below(fig, ax)
    return fig


def power_figure(at_hand, accuracy=0.85, seed=0):
    """Power against the true difference, for several numbers of patients and the one at hand."""
    steps = np.arange(0, 15) / 100
    sizes = sorted({28, 70, 200, 500, at_hand})
    lines = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    fig, ax = plt.subplots(figsize=(7.5, 4))
    for n, line in zip(sizes, lines, strict=False):
        share = [leakage.power(n, step, accuracy, seed=seed) for step in steps]
        mine = n == at_hand
        name = f"{n} patients" + ", the data at hand" * mine
        ax.plot(100 * steps, share, ls=line, lw=3 if mine else 1.7, label=name)
    ax.axhline(0.8, color=GREY, lw=1)
    ax.set(xlabel=f"true difference in accuracy (points above {100 * accuracy:.0f}%)")
    ax.set(ylabel="share of studies that find it", ylim=(0, 1))
    charts.legend_below(fig, ax, columns=3)
    return fig


def _published(ax, papers):
    """Published results as open marks, to the right of each kind of split."""
    kinds = papers["split"].str.split(" ").str[0]
    for level, marker in {"image": "D", "slide": "s"}.items():
        part = papers[papers["level"] == level]
        mine = kinds[part.index]
        at = mine.map(KINDS.index) + 0.33 + 0.05 * part.groupby(mine).cumcount()
        ax.plot(at, part["percent"], marker, mfc="none", color=GREY, ms=8, mew=1.4,
                label=f"published, {level} level")  # fmt: skip
    for kind in set(KINDS) - set(kinds):
        ax.text(KINDS.index(kind) + 0.08, 96.5, "none\npublished", color=GREY, va="center")


def _measured(ax, rows):
    """Values in percent with whiskers and numbers, a colour and shape for each model."""
    for shift, (model, style) in enumerate(charts.look(rows["model"].unique()).items()):
        part = rows[rows["model"] == model].set_index("protocol").reindex(KINDS)
        value, low, high = (100 * part[c].to_numpy(float) for c in ("value", "ci_low", "ci_high"))
        at, color = np.arange(len(KINDS)) - 0.22 + 0.2 * shift, style["color"]
        ax.vlines(at, low, high, color=color, lw=2.8)
        ax.plot(at, value, style["marker"], color=color, ms=10, mec="white", label=f"{model}, here")
        side, anchor = ((8, 0), "left") if shift else ((-8, 0), "right")
        for place, number in zip(at[value == value], value[value == value], strict=True):
            ax.annotate(f"{number:.0f}", (place, number), side, textcoords="offset points",
                        ha=anchor, va="center", color=color, weight="bold",
                        bbox={"fc": "white", "ec": "none", "pad": 0.8})  # fmt: skip


def audit_figure(scores, papers, majority, badge):
    """The audit beside the literature: accuracy and AUC of images by kind of split, in percent.

    scores: metrics rows with model, protocol, level, metric, value, ci_low, ci_high; papers: from
    literature.published with percent, as literature.percent_of gives it; majority: share of
    malignant images; badge: what was measured. Its letters are large, for a slide.
    """
    with plt.rc_context({"font.size": 13, "axes.titlesize": 14}):
        fig, axes = plt.subplots(1, 2, figsize=(11.5, 5.8), width_ratios=[1.45, 1], sharey=True)
        panels = {
            "accuracy": ("Accuracy of images (%)", majority),
            "auc": ("AUC of images (%)", 0.5),
        }
        for ax, (metric, (title, without_skill)) in zip(axes, panels.items(), strict=True):
            _measured(ax, scores[scores["metric"].eq(metric) & scores["level"].eq("image")])
            if metric == "accuracy":
                _published(ax, papers)
            ax.axhline(100 * without_skill, color=GREY, ls="--", lw=1.2, zorder=0,
                       label="no skill: always malignant (left), chance (right)")  # fmt: skip
            ax.set(title=title, xlim=(-0.65, 3.8), xlabel="what is kept apart")
            ax.set_xticks(range(len(KINDS)), [label(kind).replace(" ", "\n") for kind in KINDS])
            ax.grid(axis="x", visible=False)
        charts.legend_below(fig, axes[0], columns=3)
        fig.suptitle(f"The same model under four kinds of split. Here:\n{badge}", x=0.01, ha="left")
    return fig
