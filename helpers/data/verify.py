"""Is a folder BreakHis? Every image decoded, every name and count compared with the database.

``python -m helpers.data DIR`` prints the result of :func:`verify`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.images import (
    list_images,
    marked_phantom,
    parallel,
    pixel_hash,
    read_rgb,
    relative,
)
from helpers.data.names import MAGNIFICATIONS, N_IMAGES, SIZES, parse_name, slide_table

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
    reasons = {(r["slide"], r["magnification"]): _count(r) for r in counts.to_dict("records")}
    cells = list(zip(index["slide"], index["magnification"].astype(int), strict=True))
    over = np.array([cell in reasons for cell in cells])
    problems = [
        (path, "foreign", reasons[cell])
        for path, cell, wrong in zip(index["path"], cells, over, strict=True)
        if wrong
    ]
    return index[~over].reset_index(drop=True), problems


def is_whole(index: pd.DataFrame) -> bool:
    """Return whether each slide has its published images at each magnification, and no more."""
    counts = compare(index)
    return bool((counts["found"] == counts["published"]).all())


def is_phantom(folder: Path, index: pd.DataFrame) -> bool:
    """Return whether any image is synthetic: by the mark in it, or by a phantom.json around it."""
    parents = (folder, *folder.parents[:4])
    return any((parent / "phantom.json").is_file() for parent in parents) or any(
        marked_phantom(folder / path) for path in index["path"]
    )


def compare(index: pd.DataFrame) -> pd.DataFrame:
    """Return found and published image counts, a row for each of 82 slides x 4 magnifications.

    Columns: slide, accession, tumor_class, tumor_type, magnification, found, published.
    """
    keys = ["slide", "accession", "tumor_class", "tumor_type"]
    counts = {f"n_{magnification}x": magnification for magnification in MAGNIFICATIONS}
    table = slide_table().rename(columns=counts)
    table = table.melt(keys, MAGNIFICATIONS, "magnification", "published")
    found = index.groupby(["slide", "magnification"]).size().rename("found").reset_index()
    found["magnification"] = found["magnification"].astype(int)
    table["magnification"] = table["magnification"].astype(int)
    table = table.merge(found, "left", ["slide", "magnification"]).fillna({"found": 0})
    return table.astype({"found": int})[[*keys, "magnification", "found", "published"]]


def duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """Return pixel-identical images under different names, and what the two names disagree on.

    Columns: image_id, duplicate_of, and crosses: "accession", "tumour type", "class" or "nothing".
    """
    of = index.set_index("image_id")
    rows = []
    for row in index[index["duplicate_of"] != ""].itertuples():
        other = of.loc[row.duplicate_of]
        parts = {"accession": "accession", "tumor_type": "tumour type", "tumor_class": "class"}
        crossed = [name for key, name in parts.items() if getattr(row, key) != other[key]]
        rows.append((row.image_id, row.duplicate_of, ", ".join(crossed) or "nothing"))
    return pd.DataFrame(rows, columns=["image_id", "duplicate_of", "crosses"])


def verify(folder: str | Path) -> dict:
    """Compare ``folder`` with the database.

    ``state`` is "complete", "partial", "phantom", "foreign" or "damaged"; ``sound`` is True for the
    first three. Also n_images, problems, missing (by slide and magnification), duplicates.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    index, problems = examine(folder)
    counts = compare(index)
    phantom = is_phantom(folder, index)
    kinds = set(problems["kind"])
    if "bad" in kinds or (index.empty and "foreign" not in kinds):
        state = "damaged"
    elif "foreign" in kinds:
        state = "foreign"
    elif phantom:
        state = "phantom"
    else:
        state = "complete" if is_whole(index) else "partial"
    missing = counts[counts["found"] < counts["published"]].head(0 if phantom else None)
    return {
        "folder": str(folder),
        "state": state,
        "sound": state in ("complete", "partial", "phantom"),
        "n_images": len(index),
        "n_published": N_IMAGES,
        "n_slides": index["slide"].nunique(),
        "n_accessions": index["accession"].nunique(),
        "problems": problems.to_dict("records"),
        "missing": missing[["slide", "magnification", "found", "published"]].to_dict("records"),
        "duplicates": duplicates(index).to_dict("records"),
    }


def report(result: dict) -> str:
    """Return the result of :func:`verify` as lines of text."""
    lines = [
        f"{result['folder']}: {result['state']}, {result['n_images']:,} sound images of "
        f"{result['n_published']:,}, {result['n_slides']} slides, "
        f"{result['n_accessions']} accessions"
    ]
    lines += [f"  {row['kind']}: {row['path']}: {row['reason']}" for row in result["problems"]]
    for row in result["duplicates"]:
        lines.append(
            f"  duplicate: {row['image_id']} has the pixels of {row['duplicate_of']}; "
            f"they differ in {row['crosses']}"
        )
    whole = [row["slide"] for row in result["missing"] if row["found"] == 0]
    absent = sorted({slide for slide in whole if whole.count(slide) == len(MAGNIFICATIONS)})
    if absent:
        lines.append(f"  missing slides ({len(absent)}): {', '.join(absent)}")
    lines += [f"  missing: {_count(r)}" for r in result["missing"] if r["slide"] not in absent]
    return "\n".join(lines)


def _count(row: dict) -> str:
    return (
        f"{row['slide']} at {row['magnification']}X has {row['found']} images, "
        f"the database has {row['published']}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print what a folder is; return 0 where it is complete or a sound part, else 1."""
    parser = argparse.ArgumentParser("python -m helpers.data", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    options = parser.parse_args(arguments)
    try:
        result = verify(options.folder)
    except FileNotFoundError as error:
        parser.error(str(error))
    if not result["n_images"] and not result["problems"]:
        print(f"no images below {result['folder']}: is this the right folder?", file=sys.stderr)
    print(json.dumps(result, indent=2) if options.json else report(result))
    return 0 if result["sound"] else 1
