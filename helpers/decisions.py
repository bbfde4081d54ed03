"""What to do with a probability: a temperature, a threshold, referral, net benefit.

p: float (n,), P(malignant), 0 to 1; y: (n,), 1 or True for malignant. A row is an image, a slide or
a patient, as the caller likes. What is fitted here is fitted on patients outside the test part.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before the logarithm
LIMITS = (0.1, 10)  # of a temperature that the rows determine


def temperature(p, y):
    """T that minimises the log-loss of sigmoid(logit(p) / T); above 1 it softens.

    Guo et al., ICML 2017. ValueError where the rows do not determine it: one class only, or classes
    so well or so badly separated that T leaves 0.1 to 10.
    """
    p, y = _checked(p, y)
    if len(np.unique(y)) < 2:
        raise ValueError("a temperature needs rows of both classes")
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-9)
    slope = fitted.fit(_log_odds(p)[:, None], y).coef_[0, 0]
    if not 1 / LIMITS[1] < slope < 1 / LIMITS[0]:
        raise ValueError("these rows do not determine a temperature: it would leave 0.1 to 10")
    return float(1 / slope)


def apply_temperature(p, temperature):
    """sigmoid(logit(p) / temperature): float64 (n,); the temperature is a number or (n,)."""
    return expit(_log_odds(p) / temperature)


def operating_point(p, y, sensitivity=0.95):
    """The highest threshold t at which p >= t finds at least `sensitivity` of the malignant rows.

    ValueError without a malignant row.
    """
    p, y = _checked(p, y)
    found = np.sort(p[y == 1])[::-1]
    if not len(found):
        raise ValueError("an operating point needs malignant rows")
    return float(found[int(np.ceil(sensitivity * len(found) - 1e-9)) - 1])


def rescale(p, threshold):
    """Probabilities (n,) moved so that `threshold`, a number or (n,), falls on 0.5.

    The map is affine and stays within 0 to 1, so a mean of images is at or above the threshold
    before exactly if it is at or above 0.5 after. It keeps decisions, not calibration.
    """
    slope = 0.5 / np.maximum(threshold, 1 - np.asarray(threshold))
    return np.clip(0.5 + slope * (np.asarray(p) - threshold), 0, 1)


def by_fold(validation, level, fit):
    """Series of `fit(p, y)` of each fold's validation rows, by fold; NaN where it cannot be fitted.

    validation: predictions of one model. level: "image", or "accession" for the means over a
    patient's images. `fit` raises ValueError where the rows do not allow it.
    """
    keys = ["fold", "accession", "tumor_class"] + ["image_id"] * (level == "image")
    rows = validation.groupby(keys, as_index=False)["p_malignant"].mean()
    fitted = {}
    for fold, part in rows.groupby("fold"):
        try:
            fitted[fold] = fit(part["p_malignant"].to_numpy(), part["tumor_class"] == "malignant")
        except ValueError:
            fitted[fold] = np.nan
    return pd.Series(fitted, dtype=float)


def net_benefit(p, y, thresholds):
    """DataFrame of threshold, net_benefit and treat_all, each per row (Vickers and Elkin 2006).

    Net benefit is the share of true positives minus that of false ones times the odds of the
    threshold; to treat none has 0. thresholds: (m,), above 0 and below 1.
    """
    (p, y), t = _checked(p, y), np.asarray(thresholds, float)
    odds = t / (1 - t)
    gain = (p[:, None] >= t) * (y[:, None] - (1 - y[:, None]) * odds)
    treat_all = y.mean() - (1 - y.mean()) * odds
    return pd.DataFrame({"threshold": t, "net_benefit": gain.mean(axis=0), "treat_all": treat_all})


def risk_coverage(p, y):
    """DataFrame of certainty, coverage and risk: the error where the least certain are referred.

    Certainty is the distance of p from 0.5. A row for each that occurs, falling: `coverage` is the
    share of rows at least as certain, `risk` the share of these that are wrong at 0.5.
    """
    p, y = _checked(p, y)
    wrong, certainty = pd.Series((p >= 0.5) != (y == 1)), np.abs(p - 0.5).round(12)
    table = wrong.groupby(certainty).agg(["sum", "size"])[::-1].cumsum().rename_axis("certainty")
    table = table.assign(coverage=table["size"] / len(p), risk=table["sum"] / table["size"])
    return table[["coverage", "risk"]].reset_index()


def _log_odds(p):
    return logit(np.clip(np.asarray(p, float), EDGE, 1 - EDGE))


def _checked(p, y):
    """p and y as float64 (n,); ValueError where they are not of one length or p leaves 0 to 1."""
    p, y = np.asarray(p, float), np.asarray(y).astype(float)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"p and y must be of one length, at least 1; got {p.shape} and {y.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p must lie in 0 to 1")
    return p, y
