"""The index: every image below a folder decoded, its name read, and what is wrong left out."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.counts import compare, tell
from helpers.data.images import (
    list_images,
    marked_phantom,
    parallel,
    pixel_hash,
    read_rgb,
    relative,
)
from helpers.data.names import SIZES, parse_name, slide_table

INDEX_COLUMNS = [
    "image_id", "path", "tumor_class", "tumor_type", "slide", "accession", "magnification",
    "sequence", "width_px", "height_px", "pixel_sha256", "duplicate_of",
]  # fmt: skip


def examine(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every image below ``folder``. Returns (index of the sound images, problems).

    index: a row an image, ordered by image_id, columns ``INDEX_COLUMNS``; duplicate_of names the
    first image with the same pixels, else it is empty. problems: path, kind and reason; kind is
    ``bad`` (not a sound image), ``foreign`` (not of this database, or of a slide with more images
    than the database has) or ``note`` (a copy).
    """
    files, refused = list_images(folder)
    slides = set(slide_table()["slide"])
    found = parallel(lambda file: _examine_file(file, folder, slides), files, "Reading images")
    problems = [(path, "bad", reason) for path, reason in refused]
    problems += [row for row in found if isinstance(row, tuple)]
    rows = pd.DataFrame([row for row in found if isinstance(row, dict)], columns=INDEX_COLUMNS)
    rows, wrong = _check_sizes(rows, folder)
    index, copies = _merge_copies(rows)
    index, surplus = _refuse_surplus(index, folder)
    first = index.groupby("pixel_sha256")["image_id"].transform("first")
    index["duplicate_of"] = first.where(first != index["image_id"], "").astype(str)
    columns = ["path", "kind", "reason"]
    problems = pd.DataFrame(problems + wrong + copies + surplus, columns=columns, dtype=str)
    return index, problems.sort_values("path", ignore_index=True)


def _examine_file(file: Path, folder: Path, slides: set[str]) -> dict | tuple[str, str, str]:
    path = relative(file, folder)
    try:
        row = parse_name(file.stem)
    except ValueError as error:
        return path, "foreign", str(error)
    if row["slide"] not in slides:
        return path, "foreign", f"the database has no slide {row['slide']}"
    try:
        path.encode()
        pixels = np.asarray(read_rgb(file))
    except ValueError as error:
        return path, "bad", str(error)
    height, width = pixels.shape[:2]
    return row | {
        "path": path, "width_px": width, "height_px": height, "pixel_sha256": pixel_hash(pixels)
    }  # fmt: skip


def _check_sizes(rows: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, list[tuple]]:
    """Leave out images of a wrong size; a phantom or a resized copy has one size of its own."""
    sizes = pd.Series(list(zip(rows["width_px"], rows["height_px"], strict=True)), rows.index)
    right = sizes.isin(SIZES)
    if not right.any() and (len(rows) >= 10 or (len(rows) and is_phantom(folder, rows))):
        usual = sizes == sizes.mode()[0]
        right = usual if usual.mean() > 0.5 else right
    wrong = [
        (path, "bad", f"{width}x{height} px, not 700x460 or 700x456 px")
        for path, (width, height) in zip(rows["path"][~right], sizes[~right], strict=True)
    ]
    return rows[right], wrong


def _merge_copies(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple]]:
    """Keep one of several files that hold one image; refuse one name on different images."""
    rows = rows.sort_values(["image_id", "path"], ignore_index=True)
    clash = rows.groupby("image_id")["pixel_sha256"].transform("nunique") > 1
    problems = [
        (path, "bad", "another file of this name holds different pixels")
        for path in rows["path"][clash]
    ]
    rows = rows[~clash]
    again = rows.duplicated("image_id")
    first = rows.groupby("image_id")["path"].transform("first")
    for path, kept in zip(rows["path"][again], first[again], strict=True):
        problems.append((path, "note", f"a copy of {kept}, counted once"))
    return rows[~again].reset_index(drop=True), problems


def _refuse_surplus(index: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, list[tuple]]:
    """Leave out the images of a slide at a magnification where there are more than published.

    Some of them are not of this database, and nothing tells which. A phantom may have any number.
    """
    counts = compare(index)
    counts = counts[counts["found"] > counts["published"]]
    if counts.empty or is_phantom(folder, index):
        return index, []
    reasons = {(r["slide"], r["magnification"]): tell(r) for r in counts.to_dict("records")}
    cells = list(zip(index["slide"], index["magnification"].astype(int), strict=True))
    over = np.array([cell in reasons for cell in cells])
    problems = [
        (path, "foreign", reasons[cell])
        for path, cell, wrong in zip(index["path"], cells, over, strict=True)
        if wrong
    ]
    return index[~over].reset_index(drop=True), problems


def is_phantom(folder: Path, index: pd.DataFrame) -> bool:
    """Return whether any image is synthetic: by the mark in it, or by a phantom.json around it."""
    parents = (folder, *folder.parents[:4])
    return any((parent / "phantom.json").is_file() for parent in parents) or any(
        marked_phantom(folder / path) for path in index["path"]
    )
