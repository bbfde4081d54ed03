"""The folder of images that a run works on: found, indexed, described, and opened again.

``python -m helpers.data DIR`` compares a folder with the database, file by file.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from IPython import get_ipython

from helpers import images
from helpers import results as tables
from helpers.results import ROOT, resolve

MAGNIFICATIONS = (40, 100, 200, 400)
BENIGN = ("A", "F", "PT", "TA")
MALIGNANT = ("DC", "LC", "MC", "PC")
TUMOR_TYPES = BENIGN + MALIGNANT
TYPE_NAMES = {
    "A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes tumour", "TA": "tubular adenoma",
    "DC": "ductal carcinoma", "LC": "lobular carcinoma", "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}  # fmt: skip
SIZES = ("700x460", "700x456")  # px, width and height of the database's images
NAME = re.compile(
    r"SOB_(?P<cls>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<accession>[0-9]{2}-[0-9]+)"
    r"(?P<letters>[A-Z]*)-(?P<magnification>40|100|200|400)-(?P<sequence>[0-9]{3})"
)
INDEX_COLUMNS = [
    "image_id", "path", "tumor_class", "tumor_type", "slide", "accession", "magnification",
    "sequence", "width_px", "height_px", "pixel_sha256", "duplicate_of",
]  # fmt: skip
# What a file can be, the best first: of two files of one image the better one is taken.
KINDS = ("original", "renamed", "repacked", "phantom", "changed", "resized", "foreign", "damaged")
ORIGINALS = ("original", "renamed")
FILE_COLUMNS = ["path", "image_id", "kind", "reason", "usable", *INDEX_COLUMNS[-4:-1]]
ASSIGNED = re.compile(r"^(\w+) *(?::[^=\n]+)?=(?!=)", re.MULTILINE)  # names, in source code


class Run(NamedTuple):
    """What a notebook works on: where its results go, the images, and how to label figures."""

    results: Path
    notebook: str
    folder: Path
    index: pd.DataFrame
    kind: str  # phantom, sample or database
    badge: str
    images: str  # fingerprint of the index


def parse_name(stem: str) -> dict:
    """Read a BreakHis file name without its suffix, as in ``SOB_B_A-14-22549AB-40-001``.

    Returns image_id, tumor_class, tumor_type, slide, accession, magnification and sequence. The
    accession is the case number without the letters that mark further slides of one case.
    """
    match = NAME.fullmatch(stem)
    if not match or (match["cls"] == "B") != (match["type"] in BENIGN):
        raise ValueError(f"{stem!r} is not a BreakHis name; one reads SOB_B_A-14-22549AB-40-001")
    return {
        "image_id": stem,
        "tumor_class": "benign" if match["cls"] == "B" else "malignant",
        "tumor_type": match["type"],
        "slide": f"{match['type']}-{match['accession']}{match['letters']}",
        "accession": match["accession"],
        "magnification": int(match["magnification"]),
        "sequence": int(match["sequence"]),
    }


def slide_table() -> pd.DataFrame:
    """Return the 82 slides of the database: accession, type, image counts, official folds."""
    return pd.read_csv(ROOT / "data" / "slides.csv", keep_default_na=False)


def manifest() -> dict[str, str]:
    """Return the official path of each of the 7,909 original files, by the SHA-256 of its bytes."""
    lines = (ROOT / "data" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {line[:64]: line[66:] for line in lines if not line.startswith("#")}


def compare(index: pd.DataFrame) -> pd.DataFrame:
    """Return found and published image counts, a row for each of 82 slides x 4 magnifications.

    Columns: slide, accession, tumor_class, tumor_type, magnification, found, published.
    """
    keys, cell = ["slide", "accession", "tumor_class", "tumor_type"], ["slide", "magnification"]
    table = slide_table().rename(columns={f"n_{m}x": m for m in MAGNIFICATIONS})
    table = table.melt(keys, list(MAGNIFICATIONS), "magnification", "published")
    found = index.astype({"magnification": int}).groupby(cell).size().rename("found")
    table = table.astype({"magnification": int}).join(found, cell).fillna({"found": 0})
    return table.astype({"found": int})[[*keys, "magnification", "found", "published"]]


def duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """Return pixel-identical images under different names, and what the two names disagree on.

    Columns: image_id, duplicate_of, and crosses: "accession", "tumour type", "class" or "nothing".
    """
    first = index.rename(columns={"image_id": "duplicate_of", "duplicate_of": ""})
    both = index[index["duplicate_of"] != ""].merge(first, on="duplicate_of", suffixes=("", "_of"))
    crosses = pd.Series("", both.index)
    columns = {"accession": "accession", "tumor_type": "tumour type", "tumor_class": "class"}
    for column, name in columns.items():
        crosses = crosses.where(both[column] == both[f"{column}_of"], crosses + f", {name}")
    return both[["image_id", "duplicate_of"]].assign(crosses=crosses.str[2:].replace("", "nothing"))


def find_data(path: str | Path, phantom: Callable[[], Path]) -> Path:
    """Return the folder of images: ``path``, BREAKHIS_DIR, data/BreaKHis_v1, or the phantom.

    FileNotFoundError for a folder that is named but missing, a dangling link or a near miss in
    spelling: none is replaced by the phantom.
    """
    _check_notebook()
    for origin, name in {"DATA": path, "BREAKHIS_DIR": os.environ.get("BREAKHIS_DIR")}.items():
        if name:
            folder = resolve(Path(name).expanduser()).resolve()
            if folder.is_dir():
                print(f"Images: the folder {folder.name}, named by {origin}.")
                return folder
            raise FileNotFoundError(
                f"{origin} names {folder}, which is no folder: name one that holds BreakHis "
                f"images, or leave {origin} empty."
            )
    folder = ROOT / "data" / "BreaKHis_v1"
    if folder.is_dir():
        print("Images: data/BreaKHis_v1.")
        return folder.resolve()
    for entry in sorted(folder.parent.glob("[!.]*")):
        name = re.sub("[^a-z0-9]", "", entry.name.lower())
        near = difflib.get_close_matches(name, ["breakhisv1", "breakhis"], 1, 0.8)
        if near and (entry.is_dir() or not entry.suffix):
            what = "is not called BreaKHis_v1" if entry.is_dir() else "leads to no folder"
            raise FileNotFoundError(
                f"{entry} {what}, so that its images are not found. Mend it, move it away, or name "
                "the folder of the images with DATA or BREAKHIS_DIR."
            )
    print("No BreakHis images here: working on the phantom, synthetic images that are not tissue.")
    return resolve(phantom())


def examine(folder: Path) -> pd.DataFrame:
    """Read each image file below ``folder`` once and say what it is; columns FILE_COLUMNS.

    kind is one of KINDS, by content before name: an original is one under any name. reason says
    what is unusual, else it is empty; usable is whether an index may hold the file. Rows are
    ordered by image_id, the best kind first.
    """
    originals = {code: Path(path).stem for code, path in manifest().items()}
    paths, refused = images.list_images(folder)
    rows = images.thread_map(lambda path: _look(path, folder, originals), paths, "Reading images")
    twins = {row["pixel_sha256"]: row["image_id"] for row in rows if row["kind"] in ORIGINALS}
    phantom = not twins and (_beside_phantom(folder) or any(row.get("marked") for row in rows))
    for row in rows:
        if row["kind"] in ("changed", "resized"):
            _judge(row, twins, phantom, originals.values())
    rows += [
        {"path": path, "image_id": "", "kind": "damaged", "reason": why} for path, why in refused
    ]
    files = pd.DataFrame(rows, columns=FILE_COLUMNS)
    files["kind"] = pd.Categorical(files["kind"], KINDS, ordered=True)
    files = files.sort_values(["image_id", "kind", "path"], ignore_index=True)
    _judge_use(files)
    return files.astype({"kind": str})


def _look(file: Path, folder: Path, originals: dict[str, str]) -> dict:
    """Return what one file is, as far as one read of it alone can tell."""
    row = {"path": images.relative(file, folder), "image_id": ""}
    try:
        content = images.read_bytes(file)
        pixels = images.decode(content)
    except ValueError as error:
        kind = "foreign" if "JPEG" in str(error) else "damaged"
        return row | {"kind": kind, "reason": str(error)}
    height, width, _ = pixels.shape
    row |= {"width_px": width, "height_px": height, "pixel_sha256": images.pixel_hash(pixels)}
    row["marked"] = images.PHANTOM_MARK.encode() in content[:256]
    if name := originals.get(hashlib.sha256(content).hexdigest()):
        same = name == file.stem
        kind, reason = ORIGINALS[not same], "" if same else f"the original {name}"
    elif f"{width}x{height}" not in SIZES:
        kind, reason = "resized", f"{width}x{height} px, not {' or '.join(SIZES)} px"
    elif images.COLOUR_TYPES[content[25]] == "RGBA":
        kind, reason = "changed", "RGBA with full alpha, taken as RGB"
    else:
        kind, reason = "changed", "other bytes than the database's file of this name"
    return row | {"image_id": name or file.stem, "kind": kind, "reason": reason}


def _judge(row: dict, twins: dict[str, str], phantom: bool, names) -> None:
    """Say, in place, what an image is that is no original; twins: image_ids of those, by pixels."""
    name, twin = row["image_id"], twins.get(row["pixel_sha256"])
    known = NAME.fullmatch(name) if phantom else name in names and not row["marked"]
    if twin:
        same_case = known and name.split("-")[1:3] == twin.split("-")[1:3]
        row |= {"kind": "repacked", "image_id": name if same_case else twin}
        row["reason"] = f"the pixels of the original {twin}, in other bytes"
    elif known and phantom:
        row |= {"kind": "phantom", "reason": ""}
    elif not known:
        reason = "neither an original nor a BreakHis name, as in SOB_B_A-14-22549AB-40-001"
        if NAME.search(name):
            reason = "a copy, not the original: it cannot be used"
        if NAME.fullmatch(name):
            reason = "the database has no such image of this name"
        row |= {"kind": "foreign", "reason": reason}


def _judge_use(files: pd.DataFrame) -> None:
    """Say, in place, which files an index may hold: the best of each image, if their pixels agree.

    Resized images are used only where all are resized; the badge says so.
    """
    resized, sound = files["kind"] == "resized", files["kind"] < "foreign"
    files["usable"] = sound if resized.equals(sound) else sound & ~resized
    usable = files[files["usable"]]
    for _, group in usable[usable.duplicated("image_id", keep=False)].groupby("image_id"):
        first, same = group.iloc[0], group["pixel_sha256"].eq(group["pixel_sha256"].iloc[0])
        same &= same.all() or first["kind"] in ORIGINALS
        files.loc[same.index[1:], "reason"] = f"a copy of {first['path']}, counted once"
        files.loc[same.index[~same], "reason"] = "another file of this name holds other pixels"
        files.loc[same.index[~same], "usable"] = False


def build_index(folder: str | Path, on_bad: str = "stop") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every image below ``folder`` and return (index, problems).

    index: a row an image, ordered by image_id, columns INDEX_COLUMNS; duplicate_of names the first
    image with the same pixels, else it is empty. An original is known by its bytes, under any name.
    problems: path, kind (bad, foreign, or note where nothing is lost) and reason. With ``"stop"`` a
    bad or foreign file is a ValueError that lists them; with ``"drop"`` they are left out.
    """
    if on_bad not in ("stop", "drop"):
        raise ValueError(f"on_bad is {on_bad!r}; allowed are 'stop' and 'drop'.")
    folder = resolve(folder)
    index, problems = _split(examine(folder))
    stops = problems[problems["kind"] != "note"]
    if index.empty:
        raise ValueError(
            f"No usable BreakHis image below {folder}.\n{_lines(stops)}\nOnly the database's own "
            "files can be used (make data), under any name."
        )
    if on_bad == "stop" and len(stops):
        raise ValueError(
            f"{len(stops)} files below {folder} cannot be used:\n{_lines(stops)}\nRemove them, or "
            f'go on with the other {len(index)} images: ON_BAD = "drop", or in the terminal '
            'make run ARGS="-p ON_BAD=drop".'
        )
    return index, problems


