"""One step of a run: whether a notebook is done and valid, and if not, to run it."""

import sys
import time
from pathlib import Path

from helpers.results import write_atomic
from helpers.runner import audit, failures, notebooks, provenance, worker


class RunFailed(Exception):
    """A run that cannot go on: the message names the notebook, the cell and the cause."""


def why_run(name, plan, folder, record, data):
    """Why notebook `name` must run, in words; None where it is done and valid by content.

    data: fingerprint of the images now, or None (see `data_now`).
    """
    done = record.get("notebooks", {})
    if name not in done:
        return "not done yet"
    if not Path(folder, "executed", f"{name}.ipynb").exists():
        return "its executed copy is missing"
    entry, parameters = done[name], plan["parameters"][name]
    key = provenance.key_of(plan["paths"][name], plan["root"], parameters, done, data)
    if changed := provenance.changes(entry["key"], key):
        return "changed: " + ", ".join(changed)
    names = [result for result in entry["results"] if result != "metrics.csv"]
    now = provenance.result_hashes(folder / "results", name, names)
    if changed := provenance.changes(entry["results"], now):
        return "results missing or changed: " + ", ".join(changed)
    return None


def data_now(plan, folder):
    """Fingerprint of the images of a run; None where it has none, or others would be chosen now."""
    given = [values["DATA"] for values in plan["parameters"].values() if "DATA" in values]
    return audit.data_of(folder / "results", given[0] if given else None)


def check_data(plan, folder, record, data):
    """ValueError where the images are not those of fingerprint `data`, which a notebook read."""
    try:
        if data == data_now(plan, folder):
            return
        what = audit.changed_images(folder / "results")
    except FileNotFoundError as error:
        what = str(error)
    readers = [name for name, entry in record["notebooks"].items() if "data" in entry["key"]]
    raise ValueError(
        f"data changed while running, after {', '.join(readers)} had read it: {what} "
        "Run again once the folder is at rest."
    )


def check_needs(plan, record):
    """ValueError where a wanted notebook reads results that no notebook has written or will."""
    have = set(plan["wanted"]) | set(record.get("notebooks", {}))
    for name in plan["wanted"]:
        lacking = [n for n in notebooks.needs(notebooks.read(plan["paths"][name])) if n not in have]
        if lacking:
            raise ValueError(
                f"{name} reads the results of {', '.join(lacking)}, which this run does not have: "
                f'add it, as in --notebooks "{lacking[0].split("_")[0]} {name.split("_")[0]}"'
            )


def run_one(name, plan, folder, record, out):
    """Run one notebook in the staging folder and enter it in `record`; RunFailed if it fails."""
    path, results = plan["paths"][name], folder / "results"
    executed, log = folder / "executed" / f"{name}.ipynb", folder / "logs" / f"{name}.txt"
    inside = results.is_relative_to(plan["root"])
    given = results.relative_to(plan["root"]).as_posix() if inside else str(results)
    parameters = {**plan["parameters"][name], "RESULTS": given}
    # The key is taken before the run: code that is edited meanwhile is not what ran.
    key = provenance.key_of(path, plan["root"], parameters, record["notebooks"], None)
    where = provenance.where(plan["root"])
    before, start = provenance.snapshot(results), time.monotonic()
    n_cells = len(notebooks.read(path)["cells"]) + 1  # papermill adds the cell of parameters
    status, cell = worker.execute(
        path, executed, parameters, log, plan["timeout"], plan["root"], progress(n_cells)
    )
    seconds = time.monotonic() - start
    written = [f for f, state in provenance.snapshot(results).items() if before.get(f) != state]
    if status:
        lines = failures.explain(executed, log, cell, status)
        raise RunFailed(f"{name} failed {chr(10).join(lines)}\n    (log: {log})")
    if f"summaries/{name}.json" not in written:
        raise RunFailed(f"{name} ended without its result: its last cell must call save_summary")
    names = [f for f in written if f != "metrics.csv" and not Path(f).name.startswith(".")]
    if "DATA" in parameters:
        key["data"] = data_now(plan, folder)
    record["notebooks"][name] = {
        "title": notebooks.title(notebooks.read(path)),
        "key": key,
        "parameters": provenance.public(parameters),
        "results": provenance.result_hashes(results, name, names),
        "seconds": round(seconds, 1),
        "finished": provenance.now(),
        **where,
    }
    out(f"  {name}: done in {seconds:.0f} s")


def forget(name, folder, record):
    """Remove what an earlier run of the notebook left: nothing stale must outlive it."""
    entry, results = record["notebooks"].pop(name, {"results": {}}), folder / "results"
    for result in entry["results"]:
        if result != "metrics.csv":  # shared by all notebooks
            Path(results, result).unlink(missing_ok=True)
    if own := set(provenance.metric_rows(results, name)):
        lines = (results / "metrics.csv").read_text(encoding="utf-8").splitlines()
        text = "".join(f"{line}\n" for line in lines if line not in own)
        write_atomic(results / "metrics.csv", lambda file: file.write_text(text, encoding="utf-8"))
    (folder / "executed" / f"{name}.ipynb").unlink(missing_ok=True)
    (folder / "logs" / f"{name}.txt").unlink(missing_ok=True)


def forget_removed(plan, folder, record, out):
    """Forget the notebooks of the record that the series no longer has (renamed or removed)."""
    for name in sorted(set(record["notebooks"]) - set(plan["paths"])):
        out(f"{name}: no longer in notebooks/, its results are left out")
        forget(name, folder, record)


def progress(n_cells):
    """A function that shows the cell at work: on a terminal one line, elsewhere one a minute."""
    shown = {"cell": -1, "at": time.monotonic()}

    def on_cell(cell, seconds):
        text = f"  cell {cell} of {n_cells}, {seconds:.0f} s"
        if sys.stdout.isatty():
            print(f"\r{text:<60}\r", end="", flush=True)
        elif time.monotonic() - shown["at"] > 60:
            shown.update(at=time.monotonic())
            print(text, flush=True)

    return on_cell
