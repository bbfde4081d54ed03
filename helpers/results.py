"""The hand-over between notebooks: tables under a run's ``results/``, written atomically.

Each file carries the fingerprint of the images that it was computed from (a last column, a key or
an array ``images``): reading it beside other images is an error. ``run`` is what ``data.open_run``
returns; reading also takes a results folder.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[1]

P_TYPES = ["p_A", "p_F", "p_PT", "p_TA", "p_DC", "p_LC", "p_MC", "p_PC"]  # benign, then malignant
METRIC_COLUMNS = [
    "notebook", "model", "task", "protocol", "magnification", "level", "metric",
    "value", "ci_low", "ci_high", "n_images", "n_groups", "leaky",
]  # fmt: skip
# What the tables of predictions repeat of an image from index.csv.
IMAGE_FACTS = ["image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type"]
PREDICTION_COLUMNS = [*IMAGE_FACTS, "task", "protocol", "fold", "seed", "model", "p_malignant"]
PARTS = {"test": "predictions", "val": "validation"}  # folders of predictions
# Which notebook writes a file that is not called after it.
WRITERS = dict.fromkeys(["index.csv", "problems.csv", "image_quality.csv", "data.json"], "01_eda")
WRITERS |= dict.fromkeys(["splits.csv", "metrics.csv"], "02_patient_split")
PATIENCE = 3  # seconds of waiting for a lock without a word


def resolve(path: str | Path) -> Path:
    """Return ``path`` as an absolute path; a relative one is relative to the repository root."""
    return ROOT / Path(path)


def locked(file: Path, cure: str):
    """Take the lock ``file`` for a `with` block; say so where one has to wait for another process.

    OSError where none can be had; ``cure`` says what to do then, as in "set RESULTS to ...".
    """
    lock = FileLock(file)
    try:
        with suppress(Timeout):
            return lock.acquire(timeout=PATIENCE)
        print(f"Waiting: another process holds {file}. Else {cure}.", file=sys.stderr)
        return lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise OSError(f"The lock {file} cannot be had ({error}): {cure}.") from None


def write_atomic(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    A reader sees the old file or the new one, never a part.
    """
    path = resolve(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(content: dict, path: str | Path) -> Path:
    """Write ``content`` as indented JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=lambda number: number.item())
    return write_atomic(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def save_table(run, name: str, frame: pd.DataFrame) -> Path:
    """Write ``frame`` as CSV or Parquet, by the suffix of ``name``, without its index."""
    frame = frame.assign(images=run.images)
    if name.endswith(".parquet"):
        return write_atomic(run.results / name, lambda file: frame.to_parquet(file, index=False))
    text = frame.to_csv(index=False, lineterminator="\n")
    return write_atomic(run.results / name, lambda file: file.write_bytes(text.encode()))


def save_arrays(run, name: str, **arrays) -> Path:
    """Write ``arrays`` to an .npz file of a run, for example ``models/04_heads.npz``."""
    arrays |= {"images": run.images}
    return write_atomic(run.results / name, lambda file: np.savez(file, **arrays))


def read_table(run, name: str):
    """Read a table of a run, for example ``splits.csv`` or ``predictions/03_baseline_cnn.parquet``.

    A CSV column whose filled cells are all numbers is numeric, to the last digit, and NaN where it
    is empty; empty text is "". The same function reads JSON (a dict) and .npz (a dict of arrays).
    FileNotFoundError or ValueError names the notebook to run (again).
    """
    results = resolve(getattr(run, "results", run))
    if not (results / name).exists():
        raise FileNotFoundError(
            f"{name} is not in {results}: run {writer(name)} first, or set RESULTS to the results "
            "folder of a run that has it."
        )
    content, found = _load(results, name)
    if name != "data.json" or hasattr(run, "images"):
        right = getattr(run, "images", None) or read_json(results, "data.json").get("images")
        if stale := [notebook for images, notebook in found.items() if images != right]:
            raise ValueError(f"{name} was computed on other images: run {stale[0]} again.")
    return content


read_json = read_arrays = read_table


def _load(results: Path, name: str) -> tuple:
    """Return what is in a file, and the fingerprints it carries ("": none) with their notebooks."""
    path = results / name
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        return content, {content.get("images", ""): writer(name)}
    if path.suffix == ".npz":
        with np.load(path) as file:
            content = dict(file)
        return content, {str(content.pop("images", "")): writer(name)}
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    images = frame.pop("images") if "images" in frame else [""]
    notebooks = frame.get("notebook", [writer(name)] * len(images))
    return frame, dict(zip(images, notebooks, strict=True))


def _read_csv(path: Path) -> pd.DataFrame:
    as_text = ["images", "duplicate_of", "leaky"]
    as_text += ["magnification"] if path.name == "metrics.csv" else []  # 40 to 400, or "all"
    frame = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(as_text, str))
    for column in frame.columns.difference(as_text):
        numbers = pd.to_numeric(frame[column].replace("", np.nan), errors="coerce")
        if (numbers.notna() | (frame[column] == "")).all():
            frame[column] = numbers
    return frame


def writer(name: str) -> str:
    """Return the notebook that writes a file of a run: ``models/04_heads.npz`` is 04's."""
    stem = Path(name).stem
    numbered = (ROOT / "notebooks").glob(f"{stem[:3]}*.ipynb") if stem[:2].isdigit() else []
    return WRITERS.get(name) or next((notebook.stem for notebook in numbered), stem)


def of_other_images(results: Path, images: str) -> dict[str, str]:
    """Return the files below ``results`` that carry another fingerprint, with their notebooks."""
    stale = {}
    for file in sorted(results.rglob("[!.]*")):
        name = file.relative_to(results).as_posix()
        with suppress(ValueError, OSError, AttributeError):  # no table, or not of a notebook
            found = _load(results, name)[1]
            stale.update((name, found[other]) for other in found if other not in (images, ""))
    return stale


def _require(frame: pd.DataFrame, columns: list[str], table: str) -> None:
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f"{table} lacks the columns {', '.join(missing)}.")


