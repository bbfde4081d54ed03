"""The list of runs: what each was computed on, and what has changed since."""

from pathlib import Path

from helpers.data import open_run
from helpers.runner import provenance, staging

KINDS = {"phantom": "phantom", "sample": "real", "database": "real"}


def common(record):
    """What every page of a run shows: badge, provenance."""
    data = record.get("data") or {}
    return {
        "run": record, "kind": KINDS.get(data.get("kind"), "none"),
        "badge": data.get("badge", "No image data"),
    }  # fmt: skip


def list_runs(reports, root, current=None):
    """All runs under `reports` with what is stale in each: list of dicts, the newest first.

    current: record of the run that is about to be published; it stands for its older self.
    """
    records = [staging.read_record(path.parent) for path in Path(reports).glob("*/run.json")]
    records = [r for r in records if r.get("pages") and (not current or r["run"] != current["run"])]
    rows = [
        {**common(record), "stale": stale_parts(record, root, reports)}
        for record in records + ([current] if current else [])
    ]
    return sorted(rows, key=lambda row: row["run"]["finished"], reverse=True)


def stale_parts(record, root, reports):
    """Names of what has changed since the run: notebooks, helpers, lock, facts, data."""
    changed = set()
    for name, entry in record["notebooks"].items():
        path = Path(root, "notebooks", f"{name}.ipynb")
        now = provenance.code_key(path, root) if path.exists() else {}
        then = {part: entry["key"][part] for part in entry["key"] if "/" in part or part in now}
        then = {part: value for part, value in then.items() if not part.startswith("parameter ")}
        changed |= set(provenance.changes(then, now))
        changed |= {"results of an earlier notebook"} if entry.get("stale") else set()
    if data_moved(Path(reports, record["run"], "results")):
        changed.add("data")
    return sorted(changed)


def data_moved(results):
    """True where the images of a run are gone or changed. Where only pages are kept: False."""
    if not Path(results, "data.json").exists():
        return False
    try:
        open_run(Path(results).resolve())
    except (FileNotFoundError, ValueError):
        return True
    return False
