"""Eight tumour types: what can be judged, flat and two-level classifiers, confusion."""

import numpy as np
import pandas as pd

from helpers.comparisons import compare
from helpers.data import BENIGN, MALIGNANT, TUMOR_TYPES, TYPE_NAMES
from helpers.metrics import P_TYPES, as_text
from helpers.probe import fit_probe, predict


def type_counts(index: pd.DataFrame, folds: list, least: int) -> pd.DataFrame:
    """Return a row a type, indexed by its code: accessions, slides, images, folds that test it.

    ``folds``: from :func:`helpers.splits.fold_rows`. ``can be judged`` is "yes" from ``least``
    accessions on.
    """
    counts = index.groupby("tumor_type").agg(
        accessions=("accession", "nunique"),
        slides=("slide", "nunique"),
        images=("image_id", "size"),
    )
    counts = counts.reindex(TUMOR_TYPES).fillna(0).astype(int)
    tested = [set(index["tumor_type"].iloc[test]) for *_, test in folds]
    counts["folds that test it"] = [sum(name in there for there in tested) for name in TUMOR_TYPES]
    counts["can be judged"] = np.where(counts["accessions"] >= least, "yes", "no")
    counts.insert(0, "type", [f"{name}, {TYPE_NAMES[name]}" for name in TUMOR_TYPES])
    return counts


def forewarnings(counts: pd.DataFrame, left_out: int) -> str:
    """Return what follows from :func:`type_counts` before any result, as a list in Markdown.

    ``left_out``: the number of images that are filed under two types.
    """
    few = counts.loc[counts["can be judged"] == "no", "accessions"]
    lines = [
        f"**{TYPE_NAMES[name].capitalize()}**, patients: {n}. Nothing can be concluded about it "
        "here, whatever its recall."
        for name, n in few.items()
    ]
    lines += [
        f"{TYPE_NAMES[name].capitalize()} has one patient: when that one is tested, none is left "
        "to learn from, so it is never right, by construction."
        for name in few.index[few == 1]
    ]
    if left_out:
        lines.append(f"{left_out} images are filed under two types and left out.")
    return "\n".join(f"- {line}" for line in lines) or "Every type has patients enough."


def in_order(p: np.ndarray, classes) -> np.ndarray:
    """Return ``p`` (n, k) as (n, 8) in the order of TUMOR_TYPES; types not in ``classes`` get 0."""
    out = np.zeros((len(p), len(TUMOR_TYPES)))
    out[:, [TUMOR_TYPES.index(name) for name in classes]] = p
    return out


def flat(x, types, accession, x_test, **options) -> np.ndarray:
    """Fit one softmax over the types and return their probabilities, float64 (n_test, 8).

    ``x``: (n, d) features or (n, views, d); ``types``: (n,) codes as in TUMOR_TYPES; ``options`` go
    to :func:`helpers.probe.fit_probe`. Types and patients weigh equally. A type without training
    images gets 0.
    """
    if len(np.unique(types)) < 2:
        return in_order(np.ones((len(x_test), 1)), np.unique(types))
    fitted = fit_probe(x, types, accession, **options)
    return in_order(predict(fitted, x_test), fitted.classes)


def two_level(x, types, accession, x_test, **options) -> np.ndarray:
    """Fit malignancy, then the type within each class; return P(type), float64 (n_test, 8).

    P(type) = P(class) P(type | class), so the malignant types add up to the P(malignant) of the
    upper level. Arguments as in :func:`flat`; both classes must be there.
    """
    types, accession = np.asarray(types), np.asarray(accession)
    malignant = np.isin(types, MALIGNANT)
    upper = predict(fit_probe(x, malignant, accession, **options), x_test)
    out = np.zeros((len(x_test), len(TUMOR_TYPES)))
    for level, inside in enumerate((~malignant, malignant)):
        lower = flat(x[inside], types[inside], accession[inside], x_test, **options)
        out += upper[:, level : level + 1] * lower
    return out


def malignant_share(p: np.ndarray) -> np.ndarray:
    """Return the probability of the malignant types, float64 (n,), from ``p`` (n, 8)."""
    return np.clip(p[:, len(BENIGN) :].sum(1), 0, 1)


