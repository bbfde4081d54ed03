"""The images of a run, and checks on its finished tables, apart from the code that made them."""

import io
import json
from contextlib import redirect_stdout

from helpers import data
from helpers.images import list_images
from helpers.results import ROOT, read_table, resolve
from helpers.splits import check_disjoint

ROLES = {"predictions": ["test"], "validation": ["train", "val"]}


def load(path):
    """The content of a JSON file, empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def source(path):
    """The folder that notebook 01 would choose for its parameter DATA; None: the phantom."""
    with redirect_stdout(io.StringIO()):
        folder = data.find_data(path, lambda: ROOT)
    return None if folder == ROOT else folder


def name_images(folder):
    """The images of `folder` (None: the phantom) in a line, counted by their names."""
    around = (folder, *folder.parents[:4]) if folder else ()
    if not folder or any((place / "phantom.json").is_file() for place in around):
        return "PHANTOM: synthetic images, not tissue"
    files = list_images(folder)[0]
    names = filter(None, (data.NAME.fullmatch(file.stem) for file in files))
    slides = {(name["type"], name["accession"], name["letters"]) for name in names}
    return f"{len(files):,} real images of {len(slides)} slides, in {folder.name}"


def fingerprint(results, folder):
    """Fingerprint of the images of a run; None before 01, "" where now `source` is other images."""
    if not (found := load(results / "data.json")):
        return None
    same = resolve(found["folder"]) == folder if folder else found["kind"] == "phantom"
    return found["images"] if same and not data.images_changed(results) else ""


def check_tables(results):
    """ValueError that names the first leak: folds that overlap, rows on images of another role."""
    if not (results / "splits.csv").exists():
        return
    index, splits = read_table(results, "index.csv"), read_table(results, "splits.csv")
    for protocol in splits["protocol"].unique():
        check_disjoint(index, splits, protocol)
    for path in sorted(path for part in ROLES for path in results.glob(f"{part}/*.parquet")):
        name, roles = f"{path.parent.name}/{path.stem}", ROLES[path.parent.name]
        table = read_table(results, f"{name}.parquet")[["image_id", "protocol", "fold"]]
        table = table.astype({"fold": int}).merge(splits, "left").fillna({"role": "none"})
        wrong = table[~table["role"].isin(roles)]
        if len(wrong):
            row, wanted = wrong.iloc[0], " or ".join(roles)
            first = f"{row['image_id']} ({row['protocol']}, fold {row['fold']}, role {row['role']})"
            raise ValueError(f"{name}: {len(wrong)} rows not on {wanted} images, as {first}")