def save_metrics(run, frame: pd.DataFrame) -> Path:
    """Replace the rows of ``run.notebook`` in ``metrics.csv`` by ``frame``; other rows are kept.

    ``frame`` has METRIC_COLUMNS without notebook (and leaky, "" by default). Values are finite; an
    interval may be missing. Rows that were computed on other images go: none could be read.
    """
    frame = frame.assign(notebook=run.notebook, leaky=frame.get("leaky", ""))
    _require(frame, METRIC_COLUMNS, "metrics.csv")
    if not np.isfinite(frame["value"].astype(float)).all():
        raise ValueError("metrics.csv takes finite values only: leave undefined metrics out.")
    path = resolve(run.results) / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".metrics.lock"), "set RESULTS to a folder of your own"):
        if path.exists():
            old = _read_csv(path)
            old = old[old["notebook"].ne(run.notebook) & old["images"].eq(run.images)]
            frame = pd.concat([old, frame]) if len(old) else frame
        frame = frame[METRIC_COLUMNS].sort_values("notebook", kind="stable")
        return save_table(run, path.name, frame)


def predictions(index, rows, p, *, fold, model, seed, task="malignancy") -> pd.DataFrame:
    """Return the table of predictions on the ``rows`` (int positions) of ``index``.

    p: P(malignant), float (n,), or P of the types, float (n, 8) in the order of P_TYPES: the task
    is then tumor_type, and P(malignant) their sum over the malignant types. fold: a splits.Fold.
    """
    p = np.asarray(p, float)
    if p.shape not in ((len(rows),), (len(rows), len(P_TYPES))):
        raise ValueError(f"p has the shape {p.shape}; ({len(rows)},) or ({len(rows)}, 8) is right.")
    of_types = {}
    if p.ndim == 2:
        task, of_types = "tumor_type", dict(zip(P_TYPES, p.T, strict=True))
        p = p[:, 4:].sum(axis=1).clip(0, 1)
    facts = {"task": task, "protocol": fold.protocol, "fold": fold.number, "seed": seed}
    frame = index.iloc[rows][IMAGE_FACTS].reset_index(drop=True)
    return frame.assign(**facts, model=model, p_malignant=p, **of_types)


def save_predictions(run, frame: pd.DataFrame, part: str = "test") -> Path:
    """Write ``frame``, with PREDICTION_COLUMNS, to predictions/ or ("val") validation/."""
    name = f"{PARTS[part]}/{run.notebook}.parquet"
    _require(frame, PREDICTION_COLUMNS, name)
    if not frame["p_malignant"].between(0, 1).all():
        raise ValueError(f"{name}: p_malignant must lie in 0 to 1.")
    return save_table(run, name, frame)


def save_summary(run, question: str, finding: str, headline: dict | None = None) -> None:
    """Write what the pages say of a notebook; the last thing that it does.

    ``finding`` is one sentence rendered from the metrics. ``headline`` has label, value, ci_low and
    ci_high (fractions; NaN where there is none), or is None where the notebook has no metric.
    """
    if headline:
        headline = {key: None if pd.isna(value) else value for key, value in headline.items()}
    content = {"question": question, "finding": finding, "headline": headline, "images": run.images}
    write_json(content, run.results / "summaries" / f"{run.notebook}.json")
