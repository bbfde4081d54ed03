"""Scores with 95% intervals over accessions, and paired comparisons, for all models of a notebook.

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
- ``auc``: ties count one half. ``balanced_accuracy`` and ``macro_f1`` of types: mean over the types
  that occur in the truth. ``recall_<type>``: only of types with MIN_PATIENTS accessions or more.
  ``recognition_rate``: mean over groups of the share of images decided rightly.
  ``calibration_intercept``: a in logit P(malignant) = a + logit p; ``calibration_slope``: b in
  logit P(malignant) = a + b logit p; p within 1e-6 of 0 and 1 is moved there. Without a value where
  the scores separate the classes or are all alike.

How an interval comes about. The unit is the accession: what a run's mean owes to the rows of one
accession is summed, and the sums are averaged over runs, so that seeds, repeats and overlapping
test parts count a patient once. All intervals are conditional on the fitted models: they say how
the same models would score on other patients, not how others trained alike would.

- ``auc``: variance of placements (DeLong 1988; for clusters Obuchowski 1997) on the logit scale, t
  quantile with the accessions of the smaller class - 1 degrees of freedom. Where that variance is
  zero, as at an AUC of 1, Newcombe's (2006) method 5 with the numbers of accessions.
- Shares (accuracy, sensitivity, specificity, recall, recognition rate): Wilson's (1927) interval
  with the effective number of accessions; of images and slides with the effective sample size that
  their variance over accessions implies, and a t quantile.
- ``balanced_accuracy`` of two classes: MOVER (Donner and Zou 2012) from those of its two shares.
- Calibration: sums of scores by accession (sandwich variance), t quantile as for the AUC.
- ``brier``, ``macro_f1``, balanced accuracy of types: percentiles over resamples of the accessions,
  widened for small samples (Hesterberg 2015).

No interval stands where a class that the metric needs has fewer than MIN_PATIENTS accessions, nor
one of no width.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from helpers.results import METRIC_COLUMNS, P_TYPES
from helpers.splits import LEAKY

TUMOR_TYPES = [name.removeprefix("p_") for name in P_TYPES]
LEVELS = ("image", "slide", "accession")
ALL = "all"
MIN_PATIENTS = 5
NOTHING = (np.nan, np.nan)


class Estimate(NamedTuple):
    """A metric's value, what each accession adds to its error, and its interval at any level."""

    value: float
    error: np.ndarray  # float64 (n_accessions,), sums to 0
    variance: float
    df: int
    limits: Callable  # alpha -> (low, high)


# Rows, runs and groups ---------------------------------------------------------------------------


def _runs(frame, protocol):
    """Series of int: the run of each row (see the module's text)."""
    if protocol == "official":
        return frame.groupby(["seed", "fold"]).ngroup()
    repeat = frame.groupby(["seed", "image_id"])["fold"].rank(method="first").astype(int)
    return frame.assign(repeat=repeat).groupby(["seed", "repeat"]).ngroup()


def _groups(frame, level):
    """One row a run and group: run, accession, truth (int), right (share of images), scores.

    frame: predictions of one model, task and protocol. truth is 0 (benign) or 1 for malignancy,
    else the position in TUMOR_TYPES. Scores: p_malignant, or the eight P_TYPES.
    """
    frame = frame.sort_values(["seed", "fold", "image_id"], ignore_index=True)
    types = frame["task"].iloc[0] == "tumor_type"
    columns = P_TYPES if types else ["p_malignant"]
    rows = frame[["slide", "accession", "tumor_class", "tumor_type"]].copy()
    rows["run"] = _runs(frame, frame["protocol"].iloc[0])
    rows[columns] = frame[columns].astype(float).round(12)
    if types:
        rows["truth"] = rows["tumor_type"].map(TUMOR_TYPES.index)
        rows["right"] = (rows[columns].to_numpy().argmax(axis=1) == rows["truth"]).astype(float)
    else:
        rows["truth"] = rows["tumor_class"].eq("malignant").astype(int)
        rows["right"] = (rows["p_malignant"].ge(0.5) == rows["truth"]).astype(float)
    if level == "image":
        return rows
    keys = ["run", "accession", "truth"] + ["slide"] * (level == "slide")
    groups = rows.groupby(keys)[["right", *columns]].mean().reset_index()
    groups[columns] = groups[columns].round(12)
    return groups


