"""Run the series: one papermill process a notebook, then the pages and the index.

Work goes on in a staging folder that starts as a copy of the run's last report. A notebook that is
done and valid by content is not run again. Only when all has succeeded does the staging folder take
the report's place, by renaming: a report never exists for a run that failed, and a failure leaves
the earlier report as it was.
"""

import argparse
import errno
import json
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.results import ROOT, write_atomic, write_json
from runner import audit, provenance, publish
from runner.execute import NotebookFailed, execute
from runner.plan import RESERVED, make_plan


def limit(text):
    """The time-out in seconds that `text` means; None for "none"."""
    if text != "none" and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number of seconds above 0; for no limit: --timeout none"
        )
    return None if text == "none" else int(text)


def arguments(argv):
    """The command line as a namespace."""
    parser = argparse.ArgumentParser(prog="python -m runner", description=__doc__)
    add = parser.add_argument
    add("--run", help="name of the run (default: demo, with real images breakhis)")
    add("--profile", default="demo", help="a folder of notebooks/params: smoke demo sample full")
    add("--data", help="folder of BreakHis images (else BREAKHIS_DIR, data/BreaKHis_v1, phantom)")
    add("--notebooks", default="", help='which to run, as in "03 04" (default: all)')
    add("-p", dest="given", action="append", default=[], metavar="NAME=value", help="a parameter")
    add("--fresh", action="store_true", help="run again also what is done and valid")
    add("--timeout", type=limit, default=7200, help="seconds a cell may take (7200), or none")
    add("--reports", default="reports/runs", help="folder that holds the runs (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None, root=ROOT):
    """The command; returns the exit status: 0 done, 1 failed, 130 stopped by ^C."""
    args = arguments(argv)
    for name in ("SIGTERM", "SIGHUP"):  # like ^C, unless ignored (nohup); Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        start, plan = time.monotonic(), make_plan(args, root)
        print(audit.name_images(plan["images"]), flush=True)
        with only_one(plan["runs"], plan["run"]) as (final, folder):
            run_series(plan, final, folder)
        publish.write_runs(plan["runs"], plan["root"])
    except KeyboardInterrupt:
        print("error: stopped; the same command carries on where this one stopped", file=sys.stderr)
        return 130
    except (NotebookFailed, OSError, ValueError) as error:
        full = "the disk is full: " if getattr(error, "errno", 0) == errno.ENOSPC else ""
        print(f"error: {full}{error}", file=sys.stderr)
        return 1
    print(f"report: {final / 'index.html'} ({time.monotonic() - start:.0f} s)")
    return 0


@contextmanager
def only_one(runs, run):
    """Hold the run's lock; gives the folder of its report and the one where it works."""
    runs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(runs / f".{run}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"run {run!r} is already going: wait for it, or name another (--run)"
        ) from None
    try:
        repair(runs / run)
        yield runs / run, runs / f".{run}.running"
    finally:
        lock.release()


def run_series(plan, final, folder):
    """Run what is not done and valid, check the tables and publish, or say that all is done."""
    asked = provenance.digest(plan["asked"])
    prepare(plan, final, folder, asked)
    record = {"notebooks": {}, **read_record(folder)}
    run_notebooks(plan, folder, record)
    if record == {**read_record(final), "asked": asked} and not publish.stale(final, record):
        shutil.rmtree(folder)
        print("nothing to do: notebooks, helpers, parameters, images and results are as they were")
        return
    done, facts = record["notebooks"], audit.facts(folder / "results")
    record |= {
        "run": plan["run"], "profile": plan["profile"], "finished": now(),
        "notebooks": dict(sorted(done.items())),
        "seconds": round(sum(entry["seconds"] for entry in done.values()), 1),
        "data": {name: value for name, value in facts.items() if name not in ("folder", "stamp")},
    }  # fmt: skip
    print("writing the pages")
    publish.write_pages(plan, folder, record)
    write_json(record, folder / "run.json")
    swap(final, folder)


def prepare(plan, final, folder, asked):
    """Fill the staging folder: with what a failed run left, if it asked for the same, else a copy.

    The last report is not copied where all is to be run again, or on other images.
    """
    if read_record(folder).get("asked") == asked and not plan["fresh"]:
        return
    shutil.rmtree(folder, ignore_errors=True)
    anew = plan["fresh"] and plan["wanted"] == list(plan["paths"])
    anew = anew or audit.fingerprint(final / "results", plan["images"]) == ""
    for name in ("results", "executed", "logs"):
        if (final / name).is_dir() and not anew:
            shutil.copytree(final / name, folder / name)
        (folder / name).mkdir(parents=True, exist_ok=True)
    last = {} if anew else read_record(final)
    write_json({**last, "asked": asked}, folder / "run.json")  # at the end: the copy is whole


def run_notebooks(plan, folder, record):
    """Run the wanted notebooks in order, each only if it is not done and valid; then check all."""
    results, done, here = folder / "results", record["notebooks"], {}
    for name in sorted(set(done) - set(plan["paths"])):
        print(f"{name}: no longer in notebooks/, its results are left out")
        forget(name, folder, record)
    images = audit.fingerprint(results, plan["images"])
    for name in plan["wanted"]:
        why = "--fresh" if plan["fresh"] else why_run(name, plan, folder, done, images)
        if not why:
            print(f"{name}: done and valid (finished {done[name]['finished']})")
            continue
        here = here or what_computes(plan["root"])
        print(f"{name}: running ({why})", flush=True)
        forget(name, folder, record)  # should it fail, no record may tell of results that are gone
        done[name] = {**run_one(name, plan, folder, done), **here}
        write_json(record, folder / "run.json")
        print(f"  {name}: done in {done[name]['seconds']:.0f} s", flush=True)
        images = done[name]["key"].get("images", images)
    audit.check_tables(results)
    if images and (how := audit.changed(results, plan["images"])):
        raise ValueError(f"the images changed while the run went on: {how}")
    for name, entry in done.items():
        entry["stale"] = why_run(name, plan, folder, done, images)


def what_computes(root):
    """Say with what is computed, and where a GPU is left idle; what `provenance.where` found."""
    here = provenance.where(root)
    print(f"{here['backend']} computes on {here['device']}", flush=True)
    if idle := provenance.idle_gpu(here):
        print(f"warning: {idle}", file=sys.stderr)
    return here


def why_run(name, plan, folder, done, images):
    """Why notebook `name` must run, in words; "" where it is done and valid by content.

    done: the entries of run.json; images: their fingerprint now (see `audit.fingerprint`).
    """
    if name not in done or not Path(folder, "executed", f"{name}.ipynb").exists():
        return "not done yet"
    entry, results = done[name], folder / "results"
    key = provenance.key_of(plan, name, done, images)
    now = provenance.result_hashes(results, name, entry["results"])
    parts = provenance.changes(entry["key"], key), provenance.changes(entry["results"], now)
    words = ("changed: ", "results missing or changed: ")
    return "; ".join(word + ", ".join(p) for word, p in zip(words, parts, strict=True) if p)


def run_one(name, plan, folder, done):
    """Run one notebook in the staging folder; gives its entry of run.json, or NotebookFailed."""
    path, root, results = plan["paths"][name], plan["root"], folder / "results"
    log = folder / "logs" / f"{name}.txt"
    given = results.relative_to(root).as_posix() if results.is_relative_to(root) else str(results)
    # The key is taken before the run: code that is edited meanwhile is not what ran.
    key, before, start = provenance.key_of(plan, name, done, ""), states(results), time.monotonic()
    try:
        execute(
            log, plan["timeout"], input_path=str(path), cwd=str(root),
            output_path=str(folder / "executed" / f"{name}.ipynb"),
            parameters={**plan["parameters"][name], RESERVED: given},
        )  # fmt: skip
    except NotebookFailed as error:
        raise NotebookFailed(f"{name} failed {error}\n    (log: {log})") from None
    written = {file for file, state in states(results).items() if before.get(file) != state}
    if f"summaries/{name}.json" not in written:
        raise NotebookFailed(f"{name} ended without its result: its last cell calls save_summary")
    if "images" in key:
        key["images"] = audit.fingerprint(results, plan["images"])
    return {
        "key": key, "parameters": provenance.public(plan["parameters"][name]),
        "results": provenance.result_hashes(results, name, written),
        "seconds": round(time.monotonic() - start, 1), "finished": now(),
    }  # fmt: skip


def states(results):
    """Modification time of each file under `results`, by its path there."""
    files = (file for file in results.rglob("[!.]*") if file.is_file())
    return {file.relative_to(results).as_posix(): file.stat().st_mtime_ns for file in files}


def forget(name, folder, record):
    """Remove what an earlier run of the notebook left: nothing stale must outlive it."""
    results = folder / "results"
    old = {f"results/{file}" for file in record["notebooks"].pop(name, {}).get("results", ())}
    for file in (old - {"results/metrics.csv"}) | {f"executed/{name}.ipynb", f"logs/{name}.txt"}:
        Path(folder, file).unlink(missing_ok=True)
    lines = provenance.metric_lines(results)
    if kept := [line for line in lines if not line.startswith(f"{name},")]:
        text = "\n".join([*kept, ""])
        write_atomic(results / "metrics.csv", lambda file: file.write_text(text, encoding="utf-8"))
    write_json(record, folder / "run.json")


def now():
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_record(folder):
    """The content of run.json in `folder`, empty where there is none."""
    path = Path(folder, "run.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def swap(final, folder):
    """Put the staging folder in place of the report, by renaming: readers find the old or the new."""
    if final.exists():
        final.rename(final.with_name(f".{final.name}.old"))
    try:
        folder.rename(final)
    finally:
        repair(final)


def repair(final):
    """Put the old report back where `swap` failed or was killed; else remove it."""
    old = final.with_name(f".{final.name}.old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)
