"""The hand-over between notebooks: tables under ``reports/<run>/results/``, written atomically.

A notebook reads what earlier notebooks wrote and writes its own results in its last cell. Nothing
else passes from one notebook to the next, so each table has fixed columns, checked on writing.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]

# Which notebook writes a table: the name in the message when the table is missing.
WRITERS = {"index.csv": "01_eda", "data.json": "01_eda", "splits.csv": "02_patient_split"}

METRIC_COLUMNS = [
    "notebook", "model", "task", "protocol", "magnification", "level", "metric",
    "value", "ci_low", "ci_high", "n_images", "n_groups", "leaky",
]  # fmt: skip
# What the tables of predictions repeat of an image from index.csv.
IMAGE_FACTS = ["image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type"]
PREDICTION_COLUMNS = [*IMAGE_FACTS, "task", "protocol", "fold", "seed", "model", "p_malignant"]


def resolve(path: str | Path) -> Path:
    """Return ``path`` as an absolute path; a relative one is relative to the repository root."""
    return ROOT / Path(path)


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
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write ``frame`` as CSV or Parquet, by the suffix of ``path``, without its index."""
    if Path(path).suffix == ".parquet":
        return write_atomic(path, lambda file: frame.to_parquet(file, index=False))
    return write_atomic(path, lambda file: frame.to_csv(file, index=False, lineterminator="\n"))


def write_json(content: dict, path: str | Path) -> Path:
    """Write ``content`` as indented JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return write_atomic(path, lambda file: file.write_text(text, encoding="utf-8"))


def _existing(results: str | Path, name: str) -> Path:
    path = resolve(results) / name
    if not path.exists():
        writer = WRITERS.get(name, Path(name).stem)
        raise FileNotFoundError(
            f"{name} is not in {results}: run {writer} first, or set RESULTS to the results "
            f"folder of a run that has it."
        )
    return path


def read_table(results: str | Path, name: str) -> pd.DataFrame:
    """Read a table of a run, for example ``splits.csv`` or ``predictions/03_baseline_cnn.parquet``.

    Raises FileNotFoundError that names the notebook to run first. Empty cells of a CSV file are
    empty strings in text columns and NaN in numeric ones. Numbers are read as they were written, to
    the last digit, which pandas does from 3.1 on.
    """
    path = _existing(results, name)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    frame = pd.read_csv(path, keep_default_na=False)
    for column in frame.columns:
        if column in ("value", "ci_low", "ci_high"):
            frame[column] = pd.to_numeric(frame[column])
    return frame


def read_json(results: str | Path, name: str) -> dict:
    """Read a JSON file of a run; errors as in :func:`read_table`."""
    return json.loads(_existing(results, name).read_text(encoding="utf-8"))


def _require(frame: pd.DataFrame, columns: list[str], table: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{table} lacks the columns {', '.join(missing)}.")


def save_metrics(results: str | Path, notebook: str, frame: pd.DataFrame) -> Path:
    """Replace the rows of ``notebook`` in ``metrics.csv`` by ``frame``; other rows are kept.

    ``frame`` has the columns METRIC_COLUMNS; values and interval ends are finite (an interval may
    be missing as a whole where fewer than two groups exist).
    """
    _require(frame, METRIC_COLUMNS, "metrics.csv")
    if not frame["value"].astype(float).map(lambda value: abs(value) < float("inf")).all():
        raise ValueError("metrics.csv takes finite values only: leave undefined metrics out.")
    path = resolve(results) / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".metrics.lock")):
        parts = [frame.assign(notebook=notebook)[METRIC_COLUMNS].astype({"magnification": str})]
        if path.exists():
            old = read_table(results, "metrics.csv").astype({"magnification": str})
            parts.insert(0, old[old["notebook"] != notebook])
        table = pd.concat([part for part in parts if len(part)] or parts[:1])
        return write_table(table.sort_values("notebook", kind="stable"), path)


def save_predictions(results: str | Path, notebook: str, frame: pd.DataFrame) -> Path:
    """Write ``predictions/<notebook>.parquet``; ``frame`` has at least PREDICTION_COLUMNS."""
    _require(frame, PREDICTION_COLUMNS, f"predictions/{notebook}.parquet")
    if not frame["p_malignant"].between(0, 1).all():
        raise ValueError(f"predictions of {notebook}: p_malignant must lie in 0 to 1.")
    return write_table(frame, resolve(results) / "predictions" / f"{notebook}.parquet")


def save_summary(
    results: str | Path, notebook: str, question: str, finding: str, headline: dict | None
) -> Path:
    """Write what the report's header and the index page say of a notebook.

    ``finding`` is one sentence rendered from the metrics. ``headline`` has label, value, ci_low and
    ci_high (fractions), or is None where the notebook has no metric.
    """
    content = {"question": question, "finding": finding, "headline": headline}
    return write_json(content, resolve(results) / "summaries" / f"{notebook}.json")
