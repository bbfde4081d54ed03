"""Run the series: one papermill process a notebook, then the pages and the index.

Work goes on in a staging folder that starts as a copy of the run's last report. A notebook that is
done and valid by content (see `provenance`) is not run again. Only when all has succeeded
does the staging folder take the report's place, by renaming: a report never exists for a run that
failed, and a failure leaves the earlier report as it was.
"""

import argparse
import errno
import signal
import sys
import time

from helpers.report import site
from helpers.results import ROOT, write_json
from helpers.runner import audit, provenance, staging, steps
from helpers.runner.plan import make_plan

CELL_TIMEOUT = 7200  # seconds


def arguments(argv):
    """The command line as a namespace."""
    parser = argparse.ArgumentParser(prog="python -m helpers.runner", description=__doc__)
    add = parser.add_argument
    add("--run", help="name of the run (default: demo, with real images breakhis): reports/<run>")
    add("--profile", default="demo", help="a file of notebooks/params: smoke, demo, sample or full")
    add("--data", help="folder of BreakHis images (else BREAKHIS_DIR, data/BreaKHis_v1, phantom)")
    add("--notebooks", default="", help='which to run, as in "03 04" (default: all)')
    add("-p", dest="given", action="append", default=[], metavar="NAME=value", help="a parameter")
    add("--fresh", action="store_true", help="run again also what is done and valid")
    add("--timeout", type=int, default=CELL_TIMEOUT, help="seconds that a cell may take")
    add("--reports", default="reports", help="folder that holds the runs")
    return parser.parse_args(argv)


def run_series(plan, out=print):
    """Run what is not done and valid, check the tables, publish; returns the report's folder."""
    reports, run = plan["reports"], plan["run"]
    reports.mkdir(parents=True, exist_ok=True)
    with staging.only_one(reports, run):
        if not plan["fresh"] and nothing_to_do(plan, reports / run, out):
            site.write_runs(reports, plan["root"])
            return reports / run
        fresh = plan["fresh"] and len(plan["wanted"]) == len(plan["paths"])
        folder = staging.prepare(reports, run, plan["about"]["asked"], fresh)
        record = {"notebooks": {}, **staging.read_record(folder), **plan["about"]}
        steps.forget_removed(plan, folder, record, out)
        data = run_notebooks(plan, folder, record, out)
        finish(plan, folder, record, data)
        out("writing the pages")
        site.write_pages(plan, folder, record)
        save(record, folder)
        final = staging.swap(reports, run)
        site.write_runs(reports, plan["root"])
    return final


def nothing_to_do(plan, folder, out):
    """True where the report stands and all that is wanted is done and valid; says so."""
    record = staging.read_record(folder)
    if not record.get("pages") or site.stale_pages(folder, record):
        return False
    if set(record["notebooks"]) - set(plan["paths"]):  # renamed or removed since
        return False
    data = steps.data_now(plan, folder)
    if any(steps.why_run(name, plan, folder, record, data) for name in plan["wanted"]):
        return False
    for name in plan["wanted"]:
        out(f"{name}: done and valid (finished {record['notebooks'][name]['finished']})")
    out("nothing to do: notebooks, helpers, parameters, data and results are as they were")
    return True


def run_notebooks(plan, folder, record, out):
    """Run the wanted notebooks in order, each only if it is not done and valid, then check."""
    steps.check_needs(plan, record)
    data = steps.data_now(plan, folder)
    for name in plan["wanted"]:
        why = "--fresh" if plan["fresh"] else steps.why_run(name, plan, folder, record, data)
        if not why:
            out(f"{name}: done and valid, not run again")
            continue
        out(f"{name}: running ({why})")
        steps.forget(name, folder, record)
        save(record, folder)  # should it fail, the record must not tell of results that are gone
        steps.run_one(name, plan, folder, record, out)
        save(record, folder)
        data = record["notebooks"][name]["key"].get("data", data)
    audit.check_tables(folder / "results")
    steps.check_data(plan, folder, record, data)
    return data


def finish(plan, folder, record, data):
    """Complete `record` with where and from what the run was computed."""
    results, done = folder / "results", dict(sorted(record["notebooks"].items()))
    for name in done:
        done[name]["stale"] = steps.why_run(name, plan, folder, record, data) or ""
    files = {"lock": plan["root"] / "requirements.lock"}
    files |= {name: results / f"{name}.csv" for name in ("index", "splits")}
    seeds = {
        entry["parameters"]["SEED"] for entry in done.values() if "SEED" in entry["parameters"]
    }
    record |= {
        "notebooks": done,
        "finished": provenance.now(),
        "seconds": round(sum(entry["seconds"] for entry in done.values()), 1),
        "seeds": sorted(seeds),
        "hashes": {name: provenance.file_hash(f) for name, f in files.items() if f.exists()},
        **provenance.where(plan["root"]),
        "data": {**audit.public(results), "fingerprint": data},
    }


def save(record, folder):
    """Write run.json."""
    write_json(record, folder / "run.json")


def main(argv=None, root=ROOT):
    """The command; returns the exit status: 0 done, 1 failed, 130 stopped by ^C."""
    args = arguments(argv)
    for name in ("SIGTERM", "SIGHUP"):  # treated like ^C; Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    start = time.monotonic()
    try:
        final = run_series(make_plan(args, root))
    except KeyboardInterrupt:
        return _complain("stopped; the same command carries on where this one stopped", 130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _complain(f"the disk is full: {error}; free some space, then run again")
        return _complain(f"{error}")
    except (steps.RunFailed, ValueError) as error:
        return _complain(str(error))
    print(f"report: {final / 'index.html'} ({time.monotonic() - start:.0f} s)")
    return 0


def _complain(message, status=1):
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status