def called(predictions: pd.DataFrame, unit: str = "image") -> pd.DataFrame:
    """Return one row a unit with ``true`` and ``called`` type, from tumor_type predictions.

    ``unit`` is ``image`` or ``accession``; at accession level the images of one type of an
    accession are averaged, and the largest mean decides. Repeats and seeds are averaged first.
    """
    keys = ["accession", "tumor_type"] + ["image_id"] * (unit == "image")
    rows = predictions.assign(**predictions[P_TYPES].astype(float).round(12))
    means = rows.groupby(keys)[P_TYPES].mean().round(12).reset_index()
    names = np.array(TUMOR_TYPES)[means[P_TYPES].to_numpy().argmax(1)]
    return means.assign(true=means["tumor_type"], called=names)


def by_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row a true type and accession: images, how many are right, what they are called.

    ``rows``: from :func:`called` on images. ``called as`` reads "3 A, 1 DC".
    """
    rows = rows.assign(right=rows["true"] == rows["called"])
    groups = rows.groupby(["true", "accession"])
    table = groups["right"].agg(images="size", right="sum")
    table["called as"] = groups["called"].agg(
        lambda names: ", ".join(f"{n} {name}" for name, n in names.value_counts().items())
    )
    return table.reset_index()


def confusion(rows: pd.DataFrame) -> np.ndarray:
    """Return counts, int (8, 8): true type by called type, from the rows of :func:`called`."""
    table = np.zeros((len(TUMOR_TYPES), len(TUMOR_TYPES)), int)
    pairs = zip(
        rows["true"].map(TUMOR_TYPES.index), rows["called"].map(TUMOR_TYPES.index), strict=True
    )
    for true, named in pairs:
        table[true, named] += 1
    return table


def crossings(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the confusions that cross malignancy, most frequent first.

    ``rows``: from :func:`called` on images. Columns: true, called, kind (``missed cancer`` or
    ``false alarm``), images, share (of the images of the true type), accessions.
    """
    missed = rows["true"].isin(MALIGNANT) & rows["called"].isin(BENIGN)
    alarm = rows["true"].isin(BENIGN) & rows["called"].isin(MALIGNANT)
    found = rows[missed | alarm].assign(
        kind=np.where(missed, "missed cancer", "false alarm")[missed | alarm]
    )
    table = found.groupby(["true", "called", "kind"], as_index=False).agg(
        images=("image_id", "size"), accessions=("accession", "nunique")
    )
    share = table["images"] / table["true"].map(rows["true"].value_counts())
    table.insert(4, "share", share)
    return table.sort_values(
        ["images", "true", "called"], ascending=[False, True, True], ignore_index=True
    )


def recalls(metrics: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """Return the recalls among ``metrics`` of the types that can be judged, in words, to plot.

    ``counts``: from :func:`type_counts`. Adds type ("fibroadenoma (n = 10)"), spells level out and
    sorts by type.
    """
    judged = counts.index[counts["can be judged"] == "yes"]
    rows = metrics.assign(code=metrics["metric"].str.extract(r"^recall_(\w+)$", expand=False))
    rows = rows[rows["code"].isin(judged)]
    rows = rows.sort_values("code", key=lambda codes: codes.map(TUMOR_TYPES.index), kind="stable")
    names = [f"{TYPE_NAMES[c]} (n = {counts['accessions'][c]})" for c in rows["code"]]
    level = rows["level"].replace({"image": "Images", "accession": "Patients"})
    return rows.assign(type=names, level=level)


def paired(predictions: pd.DataFrame, keys: list[tuple], **boot) -> pd.DataFrame:
    """Return :func:`helpers.comparisons.compare` for each of ``keys``, a row each.

    A key is (model, minus, metric, level); ``boot`` holds n_boot and seed.
    """
    rows = [compare(predictions, *key, **boot) for key in keys]
    names = ["model", "minus", "metric", "level"]
    return pd.DataFrame(keys, columns=names).join(pd.DataFrame(rows))


def say(metrics: pd.DataFrame, model: str, metric: str, level: str = "accession") -> str:
    """Write one metric of a model with its interval, or say that it is undefined."""
    rows = metrics.query("model == @model and metric == @metric and level == @level")
    return as_text(rows.iloc[0]) if len(rows) else "undefined"
