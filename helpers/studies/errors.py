"""Where a model errs: by patient, by slide, by slice of the data, and in which images.

All intervals are 95%, from a bootstrap over accessions.
"""

import numpy as np
import pandas as pd

from helpers.bootstrap import mean_interval
from helpers.results import IMAGE_FACTS


def of_model(predictions: pd.DataFrame, model: str, protocol: str = "accession") -> pd.DataFrame:
    """Return the rows of one model for malignancy; ValueError that lists the models if none."""
    task = predictions["task"].eq("malignancy") & predictions["protocol"].eq(protocol)
    mine = predictions[task & predictions["model"].eq(model)]
    if mine.empty:
        known = ", ".join(sorted(predictions.loc[task, "model"].unique()))
        raise ValueError(f"MODEL = {model!r} has no {protocol} predictions; there are: {known}.")
    return mine.reset_index(drop=True)


def per_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an image of one model's predictions: mean over seeds and repeats.

    Adds truth (1: malignant), error = |p_malignant - truth| and wrong (decided at 0.5). fold is the
    first in which the image was tested.
    """
    frame = rows.groupby(IMAGE_FACTS, as_index=False).agg(
        fold=("fold", "min"), p_malignant=("p_malignant", "mean")
    )
    truth = frame["tumor_class"].eq("malignant").astype(int)
    error = (frame["p_malignant"] - truth).abs()
    return frame.assign(truth=truth, error=error, wrong=(frame["p_malignant"] >= 0.5) != truth)


def titles(frame: pd.DataFrame) -> list[str]:
    """Return a title for each image of ``per_image``: patient, type, magnification, score."""
    return [
        f"{row.accession} ({row.tumor_type}), {row.magnification}X\n"
        f"p = {row.p_malignant:.2f}, {'wrong' if row.wrong else 'right'}"
        for row in frame.itertuples()
    ]


def per_group(frame: pd.DataFrame, by: str = "accession") -> pd.DataFrame:
    """Return one row a patient or slide of ``per_image``: worst first.

    p_malignant is the mean of its images, wrong_images the share decided wrongly. A patient filed
    under two types has both, as ``DC/LC``.
    """
    groups = frame.groupby(by, as_index=False).agg(
        accession=("accession", "first"),
        tumor_class=("tumor_class", "first"),
        tumor_type=("tumor_type", lambda types: "/".join(sorted(set(types)))),
        truth=("truth", "first"),
        n_images=("image_id", "size"),
        wrong_images=("wrong", "mean"),
        p_malignant=("p_malignant", "mean"),
    )
    groups["error"] = (groups["p_malignant"] - groups["truth"]).abs()
    groups["wrong"] = (groups["p_malignant"] >= 0.5) != groups["truth"]
    return groups.sort_values(["error", by], ascending=[False, True], ignore_index=True)


def summary(frame: pd.DataFrame, patients: pd.DataFrame, model: str) -> str:
    """Return one sentence on ``per_image`` and ``per_group``: what was tested, what went wrong."""
    return (
        f"Model `{model}`: {len(frame):,} test images of {len(patients)} patients, "
        f"{patients['truth'].eq(0).sum()} of them benign. At 0.5, {frame['wrong'].sum():,} images "
        f"and {patients['wrong'].sum()} patients are decided wrongly."
    )


def worst_images(frame: pd.DataFrame, patients: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the ``n`` images with the largest error of each of ``patients``, in their order."""
    order = dict(zip(patients["accession"], range(len(patients)), strict=True))
    part = frame[frame["accession"].isin(order)].sort_values("error", ascending=False)
    part = part.groupby("accession").head(n)
    return part.sort_values("accession", key=lambda names: names.map(order), kind="stable")


def share_of_errors(frame: pd.DataFrame, patients: pd.DataFrame) -> float:
    """Return the share of all wrong images of ``per_image`` that these ``patients`` hold."""
    wrong = frame.loc[frame["wrong"], "accession"]
    return float(wrong.isin(patients["accession"]).mean()) if len(wrong) else 0.0


def sister_slides(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``per_group`` by slide with the share of wrong images on the patient's other slides.

    sister_slides_wrong is NaN where the patient has one slide only.
    """
    slides = per_group(frame, "slide")
    counts = slides.assign(wrong=slides["wrong_images"] * slides["n_images"])
    others = counts.groupby("accession")[["wrong", "n_images"]].transform("sum")
    others -= counts[["wrong", "n_images"]]
    share = others["wrong"] / others["n_images"].replace(0, np.nan)
    columns = ["slide", "accession", "n_images", "p_malignant", "wrong_images"]
    return slides[columns].assign(sister_slides_wrong=share)


def decisions_by_type(frame: pd.DataFrame, types: list[str]) -> np.ndarray:
    """Return counts (types, 2): of each type, rows of ``frame`` called benign and malignant."""
    called = frame["p_malignant"] >= 0.5
    return np.array([
        [(frame["tumor_type"].eq(name) & called.eq(answer)).sum() for answer in (False, True)]
        for name in types
    ])  # fmt: skip


def by_magnification(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``per_image`` by magnification and class, which are spelt out in ``at``, ``truth``."""
    frame = frame.sort_values(["magnification", "tumor_class"])
    at, truth = frame["magnification"].map("{}X".format), "truly " + frame["tumor_class"]
    return frame.assign(at=at, truth=truth)


def error_rates(frame: pd.DataFrame, by: list[str], **boot) -> tuple[pd.DataFrame, list[str]]:
    """Return the share of images decided wrongly in each slice ``by``, and the slices left out.

    Each rate has its interval and n's, in the order of ``frame``. Slices of a single patient are
    left out: the rate of one patient says nothing of the slice.
    """
    rows, alone = [], []
    for key, part in frame.groupby(by, sort=False):
        interval = mean_interval(part["wrong"].to_numpy(float), part["accession"], **boot)
        if interval["n_groups"] > 1:
            rows.append(dict(zip(by, key, strict=True)) | interval)
        else:
            alone.append(" ".join(map(str, key)))
    return pd.DataFrame(rows), alone


def judged(curve, frame: pd.DataFrame, **boot) -> pd.DataFrame:
    """Return ``curve(p, truth)`` of ``per_image`` or ``per_group``; with ``boot``, intervals."""
    groups = {"accession": frame["accession"], **boot} if boot else {}
    return curve(frame["p_malignant"], frame["truth"], **groups)


def draw(frame: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Return ``n`` images of ``per_image`` at random: half of each class, patients in turn.

    A second image of a patient is taken only when each patient of the class has given one.
    """
    mixed = frame.sample(frac=1, random_state=seed)
    mixed = mixed.assign(turn=mixed.groupby("accession").cumcount())
    mixed = mixed.sort_values("turn", kind="stable").drop(columns="turn")
    halves = [part.head(n // 2) for _, part in mixed.groupby("tumor_class")]
    return pd.concat(halves).sort_index()


def clearest(frame: pd.DataFrame, wrong: bool, n: int) -> pd.DataFrame:
    """Return the ``n`` images decided with most certainty, wrong or right, one a patient."""
    part = frame[frame["wrong"] == wrong].assign(certainty=lambda f: (f["p_malignant"] - 0.5).abs())
    part = part.sort_values(["certainty", "image_id"], ascending=[False, True])
    return part.drop_duplicates("accession").head(n)