def _split(files: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (index, problems) of what :func:`examine` found."""
    used = files[files["usable"]].drop_duplicates("image_id").reset_index(drop=True)
    facts = pd.DataFrame(map(parse_name, used["image_id"]), columns=INDEX_COLUMNS)
    used = used.astype({"width_px": int, "height_px": int})
    index = facts.assign(**used[["path", *INDEX_COLUMNS[-4:-1]]])
    first = index.groupby("pixel_sha256")["image_id"].transform("first")
    index["duplicate_of"] = first.where(first != index["image_id"], "").astype(str)
    problems = files[files["reason"] != ""].sort_values("path", ignore_index=True)
    kinds = problems["kind"].where(problems["kind"] == "foreign", "bad")
    problems["kind"] = kinds.mask(problems["usable"], "note")
    return index, problems[["path", "kind", "reason"]]


def _lines(files: pd.DataFrame, limit: int = 10) -> str:
    """Return the reasons, each with the first of its files and how many more there are."""
    groups = list(files.groupby("reason", sort=False)["path"])
    lines = [
        f"  {paths.iloc[0]}{f' and {len(paths) - 1:,} more' * (len(paths) > 1)}: {reason}"
        for reason, paths in groups[:limit]
    ]
    left = sum(len(paths) for _, paths in groups[limit:])
    return "\n".join(lines + [f"  and {left:,} more files"] * (left > 0))


def describe(folder: str | Path, index: pd.DataFrame, n_dropped: int = 0) -> dict:
    """Say what the images are: phantom, a sample of BreakHis or the whole database, and counts.

    Returns kind, n_images, n_slides, n_accessions, and badge: the label that every figure and table
    carries. ``n_dropped`` counts bad files left out; the badge then says so.
    """
    facts = {f"n_{name}s": index[name].nunique() for name in ("slide", "accession")}
    counts, n, folder = compare(index), len(index), resolve(folder)
    if _beside_phantom(folder) or any(map(images.is_marked, folder / index["path"])):
        kind, badge = "phantom", f"Phantom: {n:,} synthetic images, not tissue"
    elif (counts["found"] == counts["published"]).all():
        kind, badge = "database", f"BreakHis, whole database: {n:,} images"
    else:
        kind, badge = "sample", f"BreakHis sample: {n:,} real images of {facts['n_slides']} slides"
        badge += f", {facts['n_accessions']} patients"
    size = f"{index['width_px'].iloc[0]}x{index['height_px'].iloc[0]}"
    if kind != "phantom" and size not in SIZES:
        badge += f", resized to {size} px"
    if n_dropped:
        badge += f", {n_dropped} bad {'file' if n_dropped == 1 else 'files'} left out"
    return {"kind": kind, "n_images": n, **facts, "badge": badge}


def _beside_phantom(folder: Path) -> bool:
    return any((parent / "phantom.json").is_file() for parent in (folder, *folder.parents[:4]))


def fingerprint(index: pd.DataFrame) -> str:
    """Return 12 hex digits of the images' names and pixels, whatever the layout of their folder."""
    lines = sorted(index["image_id"] + " " + index["pixel_sha256"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _stamp(folder: Path) -> str:
    """Return a hash of names, sizes and times of the images: quick, and any change shows."""
    digest = hashlib.sha256()
    for file in images.list_images(folder)[0]:
        status, name = file.lstat(), images.relative(file, folder)
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def start_run(results, notebook: str, folder, index: pd.DataFrame, problems: pd.DataFrame) -> Run:
    """Begin a run on the images of ``folder``: what notebook 01 does, others open it.

    ValueError where ``results`` holds what other notebooks computed on other images.
    """
    _check_notebook()
    results, folder, found = resolve(results), resolve(folder).resolve(), fingerprint(index)
    others = tables.of_other_images(results, found).items()
    if stale := [name for name, writer in others if writer != notebook]:
        raise ValueError(
            f"{results} holds results of other images: {', '.join(stale)}. Choose another folder "
            "with RESULTS (make run RUN=name), or move this one away."
        )
    facts = describe(folder, index, int(problems["kind"].ne("note").sum()))
    return _opened(Run(results, notebook, folder, index, facts["kind"], facts["badge"], found))


def save_run(run: Run, problems: pd.DataFrame) -> None:
    """Write index.csv, problems.csv and data.json: what the other notebooks open.

    A folder inside the repository is stored relative to its root, so that a clone can move.
    """
    n_dropped = int(problems["kind"].ne("note").sum())
    inside = run.folder.is_relative_to(ROOT)
    facts = {"folder": (run.folder.relative_to(ROOT) if inside else run.folder).as_posix()}
    facts |= describe(run.folder, run.index, n_dropped) | {"n_dropped": n_dropped}
    tables.save_table(run, "index.csv", run.index)
    tables.save_table(run, "problems.csv", problems)
    facts |= {"stamp": _stamp(run.folder), "images": run.images}
    tables.write_json(facts, run.results / "data.json")


def open_run(results: str | Path, notebook: str) -> Run:
    """Load what notebook 01 found: every later notebook starts here.

    FileNotFoundError where 01 did not run. ValueError where the images are no longer those that 01
    indexed, where a parameter is unknown, or where the kernel is of another clone.
    """
    _check_notebook()
    if changed := images_changed(results):
        raise ValueError(f"{changed} Put the data back, or run 01_eda again.")
    facts, index = tables.read_json(results, "data.json"), tables.read_table(results, "index.csv")
    places = resolve(results), notebook, resolve(facts["folder"])
    return _opened(Run(*places, index, facts["kind"], facts["badge"], facts["images"]))


def images_changed(results: str | Path) -> str:
    """Return how the images differ from those that 01 indexed, or an empty text."""
    facts, index = tables.read_json(results, "data.json"), tables.read_table(results, "index.csv")
    folder = resolve(facts["folder"])
    gone = sum(not (folder / path).is_file() for path in index["path"])
    if gone:
        return f"{gone} of the {len(index)} images that 01_eda indexed are no longer in {folder}."
    same = _stamp(folder) == facts["stamp"]
    same = same or fingerprint(_split(examine(folder))[0]) == facts["images"]
    return "" if same else f"The images in {folder} are not those that 01_eda indexed."


def _opened(run: Run) -> Run:
    """Let figures know what the images are; return ``run``."""
    from helpers import plots  # matplotlib is loaded only where a run is opened

    plots.style()
    plots.set_badge(run.badge)
    return run


def _check_notebook() -> None:
    """Refuse a kernel that works in another clone, and parameters that the notebook lacks."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "helpers" / "results.py").is_file() and folder != ROOT:
            raise ValueError(
                f"This kernel works in {folder}, but imports helpers of {ROOT}, where the results "
                "would go. Choose the kernel of the clone that the notebook lies in (make env)."
            )
    cells = getattr(get_ipython(), "user_ns", {}).get("In", [])
    given = [cell for cell in cells if cell.startswith("# Parameters\n")]  # papermill's
    known = ASSIGNED.findall("\n".join(cell for cell in cells if cell not in given))
    if unknown := [name for name in ASSIGNED.findall("".join(given[-1:])) if name not in known]:
        names = ", ".join(name for name in dict.fromkeys(known) if name.isupper())
        raise ValueError(f"No parameter of this notebook: {', '.join(unknown)}. It has {names}.")


def verify(folder: str | Path, new: str | Path = "") -> dict:
    """Compare ``folder`` with the database, file by file, in any layout and under any names.

    state is complete, partial, phantom, changed, resized, foreign or damaged; sound is whether it
    is one of the first three. Also n_originals, kinds (files of each kind), files (those with a
    reason), missing (image_ids), duplicates, and counts of the index. ``new`` names a folder that
    is not there: the originals are copied into it, under their official names.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if new and Path(new).exists():
        raise FileExistsError(f"{new} is there already: name a new folder")
    files = examine(folder)
    originals = files[files["kind"].isin(ORIGINALS)].drop_duplicates("image_id")
    if new:
        _restore(folder, originals, Path(new).resolve())
    index, _ = _split(files)
    kinds = {kind: int((files["kind"] == kind).sum()) for kind in KINDS}
    wanted = {Path(path).stem for path in manifest().values()}
    faults = [kind for kind in KINDS[:2:-1] if kinds[kind]]  # the worst first
    state = [*faults, "complete" if len(originals) == len(wanted) else "partial"][0]
    return {
        "folder": str(folder),
        "state": state,
        "sound": state in ("complete", "partial", "phantom") and len(files) > 0,
        "n_published": len(wanted),
        "n_originals": len(originals),
        **{f"n_{name}s": index[name].nunique() for name in ("image_id", "slide", "accession")},
        "kinds": kinds,
        "files": files.loc[files["reason"] != "", FILE_COLUMNS[:4]].to_dict("records"),
        "missing": sorted(wanted - set(originals["image_id"])),
        "duplicates": duplicates(index).to_dict("records"),
    }


def _restore(folder: Path, files: pd.DataFrame, new: Path) -> None:
    """Copy originals under their official names; ``new`` appears only when it is complete."""
    places = {Path(path).stem: path for path in manifest().values()}
    partial = new.with_name(f".{new.name}.partial")
    try:
        for row in files.itertuples():
            target = partial / places[row.image_id]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / row.path, target)
        partial.replace(new)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def report(result: dict) -> str:
    """Return the result of :func:`verify` as lines of text, shortened."""
    head = (
        "{folder}: {state}; {n_originals:,} of {n_published:,} files are the originals, byte for "
        "byte. Usable: {n_image_ids:,} images, {n_slides} slides, {n_accessions} accessions."
    )
    lines = [head.format_map(result)]
    files = pd.DataFrame(result["files"], columns=FILE_COLUMNS[:4])
    twins = pd.DataFrame(result["duplicates"], columns=["image_id", "duplicate_of", "crosses"])
    twins["path"] = twins["image_id"] + " is " + twins["duplicate_of"]
    twins["reason"] = "the names differ in " + twins["crosses"]
    missing = pd.DataFrame({"path": result["missing"] if result["n_originals"] else []}, dtype=str)
    missing["reason"] = "at " + missing["path"].str.split("-").str[-2] + "X"
    parts = {kind: files[files["kind"] == kind] for kind in KINDS}
    for name, part in {**parts, "same pixels": twins, "missing": missing}.items():
        if len(part):
            lines.append(f" {name}, {len(part):,}:\n{_lines(part)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print what a folder is; return 0 where it is complete or a sound part, else 1."""
    parser = argparse.ArgumentParser("python -m helpers.data", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--restore", metavar="NEW", default="", help="copy the originals there")
    options = parser.parse_args(arguments)
    try:
        result = verify(options.folder, options.restore)
    except OSError as error:
        parser.error(str(error))
    print(json.dumps(result, indent=2) if options.json else report(result))
    return 0 if result["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
