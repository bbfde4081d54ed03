"""Run the series, then publish it. A run works in a copy of its last report, which takes that one's
place only when all has succeeded: a failure leaves the earlier report as it was.
"""

import argparse
import shutil
import sys
import time
from datetime import UTC, datetime

from filelock import FileLock, Timeout
from yaml import YAMLError

from helpers.results import ROOT, write_json
from runner import audit, provenance, publish
from runner.execute import execute
from runner.plan import HIDDEN, make_plan


def arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m runner", description=__doc__)
    add = parser.add_argument
    add("--run", help="name of the run (default: demo, with real images breakhis)")
    add("--profile", default="demo", help="a folder of notebooks/params: smoke demo sample full")
    add("--data", help="folder of BreakHis images (else BREAKHIS_DIR, data/BreaKHis_v1, phantom)")
    add("--notebooks", default="", help='which to run, as in "03 04" (default: all)')
    add("-p", dest="given", action="append", default=[], metavar="NAME=value", help="a parameter")
    add("--fresh", action="store_true", help="run again also what is done and valid")
    add("--no-tissue", dest="tissue", action="store_false", help="pages without such pictures")
    add("--timeout", type=int, default=7200, help="seconds that a cell may take (%(default)s)")
    add("--reports", default="reports/runs", help="folder that holds the runs (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None, root=ROOT):
    """The command; returns the exit status: 0 done, 1 failed, 130 stopped by ^C."""
    args, start = arguments(argv), time.monotonic()
    try:
        plan = make_plan(args, root)
        print(audit.name_images(plan["images"]), flush=True)
        final = plan["runs"] / plan["run"]
        plan["runs"].mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f".{final.name}.lock"), timeout=0):
            repair(final)
            run_series(plan, final, final.with_name(f".{final.name}.running"))
        publish.write_runs(plan["runs"], plan["root"])
    except KeyboardInterrupt:
        print("error: stopped; the same command carries on where this one stopped", file=sys.stderr)
        return 130
    except Timeout:
        print(f"error: run {final.name!r} is already going: wait, or name another", file=sys.stderr)
        return 1
    except (OSError, RuntimeError, ValueError, YAMLError) as error:
        full = "the disk is full: free some space. " if "No space left" in str(error) else ""
        print(f"error: {full}{error}"[:4000], file=sys.stderr)
        return 1
    print(f"report: {final / 'index.html'} ({time.monotonic() - start:.0f} s)")
    return 0


def run_series(plan, final, folder):
    """Run what is not done and valid in `folder`, check the tables, publish it as `final`."""
    prepare(plan, final, folder)
    record = {"notebooks": {}, **audit.load(folder / "run.json")}
    run_notebooks(plan, folder, record)
    facts = audit.load(folder / "results" / "data.json")
    record["data"] = {name: facts[name] for name in facts.keys() - {"folder", "stamp"}}
    record |= {"run": plan["run"], "profile": plan["profile"]}
    publish.write_pages(plan["root"], folder, record, plan["tissue"])
    write_json(record, folder / "run.json")
    try:  # a reader finds the old report or the new one
        if final.exists():
            final.rename(final.with_name(f".{final.name}.old"))
        folder.rename(final)
    finally:
        repair(final)


