"""The folder of images that a run works on: found, indexed, described, and opened again.

``python -m helpers.data DIR`` compares a folder with the database, file by file.
"""

import ast
import difflib
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from IPython import get_ipython

from helpers.images import (
    PHANTOM_MARK,
    decode,
    has_alpha,
    list_images,
    pixel_hash,
    read_bytes,
    relative,
    thread_map,
)
from helpers.results import (
    ROOT,
    read_json,
    read_table,
    resolve,
    save_table,
    stamps,
    write_json,
    writer,
)

MAGNIFICATIONS = (40, 100, 200, 400)
BENIGN = ("A", "F", "PT", "TA")
MALIGNANT = ("DC", "LC", "MC", "PC")
TUMOR_TYPES = BENIGN + MALIGNANT
TYPE_NAMES = {
    "A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes tumour", "TA": "tubular adenoma",
    "DC": "ductal carcinoma", "LC": "lobular carcinoma", "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}  # fmt: skip
SIZES = ((700, 460), (700, 456))  # px, width and height of the database's images
NAME = re.compile(
    r"SOB_(?P<cls>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<accession>[0-9]{2}-[0-9]+)"
    r"(?P<letters>[A-Z]*)-(?P<magnification>40|100|200|400)-(?P<sequence>[0-9]{3})"
)
INDEX_COLUMNS = [
    "image_id", "path", "tumor_class", "tumor_type", "slide", "accession", "magnification",
    "sequence", "width_px", "height_px", "pixel_sha256", "duplicate_of",
]  # fmt: skip
FILE_COLUMNS = [
    "path", "image_id", "kind", "reason", "usable", "width_px", "height_px", "pixel_sha256",
]  # fmt: skip
# What a file can be, the best first: of two files of one image the better one is taken.
KINDS = ("original", "renamed", "repacked", "phantom", "changed", "resized", "foreign", "damaged")
FOREIGN = {
    "absent": "the database has no image of this name",
    "copy": "a renamed copy with other bytes than the original: it cannot be used",
    "no name": "neither an original nor a BreakHis name; one reads SOB_B_A-14-22549AB-40-001",
}
CHANGED = "other bytes than the database's file of this name"


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


def manifest() -> pd.Series:
    """Return the official path of each of the 7,909 original files, by the SHA-256 of its bytes."""
    lines = (ROOT / "data" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return pd.Series({line[:64]: line[66:] for line in lines if not line.startswith("#")})


def compare(index: pd.DataFrame) -> pd.DataFrame:
    """Return found and published image counts, a row for each of 82 slides x 4 magnifications.

    Columns: slide, accession, tumor_class, tumor_type, magnification, found, published.
    """
    keys = ["slide", "accession", "tumor_class", "tumor_type"]
    table = slide_table().rename(columns={f"n_{m}x": m for m in MAGNIFICATIONS})
    table = table.melt(keys, list(MAGNIFICATIONS), "magnification", "published")
    table = table.astype({"magnification": int})
    found = index.groupby(["slide", "magnification"]).size().rename("found").reset_index()
    found = found.astype({"magnification": int})
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


def find_data(path: str | Path, phantom: Callable[[], Path]) -> Path:
    """Return the folder of images: ``path``, BREAKHIS_DIR, data/BreaKHis_v1, or the phantom.

    A folder that is named but missing is an error, and so is a dangling link or a near miss in
    spelling beside data/BreaKHis_v1; none is ever replaced by the phantom.
    """
    _check_notebook("")
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
    if os.path.lexists(folder):
        what = f"a link to {os.readlink(folder)}" if folder.is_symlink() else "a file"
        raise FileNotFoundError(
            f"{folder} is {what}, no folder of images. Mend or remove it, or name the folder of "
            "the images with DATA or BREAKHIS_DIR."
        )
    for entry in sorted(folder.parent.iterdir()):
        name = re.sub("[^a-z0-9]", "", entry.name.lower())
        if entry.is_dir() and difflib.get_close_matches(name, ["breakhisv1", "breakhis"], 1, 0.8):
            raise FileNotFoundError(
                f"{entry} is not looked at: the folder must be called BreaKHis_v1. Rename it, name "
                "it with DATA or BREAKHIS_DIR, or move it away to work on the phantom."
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
    paths, refused = list_images(folder)
    rows = thread_map(lambda file: _look(file, folder, originals), paths, "Reading images")
    known = [row for row in rows if row["kind"] in ("original", "renamed")]
    twins = {row["pixel_sha256"]: row["image_id"] for row in reversed(known)}
    phantom = any(row.get("marked") for row in rows) or _beside_phantom(folder)
    names = set(slide_table()["slide"]) if phantom else set(originals.values())
    for row in rows:
        if row["kind"] == "changed":
            _judge(row, twins, phantom, names)
    rows += [
        {"path": path, "image_id": "", "kind": "damaged", "reason": reason, "pixel_sha256": ""}
        for path, reason in refused
    ]
    files = pd.DataFrame(rows, columns=FILE_COLUMNS)
    files["usable"] = ~files["kind"].isin(["foreign", "damaged"])
    files["rank"] = files["kind"].map(KINDS.index).astype(int)
    files = files.sort_values(["image_id", "rank", "path"], ignore_index=True)
    _judge_sizes(files)
    _judge_copies(files)
    return files[FILE_COLUMNS]


def _look(file: Path, folder: Path, originals: dict[str, str]) -> dict:
    """Return what one file is, as far as it can be told from one read of it alone."""
    row = {"path": relative(file, folder), "image_id": "", "kind": "damaged", "pixel_sha256": ""}
    try:
        content = read_bytes(file)
        pixels = decode(content)
    except ValueError as error:
        kind = "foreign" if "JPEG" in str(error) else "damaged"
        return row | {"kind": kind, "reason": str(error)}
    height, width = pixels.shape[:2]
    row |= {"width_px": width, "height_px": height, "pixel_sha256": pixel_hash(pixels)}
    row |= {"alpha": has_alpha(content), "marked": PHANTOM_MARK.encode() in content[:256]}
    name = originals.get(hashlib.sha256(content).hexdigest())
    if name == file.stem:
        return row | {"kind": "original", "image_id": name, "reason": ""}
    if name:
        return row | {
            "kind": "renamed",
            "image_id": name,
            "reason": f"the original {name}, renamed",
        }
    return row | {"kind": "changed", "image_id": file.stem}


def _judge(row: dict, twins: dict[str, str], phantom: bool, names: set[str]) -> None:
    """Say what a sound image with other bytes than any original is, in place.

    twins: image_id by pixels of the originals here. names: the image_ids of the database, or for a
    phantom, which may have any number of images, the slides.
    """
    name, twin = row["image_id"], twins.get(row["pixel_sha256"])
    try:
        facts = parse_name(name)
        reason = "" if facts["slide" if phantom else "image_id"] in names else "absent"
    except ValueError:
        reason = "copy" if NAME.search(name) else "no name"
    if reason and twin:
        row["image_id"] = twin
    elif reason:
        row |= {"kind": "foreign", "reason": FOREIGN[reason]}
        return
    if twin:
        row |= {"kind": "repacked", "reason": f"the pixels of the original {twin}, in other bytes"}
    elif phantom:
        row |= {"kind": "phantom", "reason": ""}
    else:
        row["reason"] = CHANGED
    if row["alpha"]:
        row["reason"] = f"RGBA with full alpha, taken as RGB; {row['reason']}".removesuffix("; ")


def _judge_sizes(files: pd.DataFrame) -> None:
    """Mark images of another size than the database's, in place.

    They are usable only where all files were resized alike (and there are ten, or one phantom).
    """
    mine = files["kind"].isin(["changed", "phantom"])
    sizes = pd.Series(list(zip(files["width_px"], files["height_px"], strict=True)), files.index)
    wrong = mine & ~sizes.isin(SIZES)
    decoded = files["usable"] & files["width_px"].notna()
    usual = sizes[wrong].mode()
    alike = len(usual) and wrong.sum() == decoded.sum() and (sizes[wrong] == usual[0]).mean() > 0.5
    if alike and ((files["kind"] == "phantom").any() or wrong.sum() >= 10):
        files.loc[wrong & (sizes != usual[0]), "usable"] = False
    else:
        files.loc[wrong, "usable"] = False
    for row in files.index[wrong & ~(files["usable"] & (files["kind"] == "phantom"))]:
        width, height = map(int, sizes[row])
        reason = f"{width}x{height} px, not 700x460 or 700x456 px"
        files.loc[row, ["kind", "reason"]] = "resized", reason


def _judge_copies(files: pd.DataFrame) -> None:
    """Of several files of one image keep the best, in place; pixels that differ are refused."""
    good = files[files["usable"]]
    for _, group in good.groupby("image_id"):
        first = group.iloc[0]
        other = group["pixel_sha256"] != first["pixel_sha256"]
        if first["kind"] in ("original", "renamed"):
            files.loc[group.index[other], "reason"] = f"other pixels than the original {first.path}"
        elif other.any():
            other[:] = True
            files.loc[group.index, "reason"] = "another file of this name holds different pixels"
        files.loc[group.index[other], "usable"] = False
        again = group.index[~other][1:]
        files.loc[again, "reason"] = f"a copy of {first['path']}, counted once"


def build_index(folder: str | Path, on_bad: str = "stop") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every image below ``folder`` and return (index, problems).

    index: a row an image, ordered by image_id, columns ``INDEX_COLUMNS``; duplicate_of names the
    first image with the same pixels, else it is empty. An original file is known by its bytes under
    any name. problems: path, kind (``bad``, ``foreign``, or ``note`` where the file is used or
    counted all the same) and reason. With ``on_bad="stop"`` a bad or foreign file is a ValueError
    that lists them; with ``"drop"`` they are left out.
    """
    if on_bad not in ("stop", "drop"):
        raise ValueError(f"on_bad is {on_bad!r}; allowed are 'stop' and 'drop'.")
    folder = resolve(folder)
    index, problems = _split(examine(folder))
    stops = problems[problems["kind"] != "note"]
    if index.empty:
        raise ValueError(
            f"No usable BreakHis image below {folder}.\n{_lines(stops)}\nOnly the database's own "
            "files can be used, under any name: make data gets them, and "
            "`python -m helpers.data DIR` says what a folder holds."
        )
    if on_bad == "stop" and len(stops):
        raise ValueError(
            f"{len(stops)} files below {folder} cannot be used:\n{_lines(stops)}\nRemove them, or "
            f'go on with the other {len(index)} images: ON_BAD = "drop" in the notebook, '
            'make run ARGS="-p ON_BAD=drop" for the series.'
        )
    return index, problems


def _split(files: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (index, problems) of what :func:`examine` found."""
    index = files[files["usable"]].drop_duplicates("image_id").drop(columns=["kind"])
    facts = pd.DataFrame(map(parse_name, index["image_id"]), columns=INDEX_COLUMNS[:8])
    index = facts.drop(columns="path").merge(index, on="image_id")
    first = index.groupby("pixel_sha256")["image_id"].transform("first")
    index["duplicate_of"] = first.where(first != index["image_id"], "").astype(str)
    index = index[INDEX_COLUMNS].astype({"width_px": int, "height_px": int})
    problems = files[files["reason"] != ""].sort_values("path", ignore_index=True)
    kinds = problems["kind"].where(problems["kind"] == "foreign", "bad")
    problems["kind"] = kinds.where(~problems["usable"].astype(bool), "note")
    return index, problems[["path", "kind", "reason"]]


def _lines(problems: pd.DataFrame, limit: int = 10) -> str:
    """Return the reasons, each with its number of files and the first of them."""
    groups = problems.groupby("reason", sort=False)["path"].agg(["size", "first"])
    lines = [f"  {row.first}: {reason}" if row.size == 1 else
             f"  {row.size} files such as {row.first}: {reason}"
             for reason, row in groups.head(limit).iterrows()]  # fmt: skip
    if len(groups) > limit:
        lines.append(f"  and {groups['size'][limit:].sum()} more")
    return "\n".join(lines)


def describe(folder: str | Path, index: pd.DataFrame, n_dropped: int = 0) -> dict:
    """Say what the images are: phantom, a sample of BreakHis or the whole database, and counts.

    Returns kind, n_images, n_slides, n_accessions, and badge: the label that every figure and table
    carries. ``n_dropped`` counts bad files left out; the badge then says so.
    """
    images, slides, accessions = (index[c].nunique() for c in ("image_id", "slide", "accession"))
    counts = compare(index)
    if _is_phantom(resolve(folder), index):
        kind, badge = "phantom", f"Phantom: {images:,} synthetic images, not tissue"
    elif (counts["found"] == counts["published"]).all():
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
    numbers = {"n_images": images, "n_slides": slides, "n_accessions": accessions}
    return {"kind": kind, **numbers, "badge": badge}


def _is_phantom(folder: Path, index: pd.DataFrame) -> bool:
    """Return whether any image is synthetic: by the mark in it, or by a phantom.json around it."""
    mark = PHANTOM_MARK.encode()
    return _beside_phantom(folder) or any(mark in _head(folder / path) for path in index["path"])


def _beside_phantom(folder: Path) -> bool:
    return any((parent / "phantom.json").is_file() for parent in (folder, *folder.parents[:4]))


def _head(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(256)


def fingerprint(index: pd.DataFrame) -> str:
    """Return 12 hex digits of the images' names and pixels, whatever the layout of their folder."""
    lines = sorted(index["image_id"] + " " + index["pixel_sha256"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _stamp(folder: Path) -> str:
    """Return a hash of names, sizes and times of the images: quick, and any change shows."""
    digest = hashlib.sha256()
    for file in list_images(folder)[0]:
        status = file.lstat()
        digest.update(f"{relative(file, folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def start_run(results, notebook: str, folder, index: pd.DataFrame, problems: pd.DataFrame) -> Run:
    """Begin a run on the images of ``folder``: what notebook 01 does, others open it.

    ValueError where ``results`` holds what was computed on other images: it would be worthless.
    """
    results, folder = resolve(results), resolve(folder).resolve()
    images = fingerprint(index)
    stale = [name for name, found in stamps(results).items()
             if found != images and writer(name) != notebook]  # fmt: skip
    if stale:
        raise ValueError(
            f"{results} holds results of other images: {', '.join(stale)}. Choose another folder "
            "with RESULTS (make run RUN=name), or move this one away."
        )
    facts = describe(folder, index, int((problems["kind"] != "note").sum()))
    return _opened(Run(results, notebook, folder, index, facts["kind"], facts["badge"], images))


def save_run(run: Run, problems: pd.DataFrame) -> None:
    """Write index.csv, problems.csv and data.json: what the other notebooks open.

    A folder inside the repository is stored relative to its root, so that a clone can move.
    """
    n_dropped = int((problems["kind"] != "note").sum())
    inside = run.folder.is_relative_to(ROOT)
    place = run.folder.relative_to(ROOT).as_posix() if inside else str(run.folder)
    facts = {"folder": place, **describe(run.folder, run.index, n_dropped), "n_dropped": n_dropped}
    save_table(run, "index.csv", run.index)
    save_table(run, "problems.csv", problems)
    facts |= {"stamp": _stamp(run.folder), "images": run.images}
    write_json(facts, run.results / "data.json")


def open_run(results: str | Path, notebook: str) -> Run:
    """Load what notebook 01 found: every later notebook starts here.

    FileNotFoundError where 01 did not run or images are gone, ValueError where they are no longer
    those that 01 indexed, where a parameter is unknown, or where the kernel is of another clone.
    """
    facts, index = read_json(results, "data.json"), read_table(results, "index.csv")
    if changed := images_changed(results):
        raise (FileNotFoundError if "no longer" in changed else ValueError)(
            f"{changed} Put the data back, or run 01_eda again."
        )
    places = resolve(results), notebook, resolve(facts["folder"])
    return _opened(Run(*places, index, facts["kind"], facts["badge"], facts["images"]))


def images_changed(results: str | Path) -> str:
    """Return how the images differ from those that 01 indexed, or an empty text."""
    facts, index = read_json(results, "data.json"), read_table(results, "index.csv")
    folder = resolve(facts["folder"])
    gone = sum(not (folder / path).is_file() for path in index["path"])
    if gone:
        return f"{gone} of the {len(index)} images that 01_eda indexed are no longer in {folder}."
    if _stamp(folder) == facts["stamp"]:
        return ""
    now, _ = _split(examine(folder))
    same = fingerprint(now) == facts["images"]
    return "" if same else f"The images in {folder} are not those that 01_eda indexed."


def _opened(run: Run) -> Run:
    """Check the notebook and let figures know the badge; return ``run``."""
    from helpers import plots  # drawing is loaded only where a run is opened

    _check_notebook(run.notebook)
    plots.style()
    plots.set_badge(run.badge)
    return run


def _check_notebook(notebook: str) -> None:
    """Refuse a kernel that works in another clone, and parameters that the notebook lacks.

    papermill puts its parameters into a cell of their own and only warns about unknown ones.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "helpers" / "results.py").is_file() and folder != ROOT:
            raise ValueError(
                f"This kernel works in {folder}, but its helpers are those of {ROOT}, and results "
                "would go there: choose the kernel of the clone that the notebook lies in (make env)."
            )
    cells = getattr(get_ipython(), "user_ns", {}).get("In", [])
    given = [cell for cell in cells if cell.startswith("# Parameters\n")]
    known = [name for cell in cells if cell not in given for name in _assigned(cell)]
    unknown = [name for cell in given[-1:] for name in _assigned(cell) if name not in known]
    if unknown:
        names = ", ".join(name for name in dict.fromkeys(known) if name.isupper())
        raise ValueError(
            f"{', '.join(unknown)}: no parameter of {notebook or 'this notebook'}, "
            f"which has {names}."
        )


def _assigned(cell: str) -> list[str]:
    """Return the names that a cell assigns at its top level; none where it is not plain Python."""
    try:
        lines = ast.parse(cell).body
    except SyntaxError:
        return []
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def verify(folder: str | Path) -> dict:
    """Compare ``folder`` with the database, file by file, in any layout and under any names.

    ``state`` is "complete", "partial", "phantom", "changed", "foreign" or "damaged"; ``sound`` is
    True for the first three. Also n_originals, kinds (files of each kind), n_images (usable ones),
    files that are no plain originals, missing (image_ids), and duplicates.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = examine(folder)
    index, _ = _split(files)
    here = files.loc[files["kind"].isin(["original", "renamed"]), "image_id"]
    wanted = [Path(path).stem for path in manifest()]
    kinds = files["kind"].value_counts().reindex(KINDS, fill_value=0)
    states = ["damaged", "foreign", "phantom", "changed"]
    kinds_or_resized = kinds.rename({}).copy()
    kinds_or_resized["changed"] += kinds["resized"]
    state = next((name for name in states if kinds_or_resized[name]), "partial")
    if state == "partial":
        state = "complete" if here.nunique() == len(wanted) else state
    odd = files[files["reason"] != ""]
    return {
        "folder": str(folder),
        "state": state if len(files) else "damaged",
        "sound": bool(len(files)) and state in ("complete", "partial", "phantom"),
        "n_published": len(wanted),
        "n_originals": here.nunique(),
        "n_images": len(index),
        "n_slides": index["slide"].nunique(),
        "n_accessions": index["accession"].nunique(),
        "kinds": kinds.to_dict(),
        "files": odd[["path", "image_id", "kind", "reason"]].to_dict("records"),
        "missing": sorted(set(wanted) - set(here)),
        "duplicates": duplicates(index).to_dict("records"),
    }


def report(result: dict) -> str:
    """Return the result of :func:`verify` as lines of text."""
    lines = [
        f"{result['folder']}: {result['state']}, {result['n_originals']:,} of "
        f"{result['n_published']:,} files are the originals byte for byte, "
        f"{result['n_slides']} slides, {result['n_accessions']} accessions"
    ]
    return "\n".join(lines)
