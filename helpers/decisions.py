"""What to do with a probability: thresholds, net benefit, referral, one score from many images.

All functions take p: float (n,), P(malignant) in 0 to 1, and y: (n,), 1 or True for malignant. What
a row is (image, slide or accession) is for the caller to choose; with ``accession`` (n,) given,
95% intervals come from a bootstrap over accessions. Everything that is fitted or chosen
(threshold, rule) is to be fitted on patients outside the test part.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

from helpers.bootstrap import group_sums, interval, ratio_intervals
from helpers.calibration import checked, log_odds

RULES = ("mean", "logodds", "majority", "top")
UNIT = ["model", "task", "protocol", "seed", "fold", "accession", "tumor_class"]


def operating_point(p, y, sensitivity=0.95):
    """The highest threshold t at which p >= t finds at least `sensitivity` of the malignant rows.

    ValueError without a malignant row.
    """
    p, y = checked(p, y)
    found = np.sort(p[y == 1])[::-1]
    if not len(found):
        raise ValueError("An operating point needs malignant validation rows.")
    return float(found[int(np.ceil(sensitivity * len(found) - 1e-9)) - 1])


def at_threshold(p, y, threshold, accession=None, n_boot=2000, seed=0):
    """DataFrame of metric (sensitivity, specificity), value, ci_low, ci_high, n at p >= threshold.

    A metric without rows of its class is left out.
    """
    p, y = checked(p, y)
    said = p >= threshold
    pairs = {"sensitivity": (said * y, y), "specificity": (~said * (1 - y), 1 - y)}
    out = []
    for metric, (right, all_) in pairs.items():
        low = high = np.nan
        if all_.sum() and accession is not None:
            sums = group_sums([right, all_], accession, n_boot, seed)
            low, high = ratio_intervals(sums[:, :1], sums[:, 1:])[:, 0]
        if all_.sum():
            out.append((metric, right.sum() / all_.sum(), low, high, int(all_.sum())))
    return pd.DataFrame(out, columns=["metric", "value", "ci_low", "ci_high", "n"])


def decision_curve(p, y, thresholds=None, accession=None, n_boot=2000, seed=0):
    """Net benefit at each threshold (Vickers and Elkin 2006): true minus weighted false positives.

    thresholds: between 0 and 1, by default 0.01 to 0.99. Columns threshold, net_benefit, treat_all,
    treat_none (0), per row of the data, and with accession ci_low, ci_high of the net benefit.
    """
    p, y = checked(p, y)
    t = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, float)
    odds = t / (1 - t)
    benefit = (p[:, None] >= t) * (y[:, None] - (1 - y[:, None]) * odds)
    table = {"threshold": t, "net_benefit": benefit.mean(axis=0)}
    table |= {"treat_all": y.mean() - (1 - y.mean()) * odds, "treat_none": 0.0}
    if accession is not None:
        sums = group_sums([*benefit.T, np.ones(len(p))], accession, n_boot, seed)
        means = sums[:, :-1] / sums[:, -1:]
        table["ci_low"], table["ci_high"] = np.array([interval(column) for column in means.T]).T
    return pd.DataFrame(table)


def risk_coverage(p, y, accession=None, n_boot=2000, seed=0):
    """Error among the rows that are kept when the least certain are referred.

    Certainty is the distance of p from 0.5; rows of equal certainty are kept or referred together.
    Columns: certainty (the least that is kept), coverage, risk, and with accession ci_low, ci_high
    of the risk at that certainty. Sorted by falling certainty; the last row keeps everything.
    """
    p, y = checked(p, y)
    certainty = np.abs(p - 0.5).round(12)
    wrong = ((p >= 0.5) != (y == 1)).astype(float)
    levels = np.unique(certainty)[::-1]
    order = np.argsort(-certainty, kind="stable")
    last = np.searchsorted(-certainty[order], -levels, side="right") - 1
    kept = last + 1
    out = pd.DataFrame(
        {
            "certainty": levels,
            "coverage": kept / len(p),
            "risk": np.cumsum(wrong[order])[last] / kept,
        }
    )
    if accession is not None:
        out["ci_low"], out["ci_high"] = _risk_intervals(
            certainty, wrong, levels, accession, n_boot, seed
        )
    return out


def _risk_intervals(certainty, wrong, levels, accession, n_boot, seed, most=200):
    """Intervals of the risk at up to `most` of the levels, interpolated between them."""
    chosen = np.unique(np.linspace(0, len(levels) - 1, min(most, len(levels))).astype(int))
    kept = (certainty[:, None] >= levels[chosen]).astype(float)
    sums = group_sums([*(kept * wrong[:, None]).T, *kept.T], accession, n_boot, seed)
    low, high = ratio_intervals(sums[:, : len(chosen)], sums[:, len(chosen) :])
    place = np.arange(len(levels))
    return np.interp(place, chosen, low), np.interp(place, chosen, high)


def area_under_risk(p, y):
    """Mean risk over coverages 1/n, 2/n ... 1, rows of equal certainty in expectation (AURC)."""
    table = risk_coverage(p, y)
    kept = np.concatenate([[0], (table["coverage"] * len(p)).round().to_numpy()])
    errors = np.concatenate([[0], (table["risk"] * kept[1:]).to_numpy()])
    n = np.arange(1, len(p) + 1)
    return float((np.interp(n, kept, errors) / n).mean())


def aggregate(predictions, rule="mean", level="accession", top_share=0.25):
    """One score a group from its images, by a rule; groups are kept apart by UNIT.

    rule: "mean" of probabilities; "logodds", the sigmoid of the mean log-odds; "majority", the
    share of images with p >= 0.5; "top", the mean of the highest `top_share` (at least one image),
    for a tumour that fills a part of the slide only. Columns: the keys, n_images, p_malignant.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown; choose from {', '.join(RULES)}.")
    keys = UNIT + ["slide", "tumor_type"] * (level == "slide")

    def combine(p):
        if rule == "logodds":
            return expit(log_odds(p).mean())
        if rule == "majority":
            return (p >= 0.5).mean()
        if rule == "top":
            return np.sort(p)[::-1][: max(1, int(np.ceil(top_share * len(p))))].mean()
        return p.mean()

    grouped = predictions.groupby(keys, sort=True)["p_malignant"]
    out = grouped.agg(n_images="size", p_malignant=lambda p: combine(p.to_numpy(float)))
    return out.reset_index()
