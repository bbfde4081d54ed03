"""One notebook in one process: papermill in a child, and the parent that watches it.

The child ends when its parent dies, even by SIGKILL, and the kernel with the child (ipykernel's
parent poller in both); nbclient stops the kernel when a cell fails or takes too long.
"""

import logging
import multiprocessing
import os
import sys
from contextlib import suppress

import nbformat
import papermill
import psutil
from ipykernel.parentpoller import ParentPollerUnix

CAUSES = {
    "DeadKernelError": "the kernel died (killed, or out of memory?)",
    "CellTimeoutError": "the cell took longer than --timeout allows",
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
    place = "before the first cell"
    try:
        while (said := messages.recv()) is not None:
            if isinstance(said, Exception):
                raise said
            place = said
            if sys.stdout.isatty():
                print(f"\r{f'  {place}':<79.79}\r", end="", flush=True)
    except EOFError:
        raise NotebookFailed(f"{place}: its process was killed (out of memory?)") from None
    finally:
        family = psutil.Process(child.pid).children(recursive=True) if child.is_alive() else []
        child.kill()
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        child.join()
        psutil.wait_procs(family, timeout=5)


def _child(messages, log, timeout, request):
    """The child: papermill on the request. Sends the place of each cell, then None or an error."""
    if hasattr(os, "setsid"):
        os.setsid()  # ^C reaches the parent alone, which then ends the child
        ParentPollerUnix(os.getppid()).start()
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with open(log, "w", encoding="utf-8") as file:
        for stream in (1, 2):  # the kernel writes there too
            os.dup2(file.fileno(), stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    total, places = len(nbformat.read(request["input_path"], 4).cells), ["before the first cell"]

    def on_cell_start(cell, cell_index):
        if "injected-parameters" not in cell.metadata.get("tags", []):  # as the author counts
            line = (cell.source.strip().splitlines() or [""])[0].strip()[:60]
            places.append(f"in cell {len(places)} of {total} ({line})")
            messages.send(places[-1])

    options = {"progress_bar": False, "log_output": True, "on_cell_start": on_cell_start}
    try:
        papermill.execute_notebook(**request, **options, execution_timeout=timeout)
        messages.send(None)
    except Exception as error:
        name = type(error).__name__
        why = CAUSES.get(name, f"{name}: {error}")
        if isinstance(error, papermill.PapermillExecutionError):
            tail = str(error).strip().splitlines()[-12:]
            why = "\n    ".join([f"{error.ename}: {error.evalue}", *tail])
        plain = isinstance(error, OSError) and name not in CAUSES  # a full disk, for example
        messages.send(error if plain else NotebookFailed(f"{places[-1]}: {why}"))
