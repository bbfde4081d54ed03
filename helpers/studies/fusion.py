"""Several magnifications of one patient joined into one score, and the best single one beside it.

A prediction table of single models has the models ``probe_40x`` .. ``probe_400x``, each tested at
several magnifications. Fusion joins the matched rows (trained and tested at one magnification) of
a patient into one score. ``unit`` is the column that names what is scored as one: ``accession`` for
a patient, ``slide`` where the split separates no more than slides.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from helpers.splits import LEAKY

FUSIONS = ("fusion_mean", "fusion_stacked", "best_single")
RUN = ["protocol", "fold", "seed"]
LIMIT = 1e-6  # probabilities are kept this far from 0 and 1 before the logarithm


def single_model(magnification: int) -> str:
    """Return the name of the model trained at ``magnification``: 40 gives "probe_40x"."""
    return f"probe_{magnification}x"


def log_odds(probability) -> np.ndarray:
    """Return ln(p / (1 - p)), float64, with p kept within 1e-6 of 0 and 1."""
    p = np.clip(np.asarray(probability, float), LIMIT, 1 - LIMIT)
    return np.log(p) - np.log1p(-p)


def unit_log_odds(predictions: pd.DataFrame, unit: str = "accession") -> pd.DataFrame:
    """Return the mean log-odds of each unit's images at each magnification, by its own model.

    Rows are indexed by protocol, fold, seed, ``unit`` and tumor_class; columns are magnifications
    (int); a cell without images is NaN.
    """
    matched = predictions["magnification"].astype(int).map(single_model)
    own = predictions[predictions["model"] == matched]
    own = own.assign(
        score=log_odds(own["p_malignant"]), magnification=own["magnification"].astype(int)
    )
    return own.pivot_table(
        index=[*RUN, unit, "tumor_class"], columns="magnification", values="score", aggfunc="mean"
    )


def fill_missing(scores: np.ndarray) -> np.ndarray:
    """Return ``scores`` (n, m) with each NaN replaced by the mean of what its row has."""
    known = np.isfinite(scores)
    means = np.where(known, scores, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known, scores, means[:, None])


def class_weights(malignant: np.ndarray) -> np.ndarray:
    """Return weights (n,) with mean 1 that give each class present the same total."""
    counts = np.array([np.sum(~malignant), np.sum(malignant)])
    return len(malignant) / (np.sum(counts > 0) * counts[malignant.astype(int)])


def log_loss(score: np.ndarray, malignant: np.ndarray) -> float:
    """Return the class-balanced mean logistic loss (nats) of log-odds ``score`` (n,)."""
    losses = np.logaddexp(0, np.where(malignant, -score, score))
    return float(np.mean(class_weights(malignant) * losses))


def fit_stack(scores: np.ndarray, malignant: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Fit the weights of a stack (Wolpert 1992): m weights, then the intercept, float64 (m + 1,).

    ``scores``: log-odds (n, m), no NaN; ``malignant``: bool (n,). A logistic regression, balanced
    in class, whose L2 penalty pulls towards the plain mean (weights 1/m, intercept 0), because a
    fold's validation part holds few patients. With fewer than two classes it is the plain mean.
    """
    m = scores.shape[1]
    prior = np.append(np.full(m, 1 / m), 0.0)
    if len(np.unique(malignant)) < 2:
        return prior
    design = np.column_stack([scores, np.ones(len(scores))])
    sign, weight = np.where(malignant, 1.0, -1.0), class_weights(malignant)

    def loss(theta):
        margin = sign * (design @ theta)
        slope = design.T @ (-weight * sign * expit(-margin)) + strength * (theta - prior)
        penalty = strength / 2 * np.sum((theta - prior) ** 2)
        return np.sum(weight * np.logaddexp(0, -margin)) + penalty, slope

    return minimize(loss, prior, jac=True, method="L-BFGS-B").x


