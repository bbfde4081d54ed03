"""Scores with 95% intervals from a bootstrap over accessions, for all models of a notebook.

How a number in metrics.csv comes from the predictions, for those who recompute it:

- Each of (model, task, protocol, magnification or "all") is scored by itself, from the rows of
  predictions that belong to it. Rows fall into *runs*: under ``official`` a run is one seed and
  fold; else it is one seed and repeat, where the r-th prediction on an image (by fold) is repeat r.
  So folds are pooled where each image is tested once. A metric is computed in each run in which it
  is defined, and the mean over these runs is written.
- Level: ``image``; ``slide``; ``accession`` (for tumour types, an accession's images of one type:
  an accession may hold two). A group's score is the mean of its images' probabilities in a run.
  Scores are rounded to 12 decimals, so that means of equal numbers are equal.
- Decision: malignant if p_malignant >= 0.5; for types the largest p_<type>, the first in the order
  of TUMOR_TYPES where two are equal.
- ``auc``: ties count one half. ``ece``: ten bins of equal width, floor(10 p), weighted by number.
  ``balanced_accuracy`` and ``macro_f1`` of types: mean over the types that occur in the truth.
  ``recognition_rate``: mean over groups of the share of images decided rightly.
- Interval: 2.5 and 97.5 percentiles over resamples of the accessions with replacement, the same
  resample for all runs; resamples in which the metric is undefined are left out. It is missing
  where the metric rests on a single accession of a class that it needs.
"""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from helpers.bootstrap import interval, resamples
from helpers.data import TUMOR_TYPES
from helpers.results import METRIC_COLUMNS
from helpers.splits import LEAKY

P_TYPES = [f"p_{name}" for name in TUMOR_TYPES]
LEVELS = ("image", "slide", "accession")
N_BINS = 10
ALL = "all"


def number_runs(frame, protocol):
    """Series of int: the run of each row (see the module's text)."""
    if protocol == "official":
        return frame.groupby(["seed", "fold"]).ngroup()
    repeat = frame.groupby(["seed", "image_id"])["fold"].rank(method="first").astype(int)
    return frame.assign(repeat=repeat).groupby(["seed", "repeat"]).ngroup()


def group_rows(frame, task, level):
    """One row a run and group: run, accession, truth (int), right (share), and the scores.

    frame: predictions of one model, task and protocol with a column ``run``. truth is 0 (benign) or
    1 for malignancy, else the position in TUMOR_TYPES. Scores: p_malignant, or the eight P_TYPES.
    """
    types = task == "tumor_type"
    columns = P_TYPES if types else ["p_malignant"]
    rows = frame[["run", "image_id", "slide", "accession", "tumor_class", "tumor_type"]].copy()
    rows[columns] = frame[columns].astype(float).round(12)
    if types:
        rows["truth"] = rows["tumor_type"].map(TUMOR_TYPES.index)
        rows["right"] = (rows[columns].to_numpy().argmax(axis=1) == rows["truth"]).astype(float)
    else:
        rows["truth"] = rows["tumor_class"].eq("malignant").astype(int)
        rows["right"] = (rows["p_malignant"].ge(0.5) == rows["truth"]).astype(float)
    if level == "image":
        return rows
    kind = "tumor_type" if types else "tumor_class"
    keys = ["run", "accession", kind] + ["slide"] * (level == "slide")
    groups = rows.groupby(keys, sort=True)[["truth", "right", *columns]].mean().reset_index()
    groups[columns] = groups[columns].round(12)
    return groups.astype({"truth": int})


def _ratio(a, b):
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _sums(codes, n, *columns):
    """Sums of each column over the rows of each accession: float64 (n, n_columns)."""
    return np.stack([np.bincount(codes, weights=c, minlength=n) for c in columns], axis=1)


