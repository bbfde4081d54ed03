"""Linear probe: L2 logistic regression on fixed features, patients weighted equally."""

from typing import NamedTuple

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from helpers.logistic import fit_path

MANY = 2000  # rows from which matrix products use all threads
C_GRID = tuple(10.0**power for power in np.arange(-5, -0.5, 0.5))


class Probe(NamedTuple):
    """A fitted probe. Logits are (x - mean) / scale @ coef + bias.

    mean, scale: (d,); coef: (d, k) and bias: (k,), k classes; C: inverse strength of the penalty;
    inner_scores: log-loss of accessions in the inner cross-validation for each C tried (nan where
    C was given); inner: (n, k) out-of-fold probabilities of the training rows at the chosen C.
    """

    classes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    bias: np.ndarray
    C: float
    inner_scores: dict
    inner: np.ndarray


def fit_probe(x, y, accession, C=C_GRID, n_inner=5, repeats=2, seed=0):
    """Fit on features x (n, d) or (n, views, d), labels y (n,), accession (n,); views are averaged.

    Features are standardised on the rows given. Classes weigh the same, accessions the same within
    a class, images the same within an accession. Of several C, the one with the smallest log-loss
    of accessions in an accession-grouped cross-validation is taken. ValueError with one class.
    """
    x, y, accession = pooled(x), np.asarray(y), np.asarray(accession)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"a probe needs two classes, but all {len(y)} rows are {classes.tolist()}")
    grid = np.atleast_1d(np.asarray(C, float))
    target = (y[:, None] == classes).astype(float)
    # Small matrices are slower on several threads, many times so on a busy machine.
    with threadpool_limits(1 if len(x) < MANY else None):
        oof = inner_probabilities(x, y, accession, classes, grid, n_inner, repeats, seed)
        scores = [accession_log_loss(part, y, accession, classes) for part in oof]
        best = int(np.argmin(scores)) if np.isfinite(scores).any() else 0
        weights = patient_weights(y, accession)
        mean, scale, coef, bias = fit_path(x, target, weights, grid[best : best + 1], 1e-6)
    inner_scores = dict(zip(grid.tolist(), scores, strict=True))
    chosen = float(grid[best])
    return Probe(classes, mean, scale, coef[0], bias[0], chosen, inner_scores, oof[best])


def predict(probe, x):
    """Probabilities (n, k) in the order of `probe.classes` for x (n, d) or (n, views, d)."""
    return softmax(logits(probe, x), axis=1)


def logits(probe, x):
    """Logits (n, k) for x (n, d) or (n, views, d); of two classes they are opposite numbers."""
    return (pooled(x) - probe.mean) / probe.scale @ probe.coef + probe.bias


def one_head(probe):
    """(coef (d,), bias) of raw features: the logit of the second of two classes is x @ coef + bias.

    The standardisation is folded in, so the pair serves as the head of a network (class
    activation maps, fine-tuning).
    """
    if len(probe.classes) != 2:
        raise ValueError(f"one head needs two classes, not {len(probe.classes)}")
    coef = (probe.coef[:, 1] - probe.coef[:, 0]) / probe.scale
    return coef, float(probe.bias[1] - probe.bias[0] - probe.mean @ coef)


def pooled(x):
    """Features averaged over their views: float64 (n, d) from (n, d) or (n, views, d)."""
    x = np.asarray(x)
    return x.mean(axis=1, dtype=float) if x.ndim == 3 else x.astype(float)


def patient_weights(y, accession):
    """Weights (n,) with mean 1: equal sums for classes, and for accessions within a class."""
    _, label = np.unique(np.asarray(y), return_inverse=True)
    _, patient = np.unique(np.asarray(accession), return_inverse=True)
    _, group, size = np.unique(
        np.stack([label, patient], 1), axis=0, return_inverse=True, return_counts=True
    )
    group = group.ravel()
    groups_of_class = np.bincount(label[np.unique(group, return_index=True)[1]])
    weights = 1 / (size[group] * groups_of_class[label])
    return weights * len(weights) / weights.sum()


def inner_folds(y, accession, n_inner, seed):
    """Fold number (n,) of each row; an accession is in one fold, classes are spread over folds."""
    rng = np.random.default_rng(seed)
    y, accession = np.asarray(y), np.asarray(accession)
    patients, first = np.unique(accession, return_index=True)
    order = rng.permutation(len(patients))
    order = order[np.argsort(y[first][order], kind="stable")]
    fold = np.empty(len(patients), int)
    fold[order] = np.arange(len(patients)) % n_inner
    return fold[np.searchsorted(patients, accession)]


def inner_probabilities(x, y, accession, classes, grid, n_inner=5, repeats=2, seed=0):
    """Out-of-fold probabilities (len(grid), n, k), averaged over repeats; nan without a fit."""
    total = np.full((len(grid), len(y), len(classes)), np.nan)
    if len(np.unique(accession)) < 2:
        return total
    n_inner = min(n_inner, len(np.unique(accession)))
    runs = []
    for repeat in range(repeats):
        fold = inner_folds(y, accession, n_inner, seed + repeat)
        run = total.copy()
        for number in range(n_inner):
            train, held = fold != number, fold == number
            if len(np.unique(y[train])) > 1 and held.any():
                run[:, held] = _fit_predict(x, y, accession, classes, grid, train, held)
        runs.append(run)
    return np.mean(runs, axis=0)


def accession_log_loss(probabilities, y, accession, classes):
    """Log-loss of accessions' mean probabilities, classes weighing the same; nan rows left out."""
    known = np.isfinite(probabilities).all(axis=1)
    if not known.any():
        return np.nan
    label = np.searchsorted(classes, np.asarray(y)[known])
    groups, number = np.unique(
        np.stack([label, np.unique(accession, return_inverse=True)[1][known]], 1),
        axis=0,
        return_inverse=True,
    )
    number, label = number.ravel(), groups[:, 0]
    sums = np.stack([np.bincount(number, column) for column in probabilities[known].T], 1)
    mean = np.clip(sums / np.bincount(number)[:, None], 1e-6, 1)
    loss = -np.log(mean[np.arange(len(label)), label])
    return float(np.mean([loss[label == k].mean() for k in np.unique(label)]))


def _fit_predict(x, y, accession, classes, grid, train, held):
    target = (y[train][:, None] == classes).astype(float)
    weights = patient_weights(y[train], accession[train])
    mean, scale, coef, bias = fit_path(x[train], target, weights, grid)
    return softmax((x[held] - mean) / scale @ coef + bias[:, None], axis=2)


def colour_features(images):
    """Stain statistics without morphology: float64 (n, 12) from uint8 (n, height, width, 3).

    In optical density -log10((I + 1) / 256) per channel: mean, standard deviation, 95th
    percentile, then the three covariances of the channels.
    """
    table = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
    rows = []
    for image in images:
        density = table[np.asarray(image)].reshape(-1, 3)
        covariance = np.cov(density.T)
        high = np.percentile(density, 95, axis=0)
        off = covariance[np.triu_indices(3, 1)]
        rows.append(np.concatenate([density.mean(0), density.std(0), high, off]))
    return np.asarray(rows, dtype=float).reshape(len(rows), 12)
