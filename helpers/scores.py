"""Scores with 95% intervals over accessions, and paired comparisons.

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
- ``auc``: ties count one half. ``recognition_rate``: mean over groups of the share of images
  decided rightly. ``balanced_accuracy`` and ``macro_f1`` of types: mean over the types that occur.
  ``recall_<type>``: only of types with MIN_PATIENTS accessions or more.
- ``calibration_slope``: b in logit P(malignant) = a + b logit p, by maximum likelihood;
  ``calibration_intercept``: a where b is held at 1 (Cox 1958). A p within 1e-6 of 0 or 1 is moved
  to there. No slope where the scores separate the classes or are all equal.

How an interval comes about. What an accession adds to the error of a score is summed over its rows
and averaged over runs: seeds, repeats and overlapping test parts count a patient once. Intervals
are conditional on the fitted models: how these would score on other patients, not how models
trained on other patients would.

- ``auc``: variance of placements (DeLong 1988; over clusters, Obuchowski 1997) on the logit scale,
  t with the accessions of the smaller class - 1 degrees of freedom. Where there is no variance, as
  at an AUC of 1: Newcombe's (2006) method 5 with the numbers of accessions.
- Sensitivity, specificity, accuracy and recall of accessions: Wilson (1927). The same of images and
  slides, recognition rate and Brier score: Wilson with the effective number of rows that their
  variance over accessions implies, and t. One accession more is taken to have the largest possible
  variance, or the interval would be too narrow where few accessions err.
- ``balanced_accuracy`` of two classes: MOVER from its two shares (Donner and Zou 2012).
- Calibration: variance of the scores summed by accession (sandwich), t as for the AUC.
- ``macro_f1`` and balanced accuracy of types, and ``mean_interval``: bootstrap over accessions,
  percentiles widened for few of them (Hesterberg 2015).

No interval where a class that the metric needs has fewer than MIN_PATIENTS accessions, nor one of
no width.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from helpers.data import TUMOR_TYPES
from helpers.results import METRIC_COLUMNS, P_TYPES
from helpers.splits import LEAKY

LEVELS = ("image", "slide", "accession")
ALL = "all"
MIN_PATIENTS = 5
UNKNOWN = (np.nan, np.nan)


class Rows(NamedTuple):
    """The groups of one run: number of the accession, truth, score, share of right images."""

    code: np.ndarray
    truth: np.ndarray
    score: np.ndarray
    right: np.ndarray


class Estimate(NamedTuple):
    """A metric: its value, errors whose squares add up to its variance, and its interval."""

    value: float
    error: np.ndarray
    df: int
    limits: Callable  # alpha -> (low, high)


def _number_runs(frame, protocol):
    """Series of int: the run of each row (see the module's text)."""
    if protocol == "official":
        return frame.groupby(["seed", "fold"]).ngroup()
    repeat = frame.groupby(["seed", "image_id"])["fold"].rank(method="first").astype(int)
    return frame.assign(repeat=repeat).groupby(["seed", "repeat"]).ngroup()


def _runs(frame, level, names):
    """List of Rows, one a run, from the predictions of one model, task and protocol.

    truth is 0 (benign) or 1, or the position in TUMOR_TYPES; score is (n,) or (n, 8). names:
    the accessions, sorted.
    """
    frame = frame.sort_values(["seed", "fold", "image_id"], ignore_index=True)
    types = frame["task"].iloc[0] == "tumor_type"
    score = P_TYPES if types else "p_malignant"
    rows = frame[["accession", "slide"]].assign(run=_number_runs(frame, frame["protocol"].iloc[0]))
    rows[score] = frame[score].astype(float).round(12)
    if types:
        rows["truth"] = frame["tumor_type"].map(TUMOR_TYPES.index)
        said = rows[score].to_numpy().argmax(axis=1)
    else:
        rows["truth"] = frame["tumor_class"].eq("malignant").astype(int)
        said = rows[score] >= 0.5
    rows["right"] = (said == rows["truth"]).astype(float)
    if level != "image":
        keys = ["run", "accession", "truth"] + ["slide"] * (level == "slide")
        rows = rows.groupby(keys).mean(numeric_only=True).reset_index()
        rows[score] = rows[score].round(12)
    rows["code"] = np.searchsorted(names, rows["accession"])
    columns = ["code", "truth", score, "right"]
    return [Rows(*(run[c].to_numpy() for c in columns)) for _, run in rows.groupby("run")]


def patients(predictions):
    """One row a model, task, protocol and accession: its score, mean over images, then over runs.

    Columns: model, task, protocol, accession, tumor_class, tumor_type ("A F" where it holds two),
    n_images, truth (1 malignant), p_malignant.
    """
    keys = ["model", "task", "protocol", "accession"]
    rows = pd.concat(
        part.assign(run=_number_runs(part, protocol))
        for (_, _, protocol), part in predictions.groupby(keys[:3], sort=False)
    )
    out = rows.groupby(keys, sort=False).agg(
        tumor_class=("tumor_class", "first"),
        tumor_type=("tumor_type", lambda types: " ".join(sorted(set(types)))),
        n_images=("image_id", "nunique"),
    )
    out["truth"] = out["tumor_class"].eq("malignant").astype(int)
    by_run = rows.groupby([*keys, "run"])["p_malignant"].mean()
    out["p_malignant"] = by_run.groupby(keys).mean()
    return out.reset_index()


def _mean(sums, counts):
    """Mean over runs of sum / count, from sums over accessions, float64 (n_runs, n_accessions).

    Returns value, error and weight of each accession. Runs without a row are left out. Errors are
    scaled for the number of accessions.
    """
    there = counts.sum(axis=1) > 0
    sums, counts = sums[there], counts[there]
    total = counts.sum(axis=1, keepdims=True)
    weight, part = (counts / total).mean(axis=0), (sums / total).mean(axis=0)
    value, n = part.sum(), np.count_nonzero(weight)
    return value, (part - value * weight) * np.sqrt(n / max(n - 1, 1)), weight


def wilson(value, n, quantile):
    """Wilson's (1927) interval (low, high) of a share `value` of `n`, which may be no integer."""
    shrunk = 1 + quantile**2 / n
    centre = (value + quantile**2 / (2 * n)) / shrunk
    half = quantile * np.sqrt(value * (1 - value) / n + (quantile / (2 * n)) ** 2) / shrunk
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _share(sums, counts, of_patients=False):
    """Estimate of the mean of numbers in 0 to 1; sums and counts as in _mean."""
    value, error, weight = _mean(sums, counts)
    n = np.count_nonzero(weight)
    least = 1 / np.square(weight).sum()  # as if the rows of an accession were always alike
    spread = value * (1 - value)

    def limits(alpha=0.05):
        if n < MIN_PATIENTS:
            return UNKNOWN
        if of_patients or spread < 1e-12:
            return wilson(value, least, stats.norm.isf(alpha / 2))
        size = spread * (n + 1) / (n * np.square(error).sum() + spread / least)
        return wilson(value, max(size, least), stats.t.isf(alpha / 2, n - 1))

    return Estimate(value, error, n - 1, limits)


def _average(one, other):
    """Estimate of the mean of two independent shares: MOVER (Donner and Zou 2012)."""
    value = (one.value + other.value) / 2

    def limits(alpha=0.05):
        (low_1, high_1), (low_2, high_2) = one.limits(alpha), other.limits(alpha)
        down = np.hypot(one.value - low_1, other.value - low_2) / 2
        return value - down, value + np.hypot(high_1 - one.value, high_2 - other.value) / 2

    return Estimate(value, (one.error + other.error) / 2, min(one.df, other.df), limits)


def newcombe(value, n, m, alpha=0.05):
    """Interval (low, high) of an AUC of n benign and m malignant (Newcombe 2006, method 5)."""
    quantile = stats.norm.isf(alpha / 2)

    def beyond(auc):
        shape = 1 + ((n + m) / 2 - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
        return abs(value - auc) - quantile * np.sqrt(auc * (1 - auc) * shape / (n * m))

    edge = 1e-9
    low = brentq(beyond, edge, value - edge) if value > 1e-6 else 0.0
    high = brentq(beyond, value + edge, 1 - edge) if value < 1 - 1e-6 else 1.0
    return low, high


def _placements(truth, score):
    """Share of the rows of the other class that each row is right about, float64 (n,), ties 1/2."""
    out = np.empty(len(score))
    for c, sign in ((1, 1), (0, -1)):
        own, other = sign * score[truth == c], np.sort(sign * score[truth != c])
        wins = np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")
        out[truth == c] = wins / (2 * len(other))
    return out


def _auc(runs, n):
    """Estimate of the AUC from a list of Rows of n accessions, each with both classes."""
    place = [_placements(run.truth, run.score) for run in runs]
    sides = []
    for c in (0, 1):
        pairs = list(zip(runs, place, strict=True))
        sums = [np.bincount(run.code, (run.truth == c) * wins, n) for run, wins in pairs]
        counts = [np.bincount(run.code, run.truth == c, n) for run in runs]
        sides.append(_mean(np.array(sums), np.array(counts)))
    value, error = sides[0][0], sides[0][1] + sides[1][1]
    benign, malignant = (np.count_nonzero(weight) for *_, weight in sides)
    df = min(benign, malignant) - 1

    def limits(alpha=0.05):
        if df + 1 < MIN_PATIENTS:
            return UNKNOWN
        deviation = np.sqrt(np.square(error).sum())
        if deviation < 1e-6 or not 1e-9 < value < 1 - 1e-9:
            return newcombe(value, benign, malignant, alpha)
        half = stats.t.isf(alpha / 2, df) * deviation / (value * (1 - value))
        return float(expit(logit(value) - half)), float(expit(logit(value) + half))

    return Estimate(value, error, df, limits)


def auc_interval(score, truth, accession, alpha=0.05):
    """AUC and its interval over accessions: (value, low, high).

    score: float (n,); truth: (n,), 1 malignant; accession: (n,). The bounds are NaN where a class
    has fewer than MIN_PATIENTS accessions.
    """
    codes, names = pd.factorize(np.asarray(accession))
    rows = Rows(codes, np.asarray(truth).astype(int), np.asarray(score, float), None)
    found = _auc([rows], len(names))
    return float(found.value), *found.limits(alpha)


def _calibration(runs, n, df):
    """Metric -> Estimate of calibration intercept and slope; runs as in _auc."""
    found = {"calibration_intercept": [], "calibration_slope": []}
    for run in runs:
        y, z = run.truth, logit(np.clip(run.score, 1e-6, 1 - 1e-6))
        a = brentq(lambda a, y=y, z=z: (y - expit(a + z)).sum(), -40, 40, xtol=1e-12)
        p = expit(a + z)
        error = np.bincount(run.code, y - p, n) / (p * (1 - p)).sum()
        found["calibration_intercept"].append((a, error))
        low, high = ([z[y == c].min(), z[y == c].max()] for c in (0, 1))
        if low[1] > high[0] and high[1] > low[0]:
            fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
            p = fit.fit(z[:, None], y).predict_proba(z[:, None])[:, 1]
            x = np.column_stack([np.ones(len(z)), z])
            inverse = np.linalg.inv((x.T * (p * (1 - p))) @ x)
            error = np.bincount(run.code, (y - p) * (x @ inverse[1]), n)
            found["calibration_slope"].append((fit.coef_[0, 0], error))
    out = {}
    for name, fits in ((name, fits) for name, fits in found.items() if fits):
        values, errors = zip(*fits, strict=True)
        error = np.mean(errors, axis=0) * np.sqrt(n / (n - 1))
        out[name] = _plain(np.mean(values), error, df)
    return out


def _plain(value, error, df):
    """Estimate with the interval value +- t standard errors."""

    def limits(alpha=0.05):
        half = stats.t.isf(alpha / 2, df) * np.sqrt(np.square(error).sum())
        return (value - half, value + half) if df + 1 >= MIN_PATIENTS else UNKNOWN

    return Estimate(value, error, df, limits)


@lru_cache(maxsize=8)
def _resamples(n, n_boot, seed):
    """Multiplicities float64 (1 + n_boot, n): row 0 is the data, the rest are resamples."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot)
    return np.vstack([np.ones(n), drawn])


def _resampled(values, n, least):
    """Estimate from values (1 + n_boot,), masked where undefined: of the data, of each resample."""
    drawn, wider = values[1:], np.sqrt(n / max(n - 1, 1))
    error = (drawn - drawn.mean()).filled(0) * wider / np.sqrt(max(drawn.count(), 1))

    def limits(alpha=0.05):
        if least < MIN_PATIENTS:
            return UNKNOWN
        tail = stats.norm.sf(wider * stats.t.isf(alpha / 2, n - 1))
        return tuple(np.quantile(drawn.compressed(), [tail, 1 - tail]))

    return Estimate(values[0], error, n - 1, limits)


def mean_interval(values, accession, n_boot=2000, seed=0):
    """Mean of any quantity (n,) and its interval over accessions (n,); NaN is left out.

    Returns dict of value, ci_low, ci_high, n_images (rows counted), n_groups (accessions).
    """
    rows = pd.DataFrame({"value": np.asarray(values, float), "accession": np.asarray(accession)})
    sums = rows.dropna().groupby("accession")["value"].agg(["sum", "size"])
    n, found = len(sums), _row(np.nan, *UNKNOWN)
    if n:
        total, count = (_resamples(n, n_boot, seed) @ sums.to_numpy(float)).T
        estimate = _resampled(np.ma.divide(total, count), n, n)
        found = _row(estimate.value, *estimate.limits())
    return found | {"n_images": int(sums["size"].sum()), "n_groups": n}


def _row(value, low, high):
    """Value and interval as a dict; no interval of no width."""
    if not high - low > 1e-9:
        low = high = np.nan
    return {"value": float(value), "ci_low": float(low), "ci_high": float(high)}


def _malignancy(runs, n, level):
    """Metric -> Estimate for two classes, from a list of Rows of n accessions."""

    def share(runs, hit, rows=lambda run: np.ones(len(run.truth)), of_patients=False):
        sums = [np.bincount(run.code, hit(run) * rows(run), n) for run in runs]
        counts = [np.bincount(run.code, rows(run), n) for run in runs]
        return _share(np.array(sums), np.array(counts), of_patients)

    def right(run):
        return (run.score >= 0.5) == (run.truth == 1)

    def rate(runs, c):
        return share(runs, right, lambda run: run.truth == c, level == "accession")

    out = {
        "accuracy": share(runs, right, of_patients=level == "accession"),
        "brier": share(runs, lambda run: (run.score - run.truth) ** 2),
    }
    if level != "image":
        out["recognition_rate"] = share(runs, lambda run: run.right)
    for name, c in (("sensitivity", 1), ("specificity", 0)):
        if any((run.truth == c).any() for run in runs):
            out[name] = rate(runs, c)
    both = [run for run in runs if len(set(run.truth)) == 2]
    if both:
        out["balanced_accuracy"] = _average(rate(both, 1), rate(both, 0))
        out["auc"] = _auc(both, n)
        out |= _calibration(both, n, out["auc"].df)
    return out


def _types(runs, n, level, n_boot, seed):
    """Metric -> Estimate for the eight types, from a list of Rows of n accessions."""
    k = len(TUMOR_TYPES)
    tables = np.zeros((len(runs), n, k, k))  # accessions x truth x decision
    for table, run in zip(tables, runs, strict=True):
        np.add.at(table, (run.code, run.truth, run.score.argmax(axis=1)), 1.0)
    held, right = tables.sum(axis=3), tables.diagonal(axis1=2, axis2=3)
    n_of = np.count_nonzero(held.sum(axis=0), axis=0)
    out = {"accuracy": _share(right.sum(axis=2), held.sum(axis=2), level == "accession")}
    drawn = np.einsum("bn,rnij->brij", _resamples(n, n_boot, seed), tables, optimize=True)
    true, said, hits = drawn.sum(axis=3), drawn.sum(axis=2), drawn.diagonal(axis1=2, axis2=3)
    recall = np.ma.divide(hits, true)
    f1 = np.ma.masked_where(true == 0, 2 * hits / np.maximum(true + said, 1))
    for name, each in (("balanced_accuracy", recall), ("macro_f1", f1)):
        out[name] = _resampled(each.mean(axis=2).mean(axis=1), n, n_of[n_of > 0].min())
    if level != "image":
        sums = np.array([np.bincount(run.code, run.right, n) for run in runs])
        out["recognition_rate"] = _share(sums, held.sum(axis=2))
    for i in np.flatnonzero(n_of >= MIN_PATIENTS):
        each = right[:, :, i], held[:, :, i]
        out[f"recall_{TUMOR_TYPES[i]}"] = _share(*each, level == "accession")
    return out


def _estimates(frame, level, names, n_boot, seed):
    """Metric -> Estimate of the predictions of one model, task and protocol."""
    runs = _runs(frame, level, names)
    if frame["task"].iloc[0] == "tumor_type":
        return _types(runs, len(names), level, n_boot, seed)
    return _malignancy(runs, len(names), level)


@threadpool_limits.wrap(limits=1)  # small products: several threads only get in each other's way
def evaluate(predictions, n_boot=2000, seed=0):
    """Rows of metrics.csv, but notebook, for each model, task, protocol, magnification and level.

    predictions: PREDICTION_COLUMNS, and P_TYPES where the task is tumor_type. Undefined metrics are
    left out. n_groups counts accessions at image level, slides and accession groups at theirs.
    """
    out = []
    keys = ["model", "task", "protocol"]
    for key, frame in predictions.groupby(keys, sort=False):
        group = ["accession", "tumor_type" if key[1] == "tumor_type" else "tumor_class"]
        units = dict(zip(LEVELS, (["accession"], ["slide"], group), strict=True))
        parts = {ALL: frame, **{str(m): part for m, part in frame.groupby("magnification")}}
        for magnification, part in parts.items():
            names = np.unique(part["accession"])
            same = dict(zip(keys, key, strict=True)) | {"magnification": magnification}
            same |= {"n_images": part["image_id"].nunique()}
            same |= {"leaky": "leaky" if key[2] in LEAKY else ""}
            for level, unit in units.items():
                same |= {"level": level, "n_groups": len(part.drop_duplicates(unit))}
                for metric, found in _estimates(part, level, names, n_boot, seed).items():
                    out.append(same | {"metric": metric} | _row(found.value, *found.limits()))
    return pd.DataFrame(out, columns=[name for name in METRIC_COLUMNS if name != "notebook"])


def holm(p):
    """p-values adjusted for their number by Holm (1979), float64 (n,); NaN stays NaN.

    The smallest is multiplied by n, the next by n - 1, and so on; none falls below one before it.
    """
    p = np.asarray(p, float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known])]
    adjusted = np.full(p.shape, np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _side(predictions, where):
    """The predictions of one side of a comparison: of one model, task and protocol."""
    where = {"model": where} if isinstance(where, str) else where
    frame = predictions
    for column, value in where.items():
        if (column, value) != ("magnification", ALL):
            frame = frame[frame[column].astype(str) == str(value)]
    if frame.empty:
        raise ValueError(f"No predictions with {where}.")
    for column in ("model", "task", "protocol"):
        there = sorted(frame[column].unique())
        if len(there) > 1:
            raise ValueError(f"{where}: name one {column}; the predictions have {there}.")
    return frame


@threadpool_limits.wrap(limits=1)
def compare(predictions, pairs, metric="auc", level="accession", n_boot=2000, seed=0):
    """A family of differences a - b, each over the accessions that both sides were tested on.

    pairs: dict of words -> (a, b); a and b: a model's name or a dict of column filters. Returns a
    row a pair: difference (the words), metric, level, value, ci_low, ci_high, p, p_holm, n_images,
    n_groups (accessions). The errors of the two sides are subtracted accession by accession; p is
    two-sided, from t. The interval is at the level that Holm's step uses, 1 - 0.05 p / p_holm: it
    holds 0 exactly where p_holm >= 0.05. ValueError where the sides share no accession.
    """
    rows = []
    for words, where in pairs.items():
        sides = [_side(predictions, each) for each in where]
        names = np.intersect1d(*(side["accession"].unique() for side in sides))
        if not len(names):
            raise ValueError(f"{words}: the two sides were tested on no accession in common.")
        sides = [side[side["accession"].isin(names)] for side in sides]
        pair = [_estimates(side, level, names, n_boot, seed).get(metric) for side in sides]
        images = pd.concat([side["image_id"] for side in sides]).nunique()
        row = {"difference": words, "metric": metric, "level": level, **_difference(*pair)}
        rows.append(row | {"n_images": images, "n_groups": len(names)})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    alpha = (0.05 * table["p"] / table["p_holm"]).fillna(0.05)
    half = stats.t.isf(alpha / 2, table["df"]) * table["se"]
    bound = np.inf if metric.startswith("calibration") else 1.0
    table["ci_low"] = (table["value"] - half).clip(lower=-bound)
    table["ci_high"] = (table["value"] + half).clip(upper=bound)
    columns = ["difference", "metric", "level", "value", "ci_low", "ci_high", "p", "p_holm"]
    return table[[*columns, "n_images", "n_groups"]]


def _difference(a, b):
    """Value, standard error, degrees of freedom and p of a minus b."""
    if a is None or b is None:
        return {"value": np.nan, "se": np.nan, "df": 1, "p": np.nan}
    found = {"value": float(a.value - b.value), "se": np.nan, "df": max(min(a.df, b.df), 1)}
    widths = [np.ptp(each.limits()) for each in (a, b)]
    if not np.isfinite(widths).all():
        return found | {"p": np.nan}
    se = np.sqrt(np.square(a.error - b.error).sum())
    if se < 1e-9 and abs(found["value"]) < 1e-9:  # the same decisions on every patient
        return found | {"p": 1.0}
    if se < 1e-9:  # no patient differs from another: what the two intervals say by themselves
        se = np.hypot(*widths) / (2 * stats.t.isf(0.025, found["df"]))
    return found | {"se": se, "p": 2 * stats.t.sf(abs(found["value"]) / se, found["df"])}


def as_text(row, digits=2, percent=False):
    """A row with its interval: ``0.71 (0.62 to 0.80)``, ``71% (62% to 80%)``; one digit more where
    a bound near 0 needs it. No bounds where they are missing; ``undefined`` for None, as of `find`.
    """
    if row is None:
        return "undefined"
    digits += 0 < min(abs(row["ci_low"]), abs(row["ci_high"])) < 0.5 * 10**-digits
    form = "z.0%" if percent else f"z.{digits}f"
    value, low, high = (format(row[key], form) for key in ("value", "ci_low", "ci_high"))
    return value if np.isnan(row["ci_low"]) else f"{value} ({low} to {high})"


def find(metrics, **where):
    """The one row of `metrics` with these values, a Series; None if there is none.

    Over all magnifications unless one is named. ValueError where several rows fit.
    """
    rows = metrics
    for column, value in ({"magnification": ALL} | where).items():
        rows = rows[rows[column].astype(str) == str(value)]
    if len(rows) > 1:
        raise ValueError(f"{where}: {len(rows)} rows fit; name more columns.")
    return rows.iloc[0] if len(rows) else None
