"""Results at several magnifications: what can be studied, paired tests, the 4 x 4 matrix."""

import numpy as np
import pandas as pd

from helpers.comparisons import compare, holm
from helpers.data import MAGNIFICATIONS
from helpers.metrics import ALL, as_text, evaluate
from helpers.plots import spell
from helpers.splits import PROTOCOLS, label
from helpers.studies import literature
from helpers.studies.fusion import FUSIONS, single_model

PATIENT = ["accession", "tumor_class", "task", "protocol", "fold", "seed"]
CLASSES = ["benign", "malignant"]


def patient_counts(index: pd.DataFrame, least: int) -> pd.DataFrame:
    """Return a row a magnification: patients of each class, images, and whether it can be studied.

    It can (``studied`` is "yes") with ``least`` patients of each class. A patient is an accession.
    """
    patients = index.pivot_table(
        index="magnification", columns="tumor_class", values="accession", aggfunc="nunique"
    )
    patients = patients.reindex(index=MAGNIFICATIONS, columns=CLASSES).fillna(0).astype(int)
    enough = patients.min(axis=1) >= least
    counts = patients.add_suffix(" patients").rename_axis(columns=None).reset_index()
    images = counts["magnification"].map(index["magnification"].value_counts())
    studied = np.where(enough, "yes", "no")
    return counts.assign(images=images.fillna(0).astype(int), studied=studied)


def patient_rows(predictions: pd.DataFrame, model: str, magnification="all") -> pd.DataFrame:
    """Return one row a patient, fold and seed: the mean p_malignant of its images.

    Rows of one ``model`` at one ``magnification``; the patient's name stands for image_id, so that
    scores of different images of a patient can be paired.
    """
    rows = predictions[predictions["model"] == model]
    if str(magnification) != ALL:
        rows = rows[rows["magnification"].astype(str) == str(magnification)]
    means = rows.groupby(PATIENT, as_index=False).agg(
        p_malignant=("p_malignant", "mean"), slide=("slide", "first"),
        tumor_type=("tumor_type", "first"),
    )  # fmt: skip
    return means.assign(image_id=means["accession"], magnification=ALL)


def compare_patients(predictions, a, b, metric="auc", n_boot=2000, seed=0) -> dict:
    """Return :func:`helpers.comparisons.compare` of ``a`` minus ``b`` on the patients of both.

    ``a`` and ``b`` are (model, magnification tested). ``predictions`` hold one task and protocol.
    """
    both = [
        patient_rows(predictions, *which).assign(model=name)
        for name, which in zip("ab", (a, b), strict=True)
    ]
    return compare(pd.concat(both), "a", "b", metric, "accession", n_boot=n_boot, seed=seed)


def compare_all(predictions, wanted, scored, n_boot=2000, seed=0) -> pd.DataFrame:
    """Return a row a possible comparison of a family, with p-values adjusted by :func:`holm`.

    ``wanted``: list of (words, a, b), see :func:`compare_patients`; those of which a or b is not in
    the set ``scored`` are left out. Columns: pair, value (of a minus b), ci_low, ci_high, p.
    """
    rows = [
        {"pair": words, **compare_patients(predictions, a, b, n_boot=n_boot, seed=seed)}
        for words, a, b in wanted
        if {a, b} <= scored
    ]
    columns = ["pair", "difference", "ci_low", "ci_high", "p_value", "n_groups"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p=holm(frame["p_value"])).rename(columns={"difference": "value"})


def score(predictions, notebook, least, n_boot=2000, seed=0) -> pd.DataFrame:
    """Return :func:`helpers.metrics.evaluate`'s rows, as far as they are :func:`presentable`."""
    fused = predictions["model"].isin(FUSIONS)
    whole = predictions["magnification"].astype(str).where(~fused, ALL)
    rows = evaluate(predictions.assign(magnification=whole), notebook, n_boot, seed)
    return presentable(rows, predictions, least)