def best_column(scores: np.ndarray, malignant: np.ndarray) -> int:
    """Return the column of ``scores`` (n, m) with the least balanced logistic loss.

    A column is judged on the rows that have it; one that lacks a class there is passed over, and
    where every column does, the first is returned.
    """
    losses = np.full(scores.shape[1], np.inf)
    for column, score in enumerate(scores.T):
        known = np.isfinite(score)
        if len(np.unique(malignant[known])) == 2:
            losses[column] = log_loss(score[known], malignant[known])
    return int(np.argmin(losses))


def fuse_fold(test: np.ndarray, validation: np.ndarray, malignant: np.ndarray):
    """Return (log-odds by model, stack weights, best column) of one fold.

    ``test`` (n, m) and ``validation`` (k, m) are log-odds, NaN where missing; ``malignant``: bool
    (k,), the classes of the validation units. ``best_single`` is NaN where its magnification is.
    """
    theta = fit_stack(fill_missing(validation), malignant)
    best, filled = best_column(validation, malignant), fill_missing(test)
    stacked = filled @ theta[:-1] + theta[-1]
    scores = dict(zip(FUSIONS, (filled.mean(1), stacked, test[:, best]), strict=True))
    return scores, theta, best


def fuse(predictions: pd.DataFrame, validation: pd.DataFrame, unit: str = "accession"):
    """Return (fused predictions, choices) from single models' test and validation predictions.

    Every image of a unit carries the unit's fused probability, so the mean over a unit's images is
    the fused score. ``fusion_mean`` is the mean of the magnifications' mean log-odds;
    ``fusion_stacked`` is :func:`fit_stack` on the validation units of the fold; ``best_single`` is
    the one magnification with the least loss on them, and lacks units without it. ``choices`` has
    a row a fold: the best magnification, the stack's weights, and the validation units' number.
    """
    test, held = unit_log_odds(predictions, unit), unit_log_odds(validation, unit)
    held = held.reindex(columns=test.columns)
    fused, choices = [], []
    for run, part in test.groupby(level=RUN):
        own = held[[key[:3] == run for key in held.index]]
        malignant = own.index.get_level_values("tumor_class") == "malignant"
        scores, theta, best = fuse_fold(part.to_numpy(), own.to_numpy(), malignant)
        units = part.index.get_level_values(unit)
        fused += [
            pd.DataFrame({unit: units, "model": model, "p_malignant": expit(score)}).assign(
                **dict(zip(RUN, run, strict=True))
            )
            for model, score in scores.items()
        ]
        choices.append(_choice(run, test.columns, theta, best, malignant))
    images = predictions.drop(columns=["model", "p_malignant"]).drop_duplicates(["image_id", *RUN])
    rows = images.merge(pd.concat(fused).dropna(), on=[*RUN, unit])
    return rows[predictions.columns], pd.DataFrame(choices)


def fuse_protocols(predictions: pd.DataFrame, validation: pd.DataFrame):
    """Return :func:`fuse` of each protocol: by patient, or by slide where the split is leaky.

    Both tables are empty where fewer than two magnifications have a model of their own.
    """
    joined = [(predictions.head(0), pd.DataFrame())]
    own = predictions["magnification"].astype(int).map(single_model)
    if len(set(own[predictions["model"] == own])) > 1:
        for protocol, rows in predictions.groupby("protocol"):
            held = validation[validation["protocol"] == protocol]
            joined.append(fuse(rows, held, "slide" if protocol in LEAKY else "accession"))
    fused, choices = zip(*joined, strict=True)
    return pd.concat(fused), pd.concat(choices)


def _choice(run: tuple, magnifications, theta: np.ndarray, best: int, malignant) -> dict:
    weights = {f"weight_{m}x": w for m, w in zip(magnifications, theta, strict=False)}
    return {
        **dict(zip(RUN, run, strict=True)),
        "best_magnification": int(magnifications[best]),
        **weights,
        "intercept": theta[-1],
        "validation_benign": int((~malignant).sum()),
        "validation_malignant": int(malignant.sum()),
    }
