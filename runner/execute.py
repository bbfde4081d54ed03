"""One notebook in one process: papermill in a child, and the parent that watches it.

The child ends when its parent dies, even by SIGKILL, and the kernel with the child (ipykernel's
parent poller in both); nbclient stops the kernel when a cell fails or takes too long.
"""

import logging
import multiprocessing
import os
import re
import sys
import traceback
from contextlib import suppress

import papermill
import psutil
from ipykernel.parentpoller import ParentPollerUnix

from runner import plan

ANSI = re.compile(r"\x1b\[[0-9;]*m")
CAUSES = {
    "DeadKernelError": "the kernel died (killed, or out of memory?)",
    "CellTimeoutError": "the cell took longer than --timeout allows",
    "NoSuchKernel": "the Python kernel is not installed: run make env",
}


class NotebookFailed(Exception):
    """A notebook that did not run to its end: the message says where, why, and the last lines."""


def execute(log, timeout, **request):
    """Run papermill on `request` in a process of its own; NotebookFailed or OSError if it fails.

    log: path of the text log; timeout: seconds a cell may take, or None. Whatever happens, no
    process of the notebook is left at the end.
    """
    spawn = multiprocessing.get_context("spawn")
    messages, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_child, args=(theirs, log, timeout, request))
    child.start()
    theirs.close()  # so that the end of the child is the end of its messages
    try:
        _follow(messages)
    finally:
        family = psutil.Process(child.pid).children(recursive=True) if child.is_alive() else []
        child.kill()
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        child.join()
        psutil.wait_procs(family, timeout=5)


def _follow(messages):
    """Show the cell at work until the child has done; raise what it tells of a failure."""
    place = "starting"
    while place is not None:
        if isinstance(place, Exception):
            raise place
        if sys.stdout.isatty():
            print(f"\r{f'  {place}':<79.79}\r", end="", flush=True)
        try:
            place = messages.recv()
        except EOFError:
            raise NotebookFailed(f"{place}: its process was killed (out of memory?)") from None


def _child(messages, log, timeout, request):
    """The child: papermill on the request. Sends each cell's place, then None, or what failed."""
    if hasattr(os, "setsid"):
        os.setsid()  # ^C reaches the parent alone, which then ends the child
        ParentPollerUnix(os.getppid()).start()
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with open(log, "w", encoding="utf-8") as file:
        for stream in (1, 2):  # the kernel writes there too
            os.dup2(file.fileno(), stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    total, own = len(plan.read(request["input_path"]).cells), ["before the first cell"]

    def on_cell_start(cell, cell_index):
        if "injected-parameters" not in cell.metadata.get("tags", []):  # as the author counts
            line = (cell.source.strip().splitlines() or [""])[0].strip()[:60]
            own.append(f"in cell {len(own)} of {total} ({line})")
            messages.send(own[-1])

    options = {"progress_bar": False, "log_output": True, "on_cell_start": on_cell_start}
    try:
        papermill.execute_notebook(**request, **options, execution_timeout=timeout)
        messages.send(None)
    except Exception as error:
        plain = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        messages.send(error if plain else NotebookFailed(f"{own[-1]}: {_explain(error)}"))


def _explain(error):
    """The cause in words, and the end of the traceback where the cause does not say it all."""
    name = type(error).__name__
    if name in CAUSES:
        return CAUSES[name]
    cause, lines = f"{name}: {error}", traceback.format_exc().splitlines()
    if isinstance(error, papermill.PapermillExecutionError):
        cause = f"{error.ename}: {error.evalue}"
        lines = ANSI.sub("", "\n".join(error.traceback)).splitlines()
    return "\n    ".join([cause, *lines[-12:]])
