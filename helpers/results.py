"""The hand-over between notebooks: tables under a run's ``results/``, written atomically.

Nothing else passes from one notebook to the next, so the tables have fixed columns, and each file
carries the fingerprint of the images that it was computed from: reading it beside other images is
an error. ``run`` is what ``data.open_run`` returns; reading also takes a results folder.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
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
# Which notebook writes a table that does not bear its name.
WRITERS = dict.fromkeys(["index.csv", "problems.csv", "image_quality.csv", "data.json"], "01_eda")
WRITERS["splits.csv"] = "02_patient_split"


def resolve(path: str | Path) -> Path:
    """Return ``path`` as an absolute path; a relative one is relative to the repository root."""
    return ROOT / Path(path)


@contextmanager
def locked(file: Path, cure: str):
    """Hold the lock ``file``; say so where another process has it, OSError where none can be had.

    ``cure`` says where else the work could go, as in "set RESULTS to a folder of your own".
    """
    lock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=3)
        except Timeout:
            print(f"Waiting for another process that holds {file}; or {cure}.", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise OSError(f"{file} cannot be locked ({error}): {cure}.") from None
    try:
        yield
    finally:
        lock.release()


def write_atomic(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    A reader sees the old file or the new one, never a part. The temporary file is removed when
    ``write`` fails.
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
    return write_atomic(
        run.results / name, lambda file: frame.to_csv(file, index=False, lineterminator="\n")
    )


def read_table(run, name: str) -> pd.DataFrame:
    """Read a table of a run, for example ``splits.csv`` or ``predictions/03_baseline_cnn.parquet``.

    A CSV column whose filled cells are all numbers is numeric, with NaN where it is empty; other
    columns are text, with empty strings. Numbers are as they were written, to the last digit.
    FileNotFoundError or ValueError names the notebook to run (again).
    """
    path = _existing(run, name)
    frame = _load(path)
    _check_images(run, name, *frame.get("images", pd.Series([""])).unique())
    return frame.drop(columns="images")


def _load(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    as_text = {"images": str} | ({"magnification": str} if path.name == "metrics.csv" else {})
    frame = pd.read_csv(path, keep_default_na=False, dtype=as_text)
    for column in frame.columns.difference(list(as_text)):
        if frame[column].dtype == "str" and (filled := frame[column] != "").any():
            numbers = pd.to_numeric(frame[column], errors="coerce")
            frame[column] = numbers if numbers[filled].notna().all() else frame[column]
    return frame


def read_json(run, name: str) -> dict:
    """Read a JSON file of a run, for example ``data.json``; errors as in :func:`read_table`."""
    content = json.loads(_existing(run, name).read_text(encoding="utf-8"))
    _check_images(run, name, content.get("images", ""))
    return content


def save_arrays(run, name: str, **arrays) -> Path:
    """Write ``arrays`` to an .npz file of a run, for example ``models/04_heads.npz``."""
    return write_atomic(
        run.results / name, lambda file: np.savez(file, images=run.images, **arrays)
    )


def read_arrays(run, name: str) -> dict[str, np.ndarray]:
    """Read an .npz file of a run; errors as in :func:`read_table`."""
    with np.load(_existing(run, name)) as file:
        arrays = dict(file)
    _check_images(run, name, str(arrays.pop("images", "")))
    return arrays


def writer(name: str) -> str:
    """Return the notebook that writes a file of a run: ``models/04_heads.npz`` is 04's."""
    stem = Path(name).stem
    numbered = sorted((ROOT / "notebooks").glob(f"{stem[:3]}*.ipynb")) if stem[:2].isdigit() else []
    return WRITERS.get(name) or (numbered[0].stem if numbered else stem)


def stamps(results: str | Path) -> dict[str, str]:
    """Return the fingerprint in each file of a results folder, by name; "" where there is none."""
    found = {}
    for path in sorted(resolve(results).rglob("[!.]*.*")):
        name = path.relative_to(resolve(results)).as_posix()
        if path.suffix in (".csv", ".parquet"):
            values = _load(path).get("images", pd.Series([""])).unique()
        elif path.suffix == ".json":
            values = [json.loads(path.read_text(encoding="utf-8")).get("images", "")]
        elif path.suffix == ".npz":
            with np.load(path) as file:
                values = [str(file.get("images", ""))]
        else:
            continue
        found[name] = " ".join(values)
    return found


