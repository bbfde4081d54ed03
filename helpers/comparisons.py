"""Comparisons of two models: the paired bootstrap over accessions, p-values of several at once."""

import numpy as np
from threadpoolctl import threadpool_limits

from helpers.bootstrap import interval
from helpers.metrics import ALL, distributions


def select(predictions, model, task=None, protocol=None, magnification=ALL):
    """The predictions of one model; ValueError where task or protocol is needed to tell them."""
    frame = predictions[predictions["model"] == model]
    for column, value in (("task", task), ("protocol", protocol)):
        if value is not None:
            frame = frame[frame[column] == value]
        if len(frame[column].unique()) != 1:
            there = sorted(predictions.loc[predictions["model"] == model, column].unique())
            raise ValueError(f"Model {model!r}: name one {column}; the predictions have {there}.")
    if str(magnification) != ALL:
        frame = frame[frame["magnification"].astype(str) == str(magnification)]
    return frame


@threadpool_limits.wrap(limits=1)
def compare(
    predictions,
    model_a,
    model_b,
    metric="auc",
    level="accession",
    task=None,
    protocol=None,
    magnification=ALL,
    n_boot=2000,
    seed=0,
):
    """Paired bootstrap of model_a minus model_b on the images that both were tested on.

    Returns dict(difference, ci_low, ci_high, p_value, n_groups): n_groups is the number of
    accessions; p_value is two-sided, twice the smaller share of resampled differences on one side
    of 0 (counting 0 itself, and one more resample on each side). NaN where a value is undefined.
    """
    pair = [select(predictions, m, task, protocol, magnification) for m in (model_a, model_b)]
    both = set(pair[0]["image_id"]) & set(pair[1]["image_id"])
    if not both:
        raise ValueError(f"{model_a!r} and {model_b!r} were tested on no image in common.")
    pair = [frame[frame["image_id"].isin(both)] for frame in pair]
    a, b = (
        distributions(f, f["task"].iloc[0], f["protocol"].iloc[0], level, n_boot, seed)[metric]
        for f in pair
    )
    difference = a - b
    low, high = interval(difference)
    drawn = difference[1:][~np.isnan(difference[1:])]
    tails = [(np.sum(drawn <= 0) + 1), (np.sum(drawn >= 0) + 1)]
    p_value = min(1.0, 2 * min(tails) / (len(drawn) + 1)) if len(drawn) else np.nan
    n_groups = pair[0]["accession"].nunique()
    return {
        "difference": float(difference[0]),
        "ci_low": float(low),
        "ci_high": float(high),
        "p_value": float(p_value),
        "n_groups": int(n_groups),
    }


def holm(p_values) -> np.ndarray:
    """Return p-values adjusted for their number by Holm (1979), float64 (n,); NaN stays NaN.

    The smallest is multiplied by n, the next by n - 1, and so on; none falls below one before it.
    """
    p = np.asarray(p_values, float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known])]
    adjusted = np.full(p.shape, np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
