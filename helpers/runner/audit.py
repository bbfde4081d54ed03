"""Checks on a finished run, on its tables alone, independent of the code that made them."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd

from helpers.data import find_data, fingerprint
from helpers.data.images import list_images, relative
from helpers.results import read_json, read_table, resolve
from helpers.splits import check_disjoint

PHANTOM = "no images"  # stands for the phantom in `source`
LEAVE_ONE_OUT = "leave_one_out"  # notebook 06, for types of too few accessions: not in splits.csv


def source(path):
    """The folder that notebook 01 would choose for its parameter DATA; None: the phantom.

    FileNotFoundError where a folder is named that is not there.
    """
    with redirect_stdout(io.StringIO()):
        folder = find_data(path, lambda: PHANTOM)
    return None if folder == resolve(PHANTOM) else folder


def data_of(results, path=None):
    """Fingerprint of the images that 01 found (data.json); None where there are none, or others.

    path: the parameter DATA; where it is given, the folder must be the one that 01 would choose.
    """
    if not Path(results, "data.json").exists():
        return None
    facts = read_json(results, "data.json")
    folder = resolve(facts["folder"]).resolve()
    if path is not None:
        chosen = source(path)
        if facts["kind"] != "phantom" if chosen is None else folder != chosen:
            return None
    return fingerprint(folder) if folder.is_dir() else None


def changed_images(results):
    """In a sentence, what differs between the folder of images and what 01 found in it."""
    facts = read_json(results, "data.json")
    folder = resolve(facts["folder"])
    if not folder.is_dir():
        return f"there is no folder {folder} any more."
    known = set(read_table(results, "index.csv")["path"])
    if Path(results, "problems.csv").exists():
        known |= set(read_table(results, "problems.csv")["path"])
    there = {relative(path, folder) for path in list_images(folder)[0]}
    gone, new = sorted(known - there), sorted(there - known)
    parts = [
        f"{kind} images: {len(names)}, the first {names[0]}"
        for kind, names in (("missing", gone), ("new", new))
        if names
    ]
    return f"{'; '.join(parts) or 'files have other content'} (folder {folder.name})."


def public(results):
    """What run.json says of the data: kind, badge and counts, but no path."""
    if not Path(results, "data.json").exists():
        return {}
    facts = read_json(results, "data.json")
    return {name: value for name, value in facts.items() if name not in ("folder", "stamp")}


def check_tables(results):
    """Verify splits and predictions of a run; ValueError names what leaks. Does nothing before 02.

    Every protocol keeps its promise on the table of splits, every prediction is on an image that
    its fold tests, and no table in validation/ holds such an image.
    """
    if not Path(results, "splits.csv").exists():
        return
    index, splits = read_table(results, "index.csv"), read_table(results, "splits.csv")
    for protocol in splits["protocol"].unique():
        check_disjoint(index, splits, protocol)
    for path in sorted(Path(results, "predictions").glob("*.parquet")):
        check_predictions(pd.read_parquet(path), index, splits, path.stem)
    for path in sorted(Path(results, "validation").glob("*.parquet")):
        check_validation(pd.read_parquet(path), splits, f"validation/{path.stem}")


def check_predictions(predictions, index, splits, name):
    """ValueError where `predictions` holds an image that its model may have seen.

    That is one that its fold does not test, or any under a protocol that the table of splits does
    not have. Under LEAVE_ONE_OUT each fold must be a single accession.
    """
    unknown = set(predictions["protocol"]) - set(splits["protocol"]) - {LEAVE_ONE_OUT}
    if unknown:
        raise ValueError(
            f"{name}: predictions under {', '.join(sorted(unknown))}, which splits.csv does not "
            "have: nothing says which images its models have seen"
        )
    single = predictions["protocol"] == LEAVE_ONE_OUT
    check_single(predictions.loc[single, ["image_id", "fold"]], index, name)
    check_roles(predictions.loc[~single], splits, ["test"], f"{name}: {{}} predictions are")


def check_validation(validation, splits, name):
    """ValueError where `validation` holds an image that its fold tests, or that splits lacks.

    Models, temperatures and thresholds are chosen by these tables, so test images must not be in.
    """
    check_roles(validation, splits, ["train", "val"], f"{name}: {{}} scores are")


def check_roles(table, splits, roles, subject):
    """ValueError unless each row of `table` is on an image with one of these roles in its fold.

    The message begins with `subject`, in which {} stands for the number of other rows.
    """
    keys = ["image_id", "protocol", "fold"]
    joined = table[keys].astype({"fold": int})
    joined = joined.merge(splits[[*keys, "role"]], on=keys, how="left").fillna({"role": "none"})
    wrong = joined[~joined["role"].isin(roles)]
    if len(wrong):
        first = wrong.iloc[0]
        raise ValueError(
            f"{subject.format(len(wrong))} not on {' or '.join(roles)} images, the first on "
            f"{first['image_id']} ({first['protocol']}, fold {first['fold']}, role {first['role']})"
        )


def check_single(predictions, index, name):
    """ValueError where a fold of `predictions` holds more than one accession of `index`."""
    accession = predictions["image_id"].map(index.set_index("image_id")["accession"])
    if accession.isna().any():
        stranger = predictions.loc[accession.isna(), "image_id"].iloc[0]
        raise ValueError(f"{name}: {stranger} ({LEAVE_ONE_OUT}) is not in index.csv")
    for fold, names in accession.groupby(predictions["fold"]):
        if len(set(names)) > 1:
            raise ValueError(
                f"{name}: fold {fold} of {LEAVE_ONE_OUT} holds {len(set(names))} accessions: "
                f"{', '.join(sorted(set(names))[:5])}"
            )