def pair_wins(codes, n, truth, score):
    """float64 (n, n): malignant rows of accession g above benign rows of accession h, ties 1/2."""
    malignant = truth == 1
    high, rows = score[malignant], codes[malignant]
    wins = np.zeros((n, n))
    for h in np.unique(codes[~malignant]):
        low = np.sort(score[~malignant & (codes == h)])
        above = (np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")) / 2
        wins[:, h] = np.bincount(rows, weights=above, minlength=n)
    return wins


def malignancy_values(rows, codes, weights):
    """Metric -> float64 (n_resamples,) for two classes, NaN where undefined.

    rows: as from group_rows, of one run; codes: int (n_rows,), the accession of each row;
    weights: float64 (n_resamples, n_accessions).
    """
    n = weights.shape[1]
    truth, p, right = (rows[c].to_numpy(float) for c in ("truth", "p_malignant", "right"))
    hit = (p >= 0.5) == (truth == 1)
    base = _sums(
        codes, n, truth, 1 - truth, hit * truth, hit * (1 - truth), (p - truth) ** 2, right
    )
    malignant, benign, found, cleared, squares, shares = (weights @ base).T
    total = malignant + benign
    wins = ((weights @ pair_wins(codes, n, truth, p)) * weights).sum(axis=1)
    bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    gap = np.zeros((n, N_BINS))
    np.add.at(gap, (codes, bins), p - truth)
    sensitivity, specificity = _ratio(found, malignant), _ratio(cleared, benign)
    return {
        "accuracy": _ratio(found + cleared, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "auc": _ratio(wins, malignant * benign),
        "brier": _ratio(squares, total),
        "ece": _ratio(np.abs(weights @ gap).sum(axis=1), total),
        "recognition_rate": _ratio(shares, total),
    }


def type_values(rows, codes, weights):
    """Metric -> float64 (n_resamples,) for the eight types; arguments as in malignancy_values."""
    n, k = weights.shape[1], len(TUMOR_TYPES)
    truth = rows["truth"].to_numpy(int)
    said = rows[P_TYPES].to_numpy().argmax(axis=1)
    table = np.zeros((n, k * k))
    np.add.at(table, (codes, truth * k + said), 1.0)
    confusion = (weights @ table).reshape(-1, k, k)
    shares = weights @ _sums(codes, n, rows["right"].to_numpy(float))[:, 0]
    right, true, named = (
        confusion.diagonal(axis1=1, axis2=2),
        confusion.sum(axis=2),
        confusion.sum(axis=1),
    )
    recall = _ratio(right, true)
    f1 = np.where(true > 0, _ratio(2 * right, true + named), np.nan)
    total = true.sum(axis=1)
    return {
        "accuracy": _ratio(right.sum(axis=1), total),
        "balanced_accuracy": _mean(recall),
        "macro_f1": _mean(f1),
        "recognition_rate": _ratio(shares, total),
        **{f"recall_{name}": recall[:, i] for i, name in enumerate(TUMOR_TYPES)},
    }


def _mean(values):
    """Mean over axis 1 of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(axis=1), there.sum(axis=1))


def distributions(frame, task, protocol, level, n_boot=2000, seed=0):
    """Metric -> float64 (1 + n_boot,): first the value on the data, then on each resample.

    frame: the predictions of one model, task, protocol (and magnification, if one is meant).
    Undefined values are NaN. Resamples depend on seed and the number of accessions alone, so two
    models tested on the same accessions see the same resamples.
    """
    frame = frame.sort_values(["seed", "fold", "image_id"], ignore_index=True)
    frame["run"] = number_runs(frame, protocol)
    rows = group_rows(frame, task, level)
    names = np.unique(frame["accession"])
    weights = resamples(len(names), n_boot, seed)
    compute = type_values if task == "tumor_type" else malignancy_values
    parts = [
        compute(run, np.searchsorted(names, run["accession"]), weights)
        for _, run in rows.groupby("run", sort=True)
    ]
    out = {key: _mean(np.stack([part[key] for part in parts], axis=1)) for key in parts[0]}
    if level == "image":
        del out["recognition_rate"]
    return out


def as_text(row, digits=2):
    """A row of metrics as text: ``0.71 (0.62 to 0.80)``, without bounds where they are missing."""
    text = f"{row['value']:.{digits}f}"
    if np.isnan(row["ci_low"]):
        return text
    return f"{text} ({row['ci_low']:.{digits}f} to {row['ci_high']:.{digits}f})"


def _fewest(frame, metric, task):
    """The smallest number of accessions in a class that the metric cannot do without."""
    counts = frame.groupby("tumor_class")["accession"].nunique()
    if metric in ("auc", "balanced_accuracy") and task == "malignancy":
        return counts.min()
    if metric in ("sensitivity", "specificity"):
        return counts["malignant" if metric == "sensitivity" else "benign"]
    if metric.startswith("recall_"):
        return frame.loc[frame["tumor_type"] == metric[7:], "accession"].nunique()
    return frame["accession"].nunique()


def score(frame, task, protocol, level, n_boot=2000, seed=0):
    """DataFrame of metric, value, ci_low, ci_high, n_images, n_groups for one set of predictions.

    Undefined metrics are left out. n_groups counts what was resampled: accessions at image level,
    slides and accession groups at theirs.
    """
    kind = "tumor_type" if task == "tumor_type" else "tumor_class"
    keys = ["slide"] if level == "slide" else ["accession"]
    keys += [kind] * (level == "accession")
    n_groups = len(frame.drop_duplicates(keys))
    out = []
    for metric, values in distributions(frame, task, protocol, level, n_boot, seed).items():
        if np.isnan(values[0]):
            continue
        low, high = interval(values) if _fewest(frame, metric, task) > 1 else (np.nan, np.nan)
        out.append((metric, values[0], low, high, frame["image_id"].nunique(), n_groups))
    return pd.DataFrame(
        out, columns=["metric", "value", "ci_low", "ci_high", "n_images", "n_groups"]
    )


@threadpool_limits.wrap(limits=1)  # small products: several threads only get in each other's way
def evaluate(predictions, notebook, n_boot=2000, seed=0):
    """Rows of metrics.csv for every model (as they appear), task, protocol, magnification, level.

    predictions: columns of the contract (PREDICTION_COLUMNS; P_TYPES where the task is tumor_type).
    """
    out = []
    keys = ["model", "task", "protocol"]
    for (model, task, protocol), frame in predictions.groupby(keys, sort=False):
        parts = {ALL: frame, **{str(m): part for m, part in frame.groupby("magnification")}}
        for magnification, part in parts.items():
            for level in LEVELS:
                rows = score(part, task, protocol, level, n_boot, seed)
                out.append(
                    rows.assign(
                        notebook=notebook,
                        model=model,
                        task=task,
                        protocol=protocol,
                        magnification=magnification,
                        level=level,
                        leaky="leaky" if protocol in LEAKY else "",
                    )
                )
    return pd.concat(out, ignore_index=True)[METRIC_COLUMNS]
