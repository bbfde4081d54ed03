"""Tables of notebook 03: the parts of the folds, the scores, and what chance does to them."""

from itertools import product

import numpy as np
import pandas as pd

from helpers import comparisons, metrics
from helpers.splits import label

ORDER = ("majority", "colour", "baseline_cnn")
SHOWN = ("auc", "balanced_accuracy", "sensitivity", "specificity", "recognition_rate")


def count_part(rows):
    """Accessions (and images) of the index rows of a part, as text, for each class."""
    part = rows.groupby("tumor_class")
    patients, pictures = part["accession"].nunique(), part.size()
    return {k: f"{patients.get(k, 0)} ({pictures.get(k, 0)})" for k in ("benign", "malignant")}


def part_counts(index, runs):
    """A row for each run, (protocol, fold, train, val, test): what count_part says of each part."""
    lines = []
    for protocol, fold, *parts in runs:
        line = {"split": label(protocol), "fold": str(fold)}
        for name, rows in zip(("train", "val", "test"), parts, strict=True):
            line |= {f"{name} {k}": text for k, text in count_part(index.iloc[rows]).items()}
        lines.append(line)
    return pd.DataFrame(lines)


def overall_rows(scores):
    """Metrics rows over all magnifications, models in their ORDER, with split and text."""
    rows = scores[scores["magnification"].eq("all")].copy()
    rows["model"] = pd.Categorical(rows["model"], ORDER)
    rows["split"] = rows["protocol"].map(label)
    rows = rows.sort_values("model", kind="stable").astype({"model": str})
    rows["text"] = [
        f"{v:.3f} ({a:.3f} to {b:.3f})" if np.isfinite(a) else f"{v:.3f}"
        for v, a, b in rows[["value", "ci_low", "ci_high"]].to_numpy()
    ]
    return rows


def score_table(overall):
    """The SHOWN metrics as text, a row for each split, level and model."""
    cells = overall[overall["metric"].isin(SHOWN)]
    rows = ["split", "level", "model"]
    wide = cells.pivot_table(
        values="text", index=rows, columns="metric", aggfunc="first", sort=False
    )
    return wide[list(SHOWN)].fillna("").reset_index()


def slide_table(scores):
    """The recognition rate of slides, a row for each split and model, by magnification."""
    rows = scores[scores["level"].eq("slide") & scores["metric"].eq("recognition_rate")]
    rows = rows.assign(split=rows["protocol"].map(label))
    wide = rows.pivot_table(values="value", index=["split", "model"], columns="magnification")
    return wide[sorted(wide, key=lambda name: (name == "all", len(name), name))].reset_index()


def seed_spread(predictions, model="baseline_cnn"):
    """AUC and balanced accuracy of accessions, a row for each split and seed of one model."""
    lines = []
    own = predictions[predictions["model"] == model]
    for (protocol, seed), part in own.groupby(["protocol", "seed"]):
        found = metrics.score(part, "malignancy", protocol, "accession", 1)
        values = found.set_index("metric")["value"].reindex(["auc", "balanced_accuracy"])
        lines.append({"split": label(protocol), "seed": str(seed), **values})
    return pd.DataFrame(lines)


def compare(predictions, protocols, model_a, model_b, n_boot=2000, seed=0):
    """model_a minus model_b for each protocol and metric: comparisons.compare on accessions.

    p_holm is the p-value adjusted for the number of rows.
    """
    lines = []
    for protocol, metric in product(protocols, ("auc", "balanced_accuracy")):
        options = {"protocol": protocol, "n_boot": n_boot, "seed": seed}
        pair = comparisons.compare(predictions, model_a, model_b, metric, **options)
        lines.append({"split": label(protocol), "metric": metric, **pair})
    frame = pd.DataFrame(lines)
    return frame.assign(p_holm=comparisons.holm(frame["p_value"]))
