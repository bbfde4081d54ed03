"""The folder of images that a run works on: found, indexed, described, and opened again.

``python -m helpers.data DIR [--json]`` compares a folder with the database.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers.data.counts import is_whole
from helpers.data.images import list_images, parallel, read_regular, relative
from helpers.data.index import INDEX_COLUMNS, examine, is_phantom
from helpers.data.names import (
    BENIGN,
    MAGNIFICATIONS,
    MALIGNANT,
    SIZES,
    TUMOR_TYPES,
    TYPE_NAMES,
    parse_name,
    slide_table,
)
from helpers.results import ROOT, read_json, read_table, resolve

__all__ = [
    "BENIGN", "INDEX_COLUMNS", "MAGNIFICATIONS", "MALIGNANT", "ROOT", "TUMOR_TYPES", "TYPE_NAMES",
    "Run", "build_index", "data_facts", "describe", "find_data", "fingerprint", "open_run",
    "parse_name", "slide_table",
]  # fmt: skip


class Run(NamedTuple):
    """What a notebook works on: the data folder, its index, and how to label results."""

    folder: Path
    index: pd.DataFrame
    kind: str
    badge: str


def find_data(path: str | Path, phantom: Callable[[], Path]) -> Path:
    """Return the folder of images: ``path``, BREAKHIS_DIR, data/BreaKHis_v1, or the phantom.

    A folder that is named but missing is an error; it is never replaced by the phantom.
    """
    named = {"DATA": str(path), "BREAKHIS_DIR": os.environ.get("BREAKHIS_DIR", "")}
    for origin, name in named.items():
        if name:
            folder = resolve(Path(name).expanduser()).resolve()
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{origin} names {name}, but there is no folder {folder}. Name a folder that "
                    f"holds BreakHis images, or leave {origin} empty."
                )
            print(f"Images: the folder {folder.name}, named by {origin}.")
            return folder
    folder = ROOT / "data" / "BreaKHis_v1"
    if folder.is_dir():
        print("Images: data/BreaKHis_v1.")
        return folder.resolve()
    print("No BreakHis images here: working on the phantom, synthetic images that are not tissue.")
    return resolve(phantom())


def build_index(folder: str | Path, on_bad: str = "stop") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every image below ``folder`` and return (index, problems).

    index: a row an image, ordered by image_id, columns ``INDEX_COLUMNS``; duplicate_of names the
    first image with the same pixels, else it is empty. problems: path, kind (``bad``, ``foreign``
    or ``note``) and reason. With ``on_bad="stop"`` a bad or foreign file is a ValueError that lists
    them; with ``"drop"`` they are left out of the index and stay among the problems.
    """
    if on_bad not in ("stop", "drop"):
        raise ValueError(f"on_bad is {on_bad!r}; allowed are 'stop' and 'drop'.")
    folder = resolve(folder)
    index, problems = examine(folder)
    stops = problems[problems["kind"] != "note"]
    if on_bad == "stop" and len(stops):
        raise ValueError(
            f"{len(stops)} files below {folder} are not sound BreakHis images:\n{_lines(stops)}\n"
            "Repair or remove them, or set ON_BAD = 'drop' to go on without them."
        )
    if index.empty:
        raise ValueError(f"No usable BreakHis image below {folder}.\n{_lines(stops)}".rstrip())
    return index, problems


def _lines(problems: pd.DataFrame, limit: int = 20) -> str:
    lines = [f"  {row.path}: {row.reason}" for row in problems.head(limit).itertuples()]
    if len(problems) > limit:
        lines.append(f"  and {len(problems) - limit} more")
    return "\n".join(lines)


def describe(folder: str | Path, index: pd.DataFrame, n_dropped: int = 0) -> dict:
    """Say what the images are: phantom, a sample of BreakHis or the whole database, and counts.

    Returns kind, n_images, n_slides, n_accessions, and badge: the label that every figure and table
    carries. ``n_dropped`` counts bad files left out; the badge then says so.
    """
    images, slides, accessions = (index[c].nunique() for c in ("image_id", "slide", "accession"))
    if is_phantom(resolve(folder), index):
        kind, badge = "phantom", f"Phantom: {images:,} synthetic images, not tissue"
    elif is_whole(index):
        kind, badge = "database", f"BreakHis, whole database: {images:,} images"
    else:
        kind = "sample"
        badge = f"BreakHis sample: {images:,} real images of {slides} slides, "
        badge += f"{accessions} accessions"
    sizes = set(zip(index["width_px"], index["height_px"], strict=True))
    if kind != "phantom" and not sizes & set(SIZES):
        width, height = sizes.pop()
        badge += f", resized to {width}x{height} px"
    if n_dropped:
        badge += f", {n_dropped} bad {'file' if n_dropped == 1 else 'files'} left out"
    counts = {"n_images": images, "n_slides": slides, "n_accessions": accessions}
    return {"kind": kind, **counts, "badge": badge}


def fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over the sorted (relative path, SHA-256 of the bytes) of all images."""
    folder = resolve(folder)
    files, _ = list_images(folder)
    hashes = parallel(_file_hash, files, "Hashing files")
    digest = hashlib.sha256()
    for file, code in zip(files, hashes, strict=True):
        digest.update(f"{relative(file, folder)}\t{code}\n".encode())
    return digest.hexdigest()


def _file_hash(file: Path) -> str:
    try:
        return hashlib.sha256(read_regular(file)).hexdigest()
    except OSError:
        return "unreadable"


def _stamp(folder: Path) -> str:
    """Return a hash of names, sizes and times of the images: quick, and any change shows."""
    digest = hashlib.sha256()
    for file in list_images(folder)[0]:
        status = file.lstat()
        digest.update(f"{relative(file, folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def data_facts(folder: str | Path, index: pd.DataFrame, n_dropped: int = 0) -> dict:
    """Return the content of ``data.json``: the folder, what it is, and its fingerprint.

    A folder inside the repository is stored relative to its root, so that a clone can move.
    """
    folder = resolve(folder).resolve()
    inside = folder.is_relative_to(ROOT)
    place = folder.relative_to(ROOT).as_posix() if inside else str(folder)
    codes = {"fingerprint": fingerprint(folder), "stamp": _stamp(folder)}
    return {"folder": place, **describe(folder, index, n_dropped), "n_dropped": n_dropped, **codes}


def open_run(results: str | Path) -> Run:
    """Load what notebook 01 found: every later notebook starts here.

    Raises FileNotFoundError where 01 did not run or the images are gone, and ValueError where the
    images are no longer those that 01 indexed.
    """
    index = read_table(results, "index.csv")
    facts = read_json(results, "data.json")
    folder = resolve(facts["folder"])
    gone = sum(not (folder / path).is_file() for path in index["path"])
    if gone:
        raise FileNotFoundError(
            f"{gone} of the {len(index)} images that 01_eda indexed are no longer in {folder}. "
            "Put the data back, or run 01_eda again."
        )
    if _stamp(folder) != facts["stamp"] and fingerprint(folder) != facts["fingerprint"]:
        raise ValueError(
            f"The images in {folder} are not those that 01_eda indexed: run 01_eda again."
        )
    return Run(folder, index, facts["kind"], facts["badge"])
