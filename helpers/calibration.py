"""When to believe a probability: reliability, calibration error, and temperature scaling.

Functions take p: float (n,), P(malignant) in 0 to 1, and y: (n,), 1 or True for malignant. What a
row is (image, slide or accession) is for the caller to choose. A temperature is to be fitted on
patients outside the test part.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from helpers.bootstrap import group_sums, ratio_intervals
from helpers.metrics import N_BINS

EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before the logarithm


def checked(p, y):
    """p and y as float64 (n,); ValueError where they are not of one length or p leaves 0 to 1."""
    p, y = np.asarray(p, float), np.asarray(y).astype(float)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"p and y must be of one length, at least 1; got {p.shape} and {y.shape}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p must lie in 0 to 1.")
    return p, y


def log_odds(p):
    """logit(p), float64 (n,), finite for 0 and 1 too."""
    return logit(np.clip(np.asarray(p, float), EDGE, 1 - EDGE))


def reliability(p, y, accession=None, n_bins=N_BINS, n_boot=2000, seed=0):
    """Observed against predicted share of malignant: a row a bin of equal width that holds a row.

    Columns: low, high (of the bin), n, mean_p, share, and ci_low, ci_high of share (NaN without
    accession).
    """
    p, y = checked(p, y)
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    inside = (bins[:, None] == np.arange(n_bins)).astype(float)
    n = inside.sum(axis=0)
    used = n > 0
    low, high = np.full((2, n_bins), np.nan)
    if accession is not None:
        sums = group_sums([*(inside * y[:, None]).T, *inside.T], accession, n_boot, seed)
        low, high = ratio_intervals(sums[:, :n_bins], sums[:, n_bins:])
    edges = np.linspace(0, 1, n_bins + 1)
    return pd.DataFrame(
        {
            "low": edges[:-1][used],
            "high": edges[1:][used],
            "n": n[used].astype(int),
            "mean_p": (inside * p[:, None]).sum(axis=0)[used] / n[used],
            "share": (inside * y[:, None]).sum(axis=0)[used] / n[used],
            "ci_low": low[used],
            "ci_high": high[used],
        }
    )


def expected_calibration_error(p, y, n_bins=N_BINS):
    """Mean gap between predicted and observed share over the bins, weighted by their size."""
    table = reliability(p, y, n_bins=n_bins)
    return float(np.average((table["mean_p"] - table["share"]).abs(), weights=table["n"]))


def fit_temperature(p, y, weights=None):
    """Temperature T (0.05 to 20) that minimises the log-loss of sigmoid(logit(p) / T).

    weights: (n,), for instance to count patients equally. Guo et al., ICML 2017. T > 1 softens.
    ValueError with one class only.
    """
    p, y = checked(p, y)
    if len(np.unique(y)) < 2:
        raise ValueError("A temperature needs validation rows of both classes.")
    score = log_odds(p)
    weights = np.ones(len(p)) if weights is None else np.asarray(weights, float)

    def loss(log_t):
        scaled = score * np.exp(-log_t)
        return np.average(np.logaddexp(0, scaled) - y * scaled, weights=weights)

    found = minimize_scalar(
        loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def apply_temperature(p, temperature):
    """sigmoid(logit(p) / temperature), float64 (n,)."""
    return expit(log_odds(p) / temperature)
