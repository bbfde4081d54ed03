"""One notebook in a process of its own. It ends when the runner dies, even by SIGKILL, and so does
the kernel (ipykernel's parent poller in both); nbclient stops a kernel that fails or hangs.
"""

import logging
import multiprocessing
import os
import signal
import sys

import nbformat
import papermill
from ipykernel.parentpoller import ParentPollerUnix

MEMORY = "Out of memory? A smaller IMAGE_SIZE or BATCH_SIZE needs less."


def execute(log, timeout, **request):
    """Run papermill on `request` in a process of its own; RuntimeError or OSError if it fails."""
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
        raise RuntimeError(f"{place}: its process was killed. {MEMORY}") from None
    finally:
        if child.is_alive():
            os.kill(child.pid, signal.SIGINT)  # nbclient ends the kernel
            child.join(20)
        child.kill()
        child.join()


def _child(messages, log, timeout, request):
    """The child: papermill on the request. Sends the place of each cell, then None or an error."""
    if hasattr(os, "setsid"):
        os.setsid()  # ^C reaches the parent alone, which then ends the child
        ParentPollerUnix(os.getppid()).start()
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
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
        name, late = getattr(error, "ename", type(error).__name__), isinstance(error, TimeoutError)
        hungry = name in ("DeadKernelError", "MemoryError", "ResourceExhaustedError")
        why = f"{name}: {getattr(error, 'evalue', error)}{f' {MEMORY}' * hungry}"
        if isinstance(error, papermill.PapermillExecutionError):
            why = "\n    ".join([why, *str(error).strip().splitlines()[-12:]])
        why = "the cell took longer than --timeout allows" if late else why
        plain = isinstance(error, OSError) and not late  # a full disk, for example
        messages.send(error if plain else RuntimeError(f"{places[-1]}: {why}"))