def _existing(run, name: str) -> Path:
    results = resolve(getattr(run, "results", run))
    if not (results / name).exists():
        raise FileNotFoundError(
            f"{name} is not in {results}: run {writer(name)} first, or set RESULTS to the results "
            "folder of a run that has it."
        )
    return results / name


def _check_images(run, name: str, *found: str) -> None:
    """Raise ValueError unless a file was computed on the images of ``run``."""
    if name == "data.json" and not hasattr(run, "images"):
        return
    wanted = run.images if hasattr(run, "images") else read_json(run, "data.json")["images"]
    if set(found) - {wanted}:
        raise ValueError(f"{name} was computed on other images: run {writer(name)} again.")


def _require(frame: pd.DataFrame, columns: list[str], table: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{table} lacks the columns {', '.join(missing)}.")


def save_metrics(run, frame: pd.DataFrame) -> Path:
    """Replace the rows of ``run.notebook`` in ``metrics.csv`` by ``frame``; other rows are kept.

    ``frame`` has the columns METRIC_COLUMNS, of which notebook and leaky may be left out. Values
    are finite; an interval may be missing. Rows of other images go, as none can be read.
    """
    frame = {"leaky": ""} | dict(frame.items()) | {"notebook": run.notebook}
    frame = pd.DataFrame(frame)
    _require(frame, METRIC_COLUMNS, "metrics.csv")
    if not np.isfinite(frame["value"].astype(float)).all():
        raise ValueError("metrics.csv takes finite values only: leave undefined metrics out.")
    path = resolve(run.results) / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".metrics.lock"), "set RESULTS to a folder of your own"):
        parts = [frame[METRIC_COLUMNS].astype({"magnification": str})]
        if path.exists():
            old = _load(path)
            kept = old["notebook"].ne(run.notebook) & old["images"].eq(run.images)
            parts.insert(0, old.loc[kept, METRIC_COLUMNS])
        table = pd.concat([part for part in parts if len(part)] or parts[-1:])
        return save_table(run, "metrics.csv", table.sort_values("notebook", kind="stable"))


def predictions(index, rows, p, *, fold, model, seed, task="malignancy") -> pd.DataFrame:
    """Return the table of predictions on the ``rows`` (int positions) of ``index``.

    p: P(malignant), float (n,), or P of the types, float (n, 8) in the order of P_TYPES: the task
    is then tumor_type, and P(malignant) their sum over the malignant types. fold: a splits.Fold.
    """
    p = np.asarray(p, float)
    if p.shape not in ((len(rows),), (len(rows), len(P_TYPES))):
        raise ValueError(f"p has the shape {p.shape}; ({len(rows)},) or ({len(rows)}, 8) is right.")
    types = p.ndim == 2
    facts = {"task": "tumor_type" if types else task, "protocol": fold.protocol}
    facts |= {"fold": fold.number, "seed": seed, "model": model}
    facts["p_malignant"] = p[:, 4:].sum(axis=1).clip(0, 1) if types else p
    frame = index.iloc[rows][IMAGE_FACTS].reset_index(drop=True).assign(**facts)
    return frame.assign(**dict(zip(P_TYPES, p.T, strict=True))) if types else frame


def save_predictions(run, frame: pd.DataFrame, part: str = "test") -> Path:
    """Write ``predictions/<notebook>.parquet``, or ``validation/...`` with ``part="val"``.

    ``frame`` has at least PREDICTION_COLUMNS, with p_malignant in 0 to 1.
    """
    folder = {"test": "predictions", "val": "validation"}[part]
    name = f"{folder}/{run.notebook}.parquet"
    _require(frame, PREDICTION_COLUMNS, name)
    if not frame["p_malignant"].between(0, 1).all():
        raise ValueError(f"{name}: p_malignant must lie in 0 to 1.")
    return save_table(run, name, frame)


def save_summary(run, question: str, finding: str, headline: dict | None = None) -> Path:
    """Write what the pages say of a notebook; the last thing that it does.

    ``finding`` is one sentence rendered from the metrics. ``headline`` has label, value, ci_low and
    ci_high (fractions; NaN where there is none), or is None where the notebook has no metric.
    """
    if headline:
        none = {key: None for key, v in headline.items() if isinstance(v, float) and math.isnan(v)}
        headline = headline | none
    content = {"question": question, "finding": finding, "headline": headline}
    path = run.results / "summaries" / f"{run.notebook}.json"
    return write_json(content | {"images": run.images}, path)
