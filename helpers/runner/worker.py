"""One notebook in one process: the child that papermill runs in, and the parent that watches it.

Run as a script, it reads one JSON request from standard input. The pipe stays open for as long as
the parent lives: should the parent die, even by SIGKILL, the child ends itself and its kernel.
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import uuid

import psutil

MARK = "BREAKHIS_RUN_MARK"  # environment variable by which every process of a notebook is known
GRACE = 30  # seconds that a cell may take to stop, once papermill has interrupted it
CELL = re.compile(r"Executing Cell (\d+)-")


def execute(notebook, executed, parameters, log, timeout, cwd, on_cell):
    """Run `notebook` with papermill in a process of its own.

    executed: path of the copy with outputs; log: path of the text log; timeout: seconds a cell may
    take; cwd: folder to run in; on_cell(number, seconds): called as cells start and each second.
    Returns (exit status, number of the last cell started). Whatever happens, no process of the
    notebook is left when this returns or raises.
    """
    mark = uuid.uuid4().hex
    extra = {MARK: mark, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    request = {
        "input_path": str(notebook),
        "output_path": str(executed),
        "parameters": parameters,
        "execution_timeout": timeout,
        "cwd": str(cwd),
    }
    with open(log, "w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **extra},
            start_new_session=True,  # ^C reaches the parent alone, which then ends the child
            encoding="utf-8",
            errors="replace",
        )
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            return follow(child, file, on_cell, timeout)
        finally:
            kill_marked(mark)
            child.wait()


def follow(child, log, on_cell, timeout):
    """Copy the child's lines to the log and report the cell at work; (exit status, last cell).

    A cell that goes on after papermill's time-out, deaf to the interrupt, ends with its process.
    """
    state = {"cell": 0, "since": time.monotonic(), "error": None}

    def copy():
        try:
            for line in child.stdout:
                log.write(line)
                log.flush()
                if match := CELL.search(line):
                    state.update(cell=int(match[1]), since=time.monotonic())
        except OSError as error:  # a full disk: the caller must hear of it
            state["error"] = error
            child.kill()

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    while child.poll() is None:
        seconds = time.monotonic() - state["since"]
        on_cell(state["cell"], seconds)
        if state["cell"] and seconds > timeout + GRACE:  # before the first, papermill limits it
            log.write("CellTimeoutError: the cell did not stop when it was interrupted\n")
            log.flush()
            return 1, state["cell"]  # the caller ends the processes
        reader.join(1.0)
        if not reader.is_alive():
            child.wait()
    reader.join(2.0)  # a process that outlives the child may hold the pipe open
    if state["error"]:
        raise state["error"]
    return child.returncode, state["cell"]


def kill_marked(mark):
    """End every process that carries `mark` in its environment: the child, its kernel, theirs."""
    for _ in range(3):  # a process may start another while the list is read
        marked = [p for p in psutil.process_iter() if _carries(p, mark)]
        if not marked:
            return
        for process in marked:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(marked, timeout=5)


def _carries(process, mark):
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def _end_with_parent():
    os.read(0, 1)  # returns when the parent closes the pipe or dies
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


def main():
    """The child: papermill on the request, with the kernel's output in the log."""
    import papermill

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    papermill.execute_notebook(**request, progress_bar=False, log_output=True)


if __name__ == "__main__":
    main()
