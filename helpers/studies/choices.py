"""Notebook 04's choices: in each fold by its known patients, never by those that it tests.

Tables of predictions are those of the contract (results.PREDICTION_COLUMNS). A pool is a pair of
them, [validation, test]; validation holds cross-validated scores of each fold's known patients.
"""

import numpy as np
import pandas as pd

from helpers.results import IMAGE_FACTS
from helpers.studies.rules import fit_by_fold, with_threshold


def stack(pools):
    """One pool out of several."""
    return [pd.concat(tables, ignore_index=True) for tables in zip(*pools, strict=True)]


def patient_loss(predictions):
    """Log-loss of patients, a float: the mean probability of a patient's images in a fold.

    Both classes weigh the same; smaller is better; always one half scores 0.693. Probabilities are
    kept 0.01 from 0 and 1, so that no single patient decides. NaN for an empty table.
    """
    frame = predictions.assign(truth=predictions["tumor_class"].eq("malignant"))
    p = frame.groupby(["fold", "accession", "truth"])["p_malignant"].mean().reset_index("truth")
    right = p["p_malignant"].where(p["truth"], 1 - p["p_malignant"]).clip(0.01, 0.99)
    return float((-np.log(right)).groupby(p["truth"].to_numpy()).mean().mean())


def choose(pool, candidates):
    """In each fold the candidate with the least loss of known patients: protocol, fold, model.

    The loss is that of the fold's own patients, and of no others: models of other folds have
    learnt from patients that this fold tests. Of equals the first of `candidates` is taken.
    """
    rows = []
    for (protocol, fold), part in pool[0].groupby(["protocol", "fold"]):
        losses = [patient_loss(part[part["model"] == model]) for model in candidates]
        best = candidates[int(np.nanargmin(losses))]
        rows.append({"protocol": protocol, "fold": fold, "model": best})
    return pd.DataFrame(rows)


def by_fold(choice, values):
    """{(protocol, fold): value}, the value in `values` of the model that `choice` names."""
    keys = zip(choice["protocol"], choice["fold"], strict=True)
    return {key: values[model] for key, model in zip(keys, choice["model"], strict=True)}


def follow(pool, choice, name, end=""):
    """A pool: the predictions of the model that `choice` names for each fold, called `name`.

    end: rungs.VIEWS or rungs.FOLDS for the model's other predictions.
    """
    wanted = choice.assign(model=choice["model"] + end)
    return [table.merge(wanted).assign(model=name) for table in pool]


def blend(pool, members, seed, model="ensemble"):
    """A pool: the mean probability of several models and their seeds, for each image and fold."""
    keys = [*IMAGE_FACTS, "task", "protocol", "fold"]
    means = []
    for table in pool:
        frame = table[table["model"].isin(members)]
        one = frame.groupby([*keys, "model"], as_index=False, sort=False)["p_malignant"].mean()
        means.append(one.groupby(keys, as_index=False, sort=False)["p_malignant"].mean())
    return [mean.assign(model=model, seed=seed) for mean in means]


def best_threshold(p, truth):
    """The threshold of p (n,) with the best balanced accuracy; of equals the nearest to one half.

    truth: bool (n,). Candidates lie half way between neighbouring scores. 0.5 with one class only.
    """
    p, truth = np.asarray(p, float), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return 0.5
    scores = np.unique(p)
    cuts = np.append((scores[1:] + scores[:-1]) / 2, 0.5)
    said = p >= cuts[:, None]
    right = said[:, truth].mean(axis=1) + (~said[:, ~truth]).mean(axis=1)
    return float(min(zip(-right.round(9), np.abs(cuts - 0.5), cuts, strict=True))[2])


def threshold(pool, name):
    """A pool: one model's predictions rescaled so that 0.5 is its fold's best_threshold.

    The threshold is for patients (mean probability), and is found on the fold's known patients.
    """
    parts = pool[0].groupby("protocol")
    cuts = {kind: fit_by_fold(part, "accession", best_threshold) for kind, part in parts}

    def rescaled(table):
        cut = [cuts[key][fold] for key, fold in zip(table["protocol"], table["fold"], strict=True)]
        p = with_threshold(table["p_malignant"], np.array(cut))
        return table.assign(p_malignant=p, model=name)

    return [rescaled(table) for table in pool]
