"""Rules that are fitted on the patients outside the test part of a fold and applied to its test.

A temperature, an operating point, a rule of referral. ``test`` and ``validation`` hold one model's
predictions of malignancy: on the test part of each fold, and cross-validated ones on all its other
patients. All intervals are 95%, from a bootstrap over accessions.
"""

from functools import partial

import numpy as np
import pandas as pd

from helpers.bootstrap import group_sums, row_of
from helpers.calibration import apply_temperature, fit_temperature
from helpers.decisions import operating_point, risk_coverage
from helpers.metrics import evaluate


def with_threshold(p: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Return probabilities rescaled so that ``threshold`` falls on 0.5, all within 0 to 1.

    The map is affine, so that a mean of images is at or above the threshold before exactly if it is
    at or above 0.5 after it. It keeps decisions, not calibration.
    """
    slope = 0.5 / np.maximum(threshold, 1 - np.asarray(threshold))
    return np.clip(0.5 + slope * (p - threshold), 0, 1)


def fit_by_fold(validation: pd.DataFrame, level: str, fit) -> pd.Series:
    """Return ``fit(p, truth)`` of each fold's validation rows, by fold; NaN where it cannot be.

    ``level``: "image", or "accession" for means over a patient's images. ``fit`` raises ValueError
    where the rows do not allow a fit, for example with one class only.
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


def calibrate(test: pd.DataFrame, validation: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Return ``test`` at the temperature of each fold's validation scores, and the temperatures.

    A fold keeps 1 where validation does not determine it: with one class only, or where the classes
    are so well or so badly separated that the fit runs out of 0.1 to 10.
    """

    def fit(p, truth):
        found = fit_temperature(p, truth)
        return found if 0.1 < found < 10 else np.nan

    temperature = fit_by_fold(validation, "image", fit)
    used = test["fold"].map(temperature.fillna(1.0))
    p = apply_temperature(test["p_malignant"], used)
    return test.assign(model=test["model"] + "_calibrated", p_malignant=p), temperature


def tell_temperatures(temperature: pd.Series) -> str:
    """Return one sentence or two on the temperatures of :func:`calibrate`, by fold."""
    return (
        f"Temperatures: {temperature.min():.2f} to {temperature.max():.2f}. Folds that keep 1, "
        f"because their validation does not determine it: {temperature.isna().sum()} of "
        f"{len(temperature)}."
    )


def thresholded(test: pd.DataFrame, validation: pd.DataFrame, sensitivity: float) -> pd.DataFrame:
    """Return ``test`` rescaled so that 0.5 is each fold's operating point, found on validation.

    Twice: with the threshold for images and with that for patients. The model's name ends in
    ``_threshold_image`` or ``_threshold_accession``, the level that it is for.
    """
    pick, parts = partial(operating_point, sensitivity=sensitivity), []
    for level in ("image", "accession"):
        cut = test["fold"].map(fit_by_fold(validation, level, pick).fillna(0.5))
        p = with_threshold(test["p_malignant"], cut)
        parts.append(test.assign(model=test["model"] + f"_threshold_{level}", p_malignant=p))
    return pd.concat(parts, ignore_index=True)


def threshold_metrics(chosen: pd.DataFrame, notebook: str, **boot) -> pd.DataFrame:
    """Return rows of metrics.csv for ``thresholded``: decisions only, each at its own level."""
    rows = evaluate(chosen, notebook, **boot)
    own = rows["level"] == rows["model"].str.split("_").str[-1]
    return rows[own & ~rows["metric"].isin(["auc", "brier", "ece", "recognition_rate"])]


def side_by_side(ways: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return sensitivity and specificity of several ways to decide (rows of metrics) to plot.

    Adds decided, the way, and of, "Images" or "Patients".
    """
    rows = pd.concat([part.assign(decided=way) for way, part in ways.items()])
    rows = rows.query("metric in ('sensitivity', 'specificity') and magnification == 'all'")
    rows = rows.assign(of=rows["level"].map({"image": "Images", "accession": "Patients"}))
    return rows.dropna(subset="of").sort_values("of", kind="stable")


def least_certainty(p, truth, risk: float) -> float:
    """Return how far p must lie from 0.5 to be decided, so that at most ``risk`` of those err.

    Chosen for the largest share decided; infinite (decide nothing) where no choice is that safe.
    """
    table = risk_coverage(p, truth)
    safe = table[table["risk"] <= risk]
    return float(safe["certainty"].iloc[-1]) if len(safe) else np.inf


def referral(test: pd.DataFrame, validation: pd.DataFrame, risk: float, **boot) -> dict:
    """Return what a rule of referral, fitted on each fold's validation scores, does to its test.

    The rule is :func:`least_certainty` for ``risk``. Columns: the share of images decided and the
    error rate among these, with intervals; undecided patients are those with no image decided.
    """
    rule = fit_by_fold(validation, "image", partial(least_certainty, risk=risk)).fillna(np.inf)
    kept = ((test["p_malignant"] - 0.5).abs() >= test["fold"].map(rule)).to_numpy(float)
    wrong = (test["p_malignant"] >= 0.5) != (test["tumor_class"] == "malignant")
    n, decided, bad = group_sums(
        [np.ones(len(test)), kept, kept * wrong], test["accession"], **boot
    ).T
    error = np.divide(bad, decided, out=np.full(len(n), np.nan), where=decided > 0)
    share, err = (row_of(values, test["accession"]) for values in (decided / n, error))
    left = test.assign(kept=kept).groupby("accession")["kept"].max()
    return {
        "error asked for": risk,
        "share decided": share["value"],
        "share, low": share["ci_low"],
        "share, high": share["ci_high"],
        "error among decided": err["value"],
        "error, low": err["ci_low"],
        "error, high": err["ci_high"],
        "patients with none decided": int((left == 0).sum()),
    }
