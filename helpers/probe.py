"""Linear probe: a scikit-learn pipeline on fixed features, every patient weighing the same.

x: float (n, d), or (n, views, d), whose views are averaged; y: (n,), two classes or more;
accession: (n,), the patient of each row.
"""

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # inverse strengths of the penalty, of scaled features


def fit_probe(x, y, accession, C=C_GRID, n_inner=5, seed=0):
    """Pipeline of view average, StandardScaler and LogisticRegression, fitted on the rows given.

    C: inverse strength of the L2 penalty. Of several the one is taken that has the smallest
    `patient_loss` in a cross-validation over `n_inner` groups of patients; it is then
    `pipeline[-1].C`. Both steps count patients as `patient_weights` does.
    ValueError where y has one class only.
    """
    x, y, accession = pooled(x), np.asarray(y), np.asarray(accession)
    if len(np.unique(y)) < 2:
        raise ValueError(f"a probe needs two classes, but all {len(y)} rows are {y[:1].tolist()}")
    grid = np.sort(np.atleast_1d(C).astype(float))
    with threadpool_limits(1):  # these products are too small to gain from more threads
        best = grid[0] if len(grid) == 1 else _choose(x, y, accession, grid, n_inner, seed)
        probe = make_pipeline(
            FunctionTransformer(pooled), StandardScaler(), LogisticRegression(C=best, max_iter=1000)
        )
        weights = patient_weights(y, accession)
        counted = ("standardscaler", "logisticregression")
        return probe.fit(x, y, **{f"{step}__sample_weight": weights for step in counted})


def pooled(x):
    """Features averaged over their views: float64 (n, d) from (n, d) or (n, views, d)."""
    x = np.asarray(x)
    return x.mean(axis=1, dtype=float) if x.ndim == 3 else x.astype(float)


def patient_weights(y, accession):
    """Weights (n,) with mean 1: equal sums for classes, and for accessions within a class."""
    _, label = np.unique(np.asarray(y), return_inverse=True)
    pairs = np.column_stack([label, np.unique(accession, return_inverse=True)[1]])
    pairs, patient, images = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    patients = np.bincount(pairs[:, 0])  # of each class
    weights = 1 / (images[patient.ravel()] * patients[label])
    return weights / weights.mean()


def inner_folds(y, accession, n=5, seed=0):
    """[(fit, held), ...]: sorted row positions of n folds that share no patient.

    Patients are dealt, each counted once in the class of its first row: StratifiedGroupKFold deals
    by images, and would give all benign patients to two folds where one of them has many. Fewer
    folds where no class has n patients; none where no class has two.
    """
    y, accession = np.asarray(y), np.asarray(accession)
    patients, first = np.unique(accession, return_index=True)
    n = min(n, np.unique(y[first], return_counts=True)[1].max())
    if n < 2:
        return []
    with warnings.catch_warnings():  # rare tumour types have fewer patients than there are folds
        warnings.filterwarnings("ignore", "The least populated class")
        dealt = list(StratifiedKFold(n, shuffle=True, random_state=seed).split(patients, y[first]))
    held = [np.isin(accession, patients[part]) for _, part in dealt]
    return [(np.flatnonzero(~rows), np.flatnonzero(rows)) for rows in held]


def patient_loss(p, y, accession):
    """Log-loss of patients' mean probabilities, classes weighing the same.

    p: (n,), P(y is 1 or True), or (n, k) in the order of the k sorted classes of y.
    """
    p, (classes, label) = np.asarray(p, float), np.unique(np.asarray(y), return_inverse=True)
    if p.ndim == 1:
        p, label, classes = np.column_stack([1 - p, p]), np.asarray(y).astype(int), np.arange(2)
    pairs = np.column_stack([label, np.unique(accession, return_inverse=True)[1]])
    pairs, patient = np.unique(pairs, axis=0, return_inverse=True)
    mean = np.zeros((len(pairs), p.shape[1]))
    np.add.at(mean, patient.ravel(), p)
    mean = mean.clip(1e-6) / mean.clip(1e-6).sum(axis=1, keepdims=True)
    weights = (1 / np.bincount(pairs[:, 0], minlength=len(classes)).clip(1))[pairs[:, 0]]
    return log_loss(pairs[:, 0], mean, sample_weight=weights, labels=np.arange(len(classes)))


def head(probe):
    """(coef (d,), bias) of raw features: x @ coef + bias is the logit of the second class.

    The scaling is folded in, so that the pair can be the head of a network.
    """
    _, scaler, logistic = (step for _, step in probe.steps)
    if len(logistic.classes_) != 2:
        raise ValueError(f"a head needs a probe of two classes, not {len(logistic.classes_)}")
    coef = logistic.coef_[0] / scaler.scale_
    return coef, float(logistic.intercept_[0] - scaler.mean_ @ coef)


def _choose(x, y, accession, grid, n_inner, seed):
    """The C of the smallest patient_loss; each fit starts from that of the stronger penalty."""
    classes = np.unique(y)
    p = np.zeros((len(grid), len(y), len(classes)))
    for fit, held in inner_folds(y, accession, n_inner, seed):
        known = np.isin(classes, y[fit])
        if known.sum() < 2:  # too few patients to leave some out: these rows tell nothing of C
            continue
        weights = patient_weights(y[fit], accession[fit])
        scaler = StandardScaler().fit(x[fit], sample_weight=weights)
        logistic = LogisticRegression(warm_start=True, tol=1e-3, max_iter=1000)
        seen, unseen = scaler.transform(x[fit]), scaler.transform(x[held])
        for number, C in enumerate(grid):
            logistic.set_params(C=C).fit(seen, y[fit], weights)
            p[number, held[:, None], known] = logistic.predict_proba(unseen)
    return grid[np.argmin([patient_loss(part, y, accession) for part in p])]
