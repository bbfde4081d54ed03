"""Is a folder BreakHis? The images found in it, compared with the database.

``python -m helpers.data DIR`` prints the result of :func:`verify`.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from helpers.data.counts import compare, is_whole, tell
from helpers.data.index import examine, is_phantom
from helpers.data.names import MAGNIFICATIONS, N_IMAGES


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
    lines += [f"  missing: {tell(r)}" for r in result["missing"] if r["slide"] not in absent]
    return "\n".join(lines)


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
