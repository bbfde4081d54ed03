"""Notebook 04's rungs: what each starts from, how it is fitted in a fold.

A fold is (protocol, fold, train, val, test), the last three rows of the index. Its known patients
are those of train and val; they choose everything, by cross-validation among themselves. Tables of
predictions are those of the contract (results.PREDICTION_COLUMNS). A pool is a pair of them,
[validation, test]; validation holds cross-validated scores of each fold's known patients.
"""

import numpy as np

from helpers import probe
from helpers.results import IMAGE_FACTS

# A rung and those that it may start from: the first of them that is climbed is the one it changes.
BELOW = {
    "probe": (),
    "probe_chosen": ("probe",),
    "probe_views": ("probe_chosen", "probe"),
    "probe_crops": ("probe_chosen", "probe"),
    "fine_tuned": ("probe_chosen", "probe"),
    "stain_augmented": ("fine_tuned",),
    "stain_normalised": ("fine_tuned",),
    "stain_chosen": ("fine_tuned",),
    "balanced": ("stain_chosen", "fine_tuned"),
    "test_views": ("balanced", "stain_chosen", "fine_tuned"),
    "ensemble": ("test_views", "balanced", "stain_chosen", "fine_tuned"),
}
RUNGS = tuple(BELOW)
STAIN = {"fine_tuned": "as it is", "stain_augmented": "jittered", "stain_normalised": "normalised"}
VIEWS, FOLDS = "_views", "_folds"  # ends of the names that cross_fit gives to other predictions


def below(rung, rungs):
    """The rung out of `rungs` that `rung` changes. ValueError where none of those it needs is."""
    found = [name for name in BELOW[rung] if name in rungs]
    if not found:
        needed = " or ".join(BELOW[rung])
        raise ValueError(f"RUNGS: {rung!r} changes {needed}, which is not among {list(rungs)}.")
    return found[0]


def steps(rungs):
    """[(rung, the rung that it changes)]. ValueError unless it starts with 'probe', all known."""
    unknown = [rung for rung in rungs if rung not in RUNGS]
    if list(rungs[:1]) != ["probe"] or unknown:
        raise ValueError(f"RUNGS = {list(rungs)}: 'probe', then any of {', '.join(RUNGS[1:])}.")
    return [(rung, below(rung, rungs)) for rung in rungs[1:]]


def known_rows(fold):
    """Rows int (n,) of the patients of a fold that are not tested."""
    return np.sort(np.concatenate([fold[2], fold[3]]).astype(int))


def inner_parts(rows, y, accession, n_inner, seed):
    """[(rest, held out)] of rows int (n,), each patient held out once, both classes in each rest.

    y, accession: of all rows of the index. Parts whose rest would lack a class are left out;
    ValueError where that leaves none.
    """
    number = probe.inner_folds(y[rows], accession[rows], n_inner, seed)
    parts = [(rows[number != k], rows[number == k]) for k in range(n_inner)]
    parts = [(rest, held) for rest, held in parts if len(held) and len(set(y[rest])) > 1]
    if not parts:
        patients = len(set(accession[rows]))
        raise ValueError(f"{patients} patients cannot be cross-validated: one class has too few.")
    return parts


def held_out(index, fold, model, p_known, p_test, seed):
    """A pool: the prediction tables of one model and fold. Rows that nothing predicts are left out.

    p_known: float (n,), P(malignant) of known_rows(fold), NaN where unknown; p_test: of its test.
    """
    about = {"task": "malignancy", "protocol": fold[0], "fold": fold[1], "seed": seed}
    parts = ((known_rows(fold), p_known), (fold[4], p_test))
    tables = [
        index.iloc[rows][IMAGE_FACTS].assign(**about, model=model, p_malignant=p)
        for rows, p in parts
    ]
    return [table.dropna(subset="p_malignant") for table in tables]


def probe_fold(x, y, accession, fold, seed):
    """(P(malignant) of the known rows, of the test part, the probe) for features x (n, d).

    The former are cross-validated, by the folds that also chose the penalty; the latter come from
    a fit on all known patients.
    """
    rows = known_rows(fold)
    fitted = probe.fit_probe(x[rows], y[rows], accession[rows], seed=seed)
    return fitted.inner[:, 1], probe.predict(fitted, x[fold[4]])[:, 1], fitted


def cross_fit(train, see, parts, known, test):
    """{end of name: (p of the known rows, p of the test rows)} of one recipe of training.

    train(rows, stop, epochs) gives (network, history), epochs None: until `stop` says so;
    see(network, rows) gives P(malignant) (len(rows), views), the first view being the image as it
    is. parts: as from inner_parts(known).
    "": one network, trained on all known patients for as many epochs as were best in the parts;
    VIEWS: the same, its predictions averaged over the views; FOLDS: these averaged over the
    networks of the parts instead, no network having seen all known patients.
    """
    plain, viewed = np.full((2, int(max(known)) + 1), np.nan)
    epochs, of_parts = [], []
    for rest, held in parts:
        network, history = train(rest, held, None)
        epochs.append(history["epoch"].iloc[history["val_loss"].argmin()])
        seen = see(network, held)
        plain[held], viewed[held] = seen[:, 0], seen.mean(axis=1)
        of_parts.append(see(network, test).mean(axis=1))
    network, _ = train(known, known[:0], int(np.round(np.mean(epochs))))
    plain, viewed, seen = plain[known], viewed[known], see(network, test)
    return {
        "": (plain, seen[:, 0]),
        VIEWS: (viewed, seen.mean(axis=1)),
        FOLDS: (viewed, np.mean(of_parts, axis=0)),
    }