def patients(predictions):
    """One row a model, task, protocol and accession: its mean score over images, then over runs.

    predictions: columns of the contract. Returns model, task, protocol, accession, tumor_class,
    tumor_type (of its images; "A F" where it holds two), truth (1 malignant), p_malignant,
    n_images.
    """
    keys = ["model", "task", "protocol"]
    out = []
    for key, frame in predictions.groupby(keys, sort=False):
        rows = frame.assign(run=_runs(frame, key[-1]))
        score = rows.groupby(["accession", "run"])["p_malignant"].mean()
        facts = rows.groupby("accession").agg(
            tumor_class=("tumor_class", "first"),
            tumor_type=("tumor_type", lambda types: " ".join(sorted(set(types)))),
            n_images=("image_id", "nunique"),
        )
        facts["truth"] = facts["tumor_class"].eq("malignant").astype(int)
        facts["p_malignant"] = score.groupby("accession").mean()
        out.append(facts.reset_index().assign(**dict(zip(keys, key, strict=True))))
    columns = [*keys, "accession", "tumor_class", "tumor_type", "truth", "p_malignant", "n_images"]
    return pd.concat(out, ignore_index=True)[columns]


# Estimates ---------------------------------------------------------------------------------------


def _mean(sums, counts):
    """Mean over runs of sums / counts, and how it falls to the accessions.

    sums, counts: float64 (n_runs, n_accessions). Returns value, error (n_accessions,), and weight
    (n_accessions,), the share of an accession in the mean.
    """
    total = counts.sum(axis=1, keepdims=True)
    weight = (counts / total).mean(axis=0)
    means = (sums / total).mean(axis=0)
    value = means.sum()
    return value, means - value * weight, weight


def _spread(error, weight):
    """Variance of a mean from its errors by accession, corrected for their number."""
    n = np.count_nonzero(weight)
    return n / (n - 1) * np.square(error).sum() if n > 1 else np.nan