def presentable(metrics: pd.DataFrame, predictions: pd.DataFrame, least: int) -> pd.DataFrame:
    """Return the rows of ``metrics`` that mean something.

    Out go scores of a model and magnification tested on fewer than ``least`` accessions of a class,
    and those of fused models at one magnification or on single images, for a fused score belongs
    to a patient.
    """
    keys = ["protocol", "model", "magnification"]
    both = pd.concat([predictions, predictions.assign(magnification=ALL)])
    both = both.assign(magnification=both["magnification"].astype(str))
    tested = both.pivot_table(
        index=keys, columns="tumor_class", values="accession", aggfunc="nunique", fill_value=0
    )
    enough = tested.reindex(columns=CLASSES, fill_value=0).min(axis=1) >= least
    metrics = metrics.assign(magnification=metrics["magnification"].astype(str))
    good = pd.MultiIndex.from_frame(metrics[keys]).isin(enough[enough].index)
    fused = metrics["model"].isin(FUSIONS)
    patient = metrics["magnification"].eq(ALL) & metrics["level"].ne("image")
    return metrics[good & (~fused | patient)].reset_index(drop=True)


def crossing(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return value, low and high: trained at (rows) by tested at (columns, with n patients).

    ``scores``: metric rows of one protocol, level and metric.
    """
    names = {single_model(m): f"{m}X" for m in MAGNIFICATIONS} | {"probe_all": "all"}
    scores = scores[scores["model"].isin(names) & scores["magnification"].ne(ALL)]
    tested = scores["magnification"].astype(int)
    n = scores.groupby(tested)["n_groups"].max()
    wide = scores.assign(tested=tested).pivot_table(
        index="model", columns="tested", values=["value", "ci_low", "ci_high"], dropna=False
    )
    labels = {m: f"{m}X\nn = {n[m]}" for m in n.index}
    order = [name for name in names if name in wide.index]
    found = {"value": "value", "low": "ci_low", "high": "ci_high"}
    return {
        key: wide[column].reindex(order).rename(index=names, columns=labels)
        for key, column in found.items()
    }


def beside_published(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return this run's rates of right images above the published ones, in percent.

    ``metrics`` hold the models of single magnifications and the pooled one, of several protocols.
    """
    kinds = {
        "one probe a magnification": {str(m): single_model(m) for m in MAGNIFICATIONS},
        "one probe for all": dict.fromkeys(literature.TESTED, "probe_all"),
    }
    ours = [
        literature.own_row(metrics, f"This run: {name}", models, protocol, level)
        for protocol in PROTOCOLS
        if protocol in set(metrics["protocol"])
        for level in ("slide", "image")
        for name, models in kinds.items()
    ]
    columns = ["method", "year", "level", "split", *literature.COLUMNS.values(), "pooled"]
    rows = pd.concat([pd.DataFrame(ours), literature.published()])
    return rows.reindex(columns=[*columns, "selection"]).replace("", None)


def own_scores(scores: pd.DataFrame) -> str:
    """Return the AUC of each model at its own magnification as text; empty where there is none.

    ``scores``: metric rows of one protocol, level and metric.
    """
    own = scores["magnification"].map({str(m): single_model(m) for m in MAGNIFICATIONS})
    rows = scores[scores["model"] == own].sort_values("magnification", key=lambda m: m.astype(int))
    return "; ".join(f"{row['magnification']}X {as_text(row)}" for _, row in rows.iterrows())


def tell(family: pd.DataFrame) -> str:
    """Say how many comparisons of a ``family``, from :func:`compare_all`, differ from zero."""
    clear, low, high = (family["p"] < 0.05).sum(), family["value"].min(), family["value"].max()
    return (
        f"{family['family'].iloc[0]}: {clear} of {len(family)} differences in AUC can be told from "
        f"zero (adjusted p < 0.05); they reach from {low:+.2f} to {high:+.2f}."
    )


def headline(scores: pd.DataFrame, protocol: str) -> dict | None:
    """Return the score over all magnifications that stands for the notebook, or None without one.

    It is that of the pooled model, else of the first model in the alphabet. ``scores``: as in
    :func:`own_scores`.
    """
    whole = scores[scores["magnification"] == ALL].sort_values("model")
    if "probe_all" in set(whole["model"]):
        whole = whole[whole["model"] == "probe_all"]
    if whole.empty:
        return None
    row = whole.iloc[0]
    numbers = {key: float(row[key]) for key in ("value", "ci_low", "ci_high")}
    return {"label": f"AUC of patients, {spell(row['model'])}, {label(protocol)}", **numbers}
