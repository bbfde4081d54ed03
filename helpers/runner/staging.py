"""Folders of a run: the lock, the staging copy, and the renaming that publishes it.

`reports/<run>` is the report that readers see. `reports/.<run>.running` is where a run works, and
`reports/.<run>.old` exists only for the moment between the two renames.
"""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

KEPT = ("results", "executed", "logs")


def running(reports, run):
    """The staging folder of a run."""
    return Path(reports, f".{run}.running")


@contextmanager
def only_one(reports, run):
    """Hold the run's lock; ValueError that names the process which has it."""
    lock, holder = FileLock(Path(reports, f".{run}.lock")), Path(reports, f".{run}.pid")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        raise ValueError(
            f"run {run!r} is already going, as process {pid}: wait for it, or name another (--run)"
        ) from None
    try:
        holder.write_text(f"{os.getpid()}\n")
        repair(reports, run)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def repair(reports, run):
    """Undo what a kill between the two renames of `swap` left behind."""
    final, old = Path(reports, run), Path(reports, f".{run}.old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def prepare(reports, run, asked, fresh=False):
    """The staging folder: the one left by a failed run, else a copy of the last report's results.

    asked: the hash of what is asked for; what a failed run left is used only if its record has the
    same. fresh: begin with nothing; so does a run whose report has no executed notebooks, as in a
    fresh clone, which holds only the pages of the demo.
    """
    folder, final = running(reports, run), Path(reports, run)
    empty = fresh or not (final / "executed").is_dir()
    if fresh or read_record(folder).get("asked") != asked:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "run.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in KEPT:
            if (final / name).is_dir() and not empty:
                shutil.copytree(final / name, folder / name)
            (folder / name).mkdir(parents=True, exist_ok=True)
        if (final / "run.json").exists() and not empty:
            shutil.copy(final / "run.json", folder / "run.json")  # last: the copy is whole
    return folder


def read_record(folder):
    """The content of run.json in `folder`, empty where there is none."""
    path = Path(folder, "run.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def swap(reports, run):
    """Put the staging folder in the report's place; a reader finds the old or the new one.

    Where that fails, the old report is put back.
    """
    final, old = Path(reports, run), Path(reports, f".{run}.old")
    if final.exists():
        final.rename(old)
    try:
        running(reports, run).rename(final)
    except BaseException:
        repair(reports, run)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return final