def wilson(value, n, quantile):
    """Wilson's (1927) interval of a share: n may be an effective number, not whole."""
    centre = (value + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = np.sqrt(value * (1 - value) / n + quantile**2 / (4 * n**2)) * quantile
    half /= 1 + quantile**2 / n
    return max(centre - half, 0.0), min(centre + half, 1.0)


def newcombe(value, n, m, alpha=0.05):
    """Interval of an AUC from its value and the numbers of patients (Newcombe 2006, method 5)."""
    quantile = stats.norm.isf(alpha / 2)

    def beyond(auc):  # distance from the value in units of the quantile's distance, less 1
        shape = 1 + ((n + m) / 2 - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
        return abs(value - auc) - quantile * np.sqrt(auc * (1 - auc) * shape / (n * m))

    edge = 1e-9
    low = brentq(beyond, edge, value - edge) if value > 0.001 else 0.0
    high = brentq(beyond, value + edge, 1 - edge) if value < 0.999 else 1.0
    return low, high


def _placements(truth, score):
    """Share of the other class that a row beats, float64 (n,), ties one half (DeLong 1988)."""
    out = np.empty(len(score))
    for own, sign in ((1, 1), (0, -1)):
        other = np.sort(sign * score[truth != own])
        mine = sign * score[truth == own]
        wins = np.searchsorted(other, mine, "left") + np.searchsorted(other, mine, "right")
        out[truth == own] = wins / (2 * len(other))
    return out


def _auc(sums, counts):
    """Estimate of the AUC: sums of placements and numbers of rows, (2, n_runs, n_accessions)."""
    (value, low, benign), (_, high, malignant) = (
        _mean(s, c) for s, c in zip(sums, counts, strict=True)
    )
    n, m = np.count_nonzero(benign), np.count_nonzero(malignant)
    variance = _spread(low, benign) + _spread(high, malignant)
    df = min(n, m) - 1

    def limits(alpha=0.05):
        if min(n, m) < MIN_PATIENTS:
            return NOTHING
        if variance < 1e-12 or not 0 < value < 1:
            return newcombe(value, n, m, alpha)
        half = stats.t.isf(alpha / 2, df) * np.sqrt(variance) / (value * (1 - value))
        return float(expit(logit(value) - half)), float(expit(logit(value) + half))

    return Estimate(value, low + high, variance, df, limits)


def auc_interval(score, truth, accession, alpha=0.05):
    """AUC with its interval over accessions: (value, low, high).

    score: float (n,), truth: (n,) 1 malignant, accession: (n,). Bounds are NaN where a class has
    fewer than MIN_PATIENTS accessions.
    """
    score, truth = np.asarray(score, float), np.asarray(truth).astype(int)
    codes, names = pd.factorize(np.asarray(accession))
    place = _placements(truth, score)
    sums = [[np.bincount(codes, place * (truth == c), len(names))] for c in (0, 1)]
    counts = [[np.bincount(codes, truth == c, len(names))] for c in (0, 1)]
    found = _auc(np.array(sums), np.array(counts))
    return float(found.value), *found.limits(alpha)


def _share(sums, counts, of_patients):
    """Estimate of a mean of numbers in 0 to 1 (n_runs, n_accessions) as for a share."""
    value, error, weight = _mean(sums, counts)
    n = np.count_nonzero(weight)
    least = 1 / np.square(weight).sum()  # as if all rows of an accession were one

    def limits(alpha=0.05):
        if n < MIN_PATIENTS:
            return NOTHING
        if of_patients or not 0 < value < 1:
            return wilson(value, least, stats.norm.isf(alpha / 2))
        size = value * (1 - value) / max(np.square(error).sum(), 1e-12)
        return wilson(value, max(size, least), stats.t.isf(alpha / 2, n - 1))

    return Estimate(value, error, _spread(error, weight), n - 1, limits)


def _average(one, other):
    """Estimate of the mean of two independent shares: MOVER (Donner and Zou 2012)."""

    def limits(alpha=0.05):
        (low_1, high_1), (low_2, high_2) = one.limits(alpha), other.limits(alpha)
        down = np.hypot(one.value - low_1, other.value - low_2) / 2
        up = np.hypot(high_1 - one.value, high_2 - other.value) / 2
        return value - down, value + up

    value = (one.value + other.value) / 2
    error = (one.error + other.error) / 2
    variance = (one.variance + other.variance) / 4
    return Estimate(value, error, variance, min(one.df, other.df), limits)


def _plain(value, error, variance, df, enough):
    """Estimate with the interval value +- t standard error."""

    def limits(alpha=0.05):
        half = stats.t.isf(alpha / 2, df) * np.sqrt(variance)
        return (value - half, value + half) if enough else NOTHING

    return Estimate(value, error, variance, df, limits)


def _logistic(y, x, offset):
    """Maximum likelihood of logit P(y) = offset + x b by Newton: b, contributions (n, k)."""
    b = np.zeros(x.shape[1])
    for _ in range(50):
        p = expit(offset + x @ b)
        information = x.T @ (x * (p * (1 - p))[:, None])
        step = np.linalg.solve(information, x.T @ (y - p))
        b = b + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-10:
            break
    return b, (x * (y - p)[:, None]) @ np.linalg.inv(information)


def _calibration(runs, n):
    """Dict of Estimates of calibration intercept and slope (Cox 1958; Van Calster 2016)."""
    found = {"calibration_intercept": [], "calibration_slope": []}
    for code, y, p, _ in runs:
        if len(set(y)) < 2:
            continue
        z = logit(np.clip(p, 1e-6, 1 - 1e-6))
        ones = np.ones((len(y), 1))
        fits = {"calibration_intercept": _logistic(y, ones, z)}
        low, high = z[y == 1].min() < z[y == 0].max(), z[y == 0].min() < z[y == 1].max()
        if low and high and np.ptp(z) > 1e-9:
            fits["calibration_slope"] = _logistic(y, np.column_stack([ones, z]), 0.0)
        for name, (b, rows) in fits.items():
            found[name].append((b[-1], np.bincount(code, rows[:, -1], n)))
    classes = {c: len({g for code, y, *_ in runs for g in code[y == c]}) for c in (0, 1)}
    least = min(classes.values())
    out = {}
    for name, fits in found.items():
        if fits:
            error = np.mean([error for _, error in fits], axis=0)
            value = np.mean([b for b, _ in fits])
            k = sum(classes.values())
            variance = k / (k - 1) * np.square(error).sum()
            out[name] = _plain(value, error, variance, least - 1, least >= MIN_PATIENTS)
    return out


@lru_cache(maxsize=8)
def _resamples(n, n_boot, seed):
    """Multiplicities float64 (1 + n_boot, n): row 0 is the data, the rest are resamples."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot)
    return np.vstack([np.ones(n), drawn])


def _divide(a, b):
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _nanmean(values, axis):
    """Mean of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    return _divide(np.where(there, values, 0).sum(axis=axis), there.sum(axis=axis))


def _resampled(values, n, enough):
    """Estimate from values (1 + n_boot,), first that of the data, then of each resample."""
    drawn = values[1:][~np.isnan(values[1:])]
    wider = np.sqrt(n / (n - 1)) if n > 1 else 1.0

    def limits(alpha=0.05):
        if not enough or len(drawn) < 2:
            return NOTHING
        tail = stats.norm.sf(wider * stats.t.isf(alpha / 2, n - 1))
        return tuple(np.quantile(drawn, [tail, 1 - tail]))

    variance = wider**2 * drawn.var() if len(drawn) > 1 else np.nan
    return Estimate(values[0], drawn, variance, n - 1, limits)


def mean_interval(values, accession, n_boot=2000, seed=0):
    """Mean of any quantity (n,), NaN left out: dict of value, ci_low, ci_high, n_images, n_groups.

    The interval resamples accessions; it is missing with fewer than MIN_PATIENTS of them.
    """
    values, accession = np.asarray(values, float), np.asarray(accession)
    there = ~np.isnan(values)
    codes, names = pd.factorize(accession[there])
    n = len(names)
    found = np.nan, *NOTHING
    if n:
        weights = _resamples(n, n_boot, seed)
        sums = weights @ np.bincount(codes, values[there], n)
        drawn = _divide(sums, weights @ np.bincount(codes, minlength=n))
        found = drawn[0], *_resampled(drawn, n, n >= MIN_PATIENTS).limits()
    return _row(*found) | {"n_images": int(there.sum()), "n_groups": n}


def _row(value, low, high):
    """Value and interval as a dict; no interval of no width."""
    if not high - low > 1e-12:
        low = high = np.nan
    return {"value": float(value), "ci_low": float(low), "ci_high": float(high)}


# Metrics -----------------------------------------------------------------------------------------


def _sums(runs, n, pick, take):
    """(sums, counts), float64 (n_runs, n): of take(run) over the rows pick(run), by accession."""
    sums = [np.bincount(run[0], take(run) * pick(run), n) for run in runs]
    counts = [np.bincount(run[0], pick(run), n) for run in runs]
    return np.array(sums, float), np.array(counts, float)


def _malignancy(runs, n, level, boot):
    """Metric -> Estimate for two classes; runs: list of (code, truth, p, right) arrays."""
    patient = level == "accession"
    sides = {c: [run for run in runs if (run[1] == c).any()] for c in (0, 1)}
    both = [run for run in runs if len(set(run[1])) == 2]

    def hit(run):
        return ((run[2] >= 0.5) == (run[1] == 1)).astype(float)

    def share(some, c):
        return _share(*_sums(some, n, lambda run: (run[1] == c).astype(float), hit), patient)

    def whole(run):
        return np.ones(len(run[1]))

    out = {"accuracy": _share(*_sums(runs, n, whole, hit), patient)}
    if both:
        out["balanced_accuracy"] = _average(share(both, 1), share(both, 0))
    for name, c in (("sensitivity", 1), ("specificity", 0)):
        if sides[c]:
            out[name] = share(sides[c], c)
    if both:
        placed = [(*run[:2], _placements(run[1], run[2])) for run in both]
        parts = [
            _sums(placed, n, lambda run, c=c: (run[1] == c).astype(float), lambda run: run[2])
            for c in (0, 1)
        ]
        out["auc"] = _auc(*(np.array(x) for x in zip(*parts, strict=True)))
    sums, counts = _sums(runs, n, whole, lambda run: (run[2] - run[1]) ** 2)
    weights = _resamples(n, *boot)
    drawn = _nanmean(_divide(weights @ sums.T, weights @ counts.T), 1)
    out["brier"] = _resampled(drawn, n, n >= MIN_PATIENTS)
    out |= _calibration(runs, n)
    if level != "image":
        out["recognition_rate"] = _share(*_sums(runs, n, whole, lambda run: run[3]), False)
    return out


def _types(runs, n, level, boot):
    """Metric -> Estimate for the eight types; runs: list of (code, truth, P, right) arrays."""
    k = len(TUMOR_TYPES)
    patient = level == "accession"
    tables = np.zeros((len(runs), n, k, k))
    for table, (code, truth, p, _) in zip(tables, runs, strict=True):
        np.add.at(table, (code, truth, p.argmax(axis=1)), 1.0)
    held, right = tables.sum(axis=3), tables.diagonal(axis1=2, axis2=3)
    out = {"accuracy": _share(right.sum(axis=2), held.sum(axis=2), patient)}
    n_of = np.count_nonzero(held.sum(axis=0), axis=0)
    enough = n_of[n_of > 0].min() >= MIN_PATIENTS
    weights = _resamples(n, *boot)
    confusion = np.einsum("bn,rnij->brij", weights, tables, optimize=True)
    true, named = confusion.sum(axis=3), confusion.sum(axis=2)
    hits = confusion.diagonal(axis1=2, axis2=3)
    recall = _divide(hits, true)
    f1 = np.where(true > 0, _divide(2 * hits, true + named), np.nan)
    for name, each in (("balanced_accuracy", recall), ("macro_f1", f1)):
        out[name] = _resampled(_nanmean(_nanmean(each, 2), 1), n, enough)
    if level != "image":
        sums = np.array([np.bincount(code, share, n) for code, _, _, share in runs])
        out["recognition_rate"] = _share(sums, held.sum(axis=2), False)
    for i, name in enumerate(TUMOR_TYPES):
        some = held[:, :, i].sum(axis=1) > 0
        if n_of[i] >= MIN_PATIENTS:
            out[f"recall_{name}"] = _share(right[some, :, i], held[some, :, i], patient)
    return out


def _estimates(frame, level, names, n_boot, seed):
    """Metric -> Estimate from predictions of one model, task and protocol; names: accessions."""
    rows = _groups(frame, level)
    types = frame["task"].iloc[0] == "tumor_type"
    runs = []
    for _, run in rows.groupby("run"):
        p = run[P_TYPES].to_numpy() if types else run["p_malignant"].to_numpy()
        code = np.searchsorted(names, run["accession"])
        runs.append((code, run["truth"].to_numpy(), p, run["right"].to_numpy()))
    return (_types if types else _malignancy)(runs, len(names), level, (n_boot, seed))


@threadpool_limits.wrap(limits=1)  # small products: several threads only get in each other's way
def evaluate(predictions, n_boot=2000, seed=0):
    """Rows of metrics.csv, without notebook, for each model, task, protocol, magnification, level.

    predictions: columns of the contract (PREDICTION_COLUMNS; P_TYPES where the task is tumor_type).
    Undefined metrics are left out. n_groups counts accessions at image level, slides and accession
    groups at theirs.
    """
    out = []
    keys = ["model", "task", "protocol"]
    for key, frame in predictions.groupby(keys, sort=False):
        parts = {ALL: frame, **{str(m): part for m, part in frame.groupby("magnification")}}
        for magnification, part in parts.items():
            kind = "tumor_type" if key[1] == "tumor_type" else "tumor_class"
            units = {"image": ["accession"], "slide": ["slide", kind]}
            for level in LEVELS:
                unit = units.get(level, ["accession", kind])
                same = dict(zip(keys, key, strict=True)) | {
                    "magnification": magnification,
                    "level": level,
                    "n_images": part["image_id"].nunique(),
                    "n_groups": len(part.drop_duplicates(unit)),
                    "leaky": "leaky" if key[2] in LEAKY else "",
                }
                names = np.unique(part["accession"])
                found = _estimates(part, level, names, n_boot, seed)
                out += [
                    same | {"metric": metric} | _row(each.value, *each.limits())
                    for metric, each in found.items()
                ]
    columns = [name for name in METRIC_COLUMNS if name != "notebook"]
    return pd.DataFrame(out, columns=columns)


# Comparisons -------------------------------------------------------------------------------------


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
    """The predictions of one side of a comparison; ValueError unless of one model and protocol."""
    where = {"model": where} if isinstance(where, str) else where
    frame = predictions
    for column, value in where.items():
        if column == "magnification" and str(value) == ALL:
            continue
        wanted = value if isinstance(value, (list, tuple)) else [value]
        frame = frame[frame[column].astype(str).isin([str(x) for x in wanted])]
    if frame.empty:
        raise ValueError(f"No predictions with {where}.")
    for column in ("model", "task", "protocol"):
        there = sorted(frame[column].unique())
        if len(there) > 1:
            raise ValueError(f"{where}: name one {column}; the predictions have {there}.")
    return frame


@threadpool_limits.wrap(limits=1)
def compare(predictions, pairs, metric="auc", level="accession", n_boot=2000, seed=0):
    """A family of differences a minus b, each on the accessions that both sides were tested on.

    pairs: dict of words -> (a, b); a, b: a model's name, or a dict of column filters. Returns a row
    a pair: difference (the words), metric, level, value, ci_low, ci_high, p, p_holm, n_images,
    n_groups (accessions). The errors of both sides are subtracted accession by accession;
    p is two-sided, from t. The interval is at the level that Holm's step uses, 1 - 0.05 p / p_holm,
    so that it holds 0 exactly where p_holm >= 0.05. ValueError where the sides share no accession.
    """
    rows = []
    for words, where in pairs.items():
        sides = [_side(predictions, each) for each in where]
        names = np.intersect1d(*(side["accession"].unique() for side in sides))
        if not len(names):
            raise ValueError(f"{words}: the two sides were tested on no accession in common.")
        sides = [side[side["accession"].isin(names)] for side in sides]
        found = [_estimates(side, level, names, n_boot, seed).get(metric) for side in sides]
        images = set(sides[0]["image_id"]) | set(sides[1]["image_id"])
        row = {"difference": words, "metric": metric, "level": level}
        row |= _difference(*found) | {"n_images": len(images), "n_groups": len(names)}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    alpha = (0.05 * table["p"] / table["p_holm"]).fillna(0.05)
    half = stats.t.isf(alpha / 2, table["df"].clip(lower=1)) * table["se"]
    table["ci_low"], table["ci_high"] = table["value"] - half, table["value"] + half
    columns = ["difference", "metric", "level", "value", "ci_low", "ci_high", "p", "p_holm"]
    return table[[*columns, "n_images", "n_groups"]]


def _difference(a, b):
    """Value, standard error, df and p of a minus b."""
    if a is None or b is None:
        return {"value": np.nan, "se": np.nan, "df": 1, "p": np.nan}
    value, df = float(a.value - b.value), min(a.df, b.df)
    own = np.square(a.error).sum() + np.square(b.error).sum()
    shared = np.square(a.error - b.error).sum() / own if own else 0
    se = np.sqrt((a.variance + b.variance) * shared)
    if not (se > 1e-9 and np.isfinite(a.limits() + b.limits()).all()):
        return {"value": value, "se": np.nan, "df": 1, "p": 1.0 if value == 0 else np.nan}
    return {"value": value, "se": se, "df": df, "p": 2 * stats.t.sf(abs(value) / se, df)}


# Tables ------------------------------------------------------------------------------------------


def as_text(row, digits=2):
    """A row with value and interval as text: ``0.71 (0.62 to 0.80)``; no bounds where missing."""
    text = f"{row['value']:.{digits}f}"
    if np.isnan(row["ci_low"]):
        return text
    return f"{text} ({row['ci_low']:.{digits}f} to {row['ci_high']:.{digits}f})"


def find(metrics, **where):
    """The one row of `metrics` with these values, a Series; None if there is none.

    Over all magnifications unless one is given. ValueError where several rows fit.
    """
    rows = metrics
    for column, value in ({"magnification": ALL} | where).items():
        rows = rows[rows[column].astype(str) == str(value)]
    if len(rows) > 1:
        raise ValueError(f"{where}: {len(rows)} rows fit; name more columns.")
    return rows.iloc[0] if len(rows) else None