def repair(final):
    """Put the old report back where no new one took its place, else remove it."""
    old = final.with_name(f".{final.name}.old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def prepare(plan, final, folder):
    """Fill `folder` with a copy of the last report, unless a failed run left what is asked for."""
    asked = provenance.digest(plan["asked"])
    if audit.load(folder / "run.json").get("asked") == asked and not plan["fresh"]:
        return
    shutil.rmtree(folder, ignore_errors=True)
    # Nothing is copied where all is to be run again, or on other images.
    anew = plan["fresh"] and plan["wanted"] == list(plan["paths"])
    anew = anew or audit.fingerprint(final / "results", plan["images"]) == ""
    if final.exists() and not anew:
        shutil.copytree(final, folder, ignore=shutil.ignore_patterns("*.html", "run.json"))
    for name in ("results", "executed", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    last = {} if anew else audit.load(final / "run.json")
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
        if not here:
            here = provenance.where(plan["root"])
            print(f"{here['backend']} computes on {here['device']}. {here['idle']}", flush=True)
        print(f"{name}: running ({why})", flush=True)
        forget(name, folder, record)
        done[name] = {**run_one(name, plan, folder, record), **here}
        record["notebooks"] = done = dict(sorted(done.items()))
        write_json(record, folder / "run.json")
        print(f"  {name}: done in {done[name]['seconds']:.0f} s", flush=True)
        images = done[name]["key"].get("images", images)
    audit.check_tables(results)
    if audit.fingerprint(results, plan["images"]) != images:
        raise ValueError("the images changed meanwhile: run again once they are at rest")
    for name in done:
        done[name]["stale"] = why_run(name, plan, folder, done, images)
    if (metrics := results / "metrics.csv").exists():  # rows of notebooks that are forgotten go
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.split(",")[0] in {"notebook", *done}]
        metrics.write_text("".join(kept), encoding="utf-8")


def why_run(name, plan, folder, done, images):
    """Why notebook `name` must run, in words; "" where it is done and valid by content."""
    if name not in done or not (folder / "executed" / f"{name}.ipynb").exists():
        return "not done yet"
    entry, key = done[name], provenance.key_of(plan, name, done, images)
    found = provenance.result_hashes(folder / "results", name, entry["results"])
    changed = entry["key"].items() ^ key.items() | entry["results"].items() ^ found.items()
    return f"changed: {', '.join(sorted({part for part, _ in changed}))}" if changed else ""


def run_one(name, plan, folder, record):
    """Run one notebook in the staging folder; gives its entry of run.json, or RuntimeError."""
    root, results, log = plan["root"], folder / "results", folder / "logs" / f"{name}.txt"
    inside, parameters = results.is_relative_to(root), plan["parameters"][name]
    given = results.relative_to(root).as_posix() if inside else str(results)

    def states():
        files = (file for file in results.rglob("[!.]*") if file.is_file())
        return {file.relative_to(results).as_posix(): file.stat().st_mtime_ns for file in files}

    # The key is taken before the run: code that is edited meanwhile is not what ran.
    key = provenance.key_of(plan, name, record["notebooks"], "")
    before, start = states(), time.monotonic()
    results.mkdir(exist_ok=True)
    try:
        execute(
            log, plan["timeout"], input_path=str(plan["paths"][name]), cwd=str(root),
            output_path=str(folder / "executed" / f"{name}.ipynb"),
            parameters={**parameters, "RESULTS": given},
        )  # fmt: skip
    except RuntimeError as error:
        if "holds results of other images" in str(error):
            print("  its images are others than before: what was computed on those is removed")
            shutil.rmtree(results)
            record["notebooks"].clear()
            return run_one(name, plan, folder, record)
        raise RuntimeError(f"{name} failed {error}\n    (log: {log})") from None
    written = {file for file, state in states().items() if before.get(file) != state}
    if f"summaries/{name}.json" not in written:
        raise RuntimeError(f"{name} ended without its result: its last cell calls save_summary")
    if "images" in key:
        key["images"] = audit.fingerprint(results, plan["images"])
        if not key["images"]:
            raise ValueError("the images changed meanwhile: run again once they are at rest")
    return {
        "key": key, "parameters": {p: v for p, v in parameters.items() if p not in HIDDEN},
        "results": provenance.result_hashes(results, name, written),
        "seconds": round(time.monotonic() - start, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def forget(name, folder, record):
    """Remove the results of a notebook and its entry: nothing stale must outlive it."""
    old = record["notebooks"].pop(name, {"results": {}})["results"]
    for file in old.keys() - {"metrics.csv"}:  # whose rows all notebooks share
        (folder / "results" / file).unlink(missing_ok=True)
    write_json(record, folder / "run.json")
