"""The leakage audit of notebook 02: one model under every split, controls, and power."""

import numpy as np
import pandas as pd
from scipy.stats import binom, rankdata

from helpers import probe
from helpers.results import PREDICTION_COLUMNS
from helpers.splits import fold_rows


def cross_predict(
    x, index, splits, protocol, model, C, seed=0, without_sisters=False, squares=False
):
    """Predictions of a logistic probe on the test part of every fold.

    x: float (n, d), rows as in `index`; C: inverse penalty, or several of which cross-validation
    among the training patients picks one. Fitted on train and val together: nothing else is chosen.
    without_sisters: leave out of the fit every accession that the test part holds. squares: fit on
    `with_squares` of x. Returns (predictions with the columns of the contract, folds left out): a
    fold whose training part holds one class, or whose test part is empty, is left out.
    """
    y = index["tumor_class"].eq("malignant").astype(int).to_numpy()
    accession = index["accession"].to_numpy()
    parts, left_out = [], []
    for fold, train, val, test in fold_rows(index, splits, protocol):
        fit = np.concatenate([train, val])
        if without_sisters:
            fit = fit[~np.isin(accession[fit], accession[test])]
        if len(test) == 0 or len(np.unique(y[fit])) < 2:
            left_out.append(fold)
            continue
        values = with_squares(x, fit) if squares else x
        fitted = probe.fit_probe(values[fit], y[fit], accession[fit], C=C, repeats=1, seed=seed)
        p = probe.predict(fitted, values[test])[:, 1]
        parts.append(index.iloc[test].assign(fold=fold, p_malignant=p))
    known = {"task": "malignancy", "protocol": protocol, "seed": seed, "model": model}
    out = pd.concat(parts) if parts else index.iloc[:0].assign(fold=0, p_malignant=0.0)
    return out.assign(**known)[PREDICTION_COLUMNS].reset_index(drop=True), left_out


def with_squares(x, fit):
    """Columns of x (n, d) and their squares and products: float64 (n, d + d (d + 1) / 2).

    Standardised by the rows `fit`, which a model may learn from. A linear model on these can learn
    to know accessions by their colour.
    """
    scale = x[fit].std(axis=0)
    z = (x - x[fit].mean(axis=0)) / np.where(scale > 0, scale, 1)
    i, j = np.triu_indices(z.shape[1])
    return np.hstack([z, z[:, i] * z[:, j]])


def sister_slides(index, splits, protocol="official"):
    """The test rows of each fold: fold, slide, accession, image_id, sister (bool).

    sister: another slide of the accession is in the training or validation part of the fold.
    """
    rows = splits[splits["protocol"] == protocol].merge(
        index[["image_id", "slide", "accession"]], on="image_id"
    )
    learnt = set(map(tuple, rows.loc[rows["role"] != "test", ["fold", "accession"]].to_numpy()))
    test = rows[rows["role"] == "test"]
    known = [(k, a) in learnt for k, a in zip(test["fold"], test["accession"], strict=True)]
    return test[["fold", "slide", "accession", "image_id"]].assign(sister=known)


def _ridge(x, folds, labels):
    """Out-of-fold scores of least squares, penalty d, for each column of labels: (n, k)."""
    scores = np.full(labels.shape, np.nan)
    for _, train, val, test in folds:
        fit = np.concatenate([train, val])
        mean, scale = x[fit].mean(axis=0), x[fit].std(axis=0)
        z = (x - mean) / np.where(scale > 1e-8, scale, 1)
        gram = z[fit] @ z[fit].T + x.shape[1] * np.eye(len(fit))
        target = labels[fit] - labels[fit].mean(axis=0)
        scores[test] = z[test] @ (z[fit].T @ np.linalg.solve(gram, target))
    return scores


def permutation_test(x, index, splits, n_permutations=500, seed=0):
    """Is the accession-level AUC more than chance? Classes are permuted among the accessions.

    The images of an accession keep one label, so accession signatures stay what they are. A fit by
    least squares takes the place of the probe, since it solves for all permutations at once; the
    true labels go through it in the same way. First repeat of the protocol ``accession``.
    Returns (AUC, null float64 (n_permutations,), p_value).
    """
    folds, tested = [], set()
    for fold in fold_rows(index, splits, "accession"):
        if not tested & set(fold[3]):  # a second test of an image is the next repeat
            folds.append(fold)
            tested |= set(fold[3])
    names, codes = np.unique(index["accession"], return_inverse=True)
    classes = index.groupby("accession")["tumor_class"].first().loc[names].eq("malignant")
    rng = np.random.default_rng(seed)
    columns = [classes.to_numpy(float)]
    columns += [rng.permutation(columns[0]) for _ in range(n_permutations)]
    labels = np.stack(columns, axis=1)
    scores = _ridge(np.asarray(x, float), folds, labels[codes])
    sums = np.zeros(labels.shape)
    np.add.at(sums, codes, scores)
    ranks = rankdata(sums / np.bincount(codes)[:, None], axis=0)
    malignant = labels.sum(axis=0)
    wins = (ranks * labels).sum(axis=0) - malignant * (malignant + 1) / 2
    auc = wins / (malignant * (len(names) - malignant))
    return auc[0], auc[1:], (1 + np.sum(auc[1:] >= auc[0])) / (1 + n_permutations)


def power(n, better, accuracy=0.85, agreement=0.5, n_sim=4000, seed=0):
    """Share of simulated studies on n patients that find a model better by `better` (p < 0.05).

    Both models decide each patient once; one is right in `accuracy`, the other in `accuracy` +
    `better` of patients; `agreement` is the correlation of being right. Exact sign test on the
    patients on whom they differ (McNemar 1947).
    """
    a, b = accuracy, accuracy + better
    both = min(a * b + agreement * np.sqrt(a * (1 - a) * b * (1 - b)), a)
    cells = [both, a - both, b - both]
    draws = np.random.default_rng(seed).multinomial(n, [*cells, 1 - sum(cells)], size=n_sim)
    only_a, only_b = draws[:, 1], draws[:, 2]
    p_value = 2 * binom.cdf(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return float(np.mean((p_value < 0.05) & (only_b > only_a)))


def detectable(n, share=0.8, accuracy=0.85, **options):
    """The smallest difference (steps of 0.01) found in `share` of studies on n patients, or NaN."""
    for step in range(1, round((1 - accuracy) * 100) + 1):
        if power(n, step / 100, accuracy, **options) >= share:
            return step / 100
    return np.nan
