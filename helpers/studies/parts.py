"""Results of notebook 05 computed in parts: put together, checked, and what is missing."""

import pandas as pd

from helpers.results import read_table
from helpers.studies.fusion import FUSIONS

KEYS = ["task", "protocol", "model", "fold", "seed", "image_id"]
TOLERANCE = 1e-3  # two machines may differ in the last digits of a probability, not by more


def tidy(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return ``predictions`` in the order of task, protocol, model, fold, seed and image.

    The order makes tables that hold the same rows the same, whatever run wrote which of them.
    """
    return predictions.sort_values(KEYS, kind="stable", ignore_index=True)


def combine(folders: list[str], name: str) -> pd.DataFrame:
    """Return the rows of table ``name`` in all result ``folders``, each prediction once.

    Raises FileNotFoundError for a folder without the table, and ValueError where two folders hold
    different probabilities for the same model, fold and image.
    """
    frames = [read_table(folder, name).assign(folder=folder) for folder in folders]
    rows = pd.concat(frames, ignore_index=True)
    groups = rows.groupby(KEYS)["p_malignant"]
    far = groups.transform("max") - groups.transform("min") > TOLERANCE
    if far.any():
        odd = rows[far]
        models = ", ".join(sorted(odd["model"].unique()))
        places = ", ".join(sorted(odd["folder"].unique()))
        raise ValueError(
            f"{name}: {places} hold different predictions of {models} for the same images and "
            f"folds. Combine runs of one setting: same splits, images, SEED and IMAGE_SIZE."
        )
    return tidy(rows.drop_duplicates(KEYS).drop(columns="folder"))


def check_roles(predictions: pd.DataFrame, splits: pd.DataFrame, role: str) -> None:
    """Raise ValueError unless each prediction is on an image that ``splits`` give that ``role``.

    It catches a part that was run on another split, whose test images this run has trained on.
    """
    keys = ["image_id", "protocol", "fold"]
    known = splits.loc[splits["role"] == role, keys]
    merged = predictions[keys].drop_duplicates().merge(known, on=keys, how="left", indicator=True)
    wrong = merged[merged["_merge"] == "left_only"]
    if len(wrong):
        first = wrong.iloc[0]
        raise ValueError(
            f"{len(wrong)} predictions are on images that splits.csv does not call {role}; the "
            f"first is {first['image_id']} in {first['protocol']} fold {first['fold']}. The parts "
            f"must come from runs with the same splits.csv."
        )


def combine_runs(folders: list[str], notebook: str, splits: pd.DataFrame):
    """Return (test predictions, validation predictions) of a notebook's runs in ``folders``.

    Fused models are left out, for they are to be fused anew. Raises what :func:`combine` and
    :func:`check_roles` raise.
    """
    tested = combine(folders, f"predictions/{notebook}.parquet")
    tested = tested[~tested["model"].isin(FUSIONS)].reset_index(drop=True)
    held = combine(folders, f"validation/{notebook}.parquet")
    check_roles(tested, splits, "test")
    check_roles(held, splits, "val")
    return tested, held


def coverage(predictions: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Return a row a model and protocol: the folds it was tested in, and those still missing."""
    rows = []
    for (protocol, model), part in predictions.groupby(["protocol", "model"]):
        wanted = set(splits.loc[splits["protocol"] == protocol, "fold"])
        missing = sorted(wanted - set(part["fold"]))
        rows.append({
            "protocol": protocol,
            "model": model,
            "folds": part["fold"].nunique(),
            "missing": ", ".join(map(str, missing)) or "none",
            "images": part["image_id"].nunique(),
        })  # fmt: skip
    return pd.DataFrame(rows)
