"""What went wrong in a notebook, in a few lines, from its executed copy and its log."""

import re
from pathlib import Path

from helpers.runner import notebooks

ANSI = re.compile(r"\x1b\[[0-9;]*m")
KNOWN = {
    "DeadKernelError": "the kernel died (killed, or out of memory?)",
    "CellTimeoutError": "a cell took longer than --timeout allows",
    "NoSuchKernel": "the Python kernel is not installed: run make env",
}


def explain(executed, log, number, status):
    """Lines that name the cell, the cause and the end of the traceback or log.

    number: of the last cell that papermill began, from 1; cells that it added itself count.
    """
    cells = notebooks.read(executed)["cells"] if Path(executed).exists() else []
    cells = [c for c in cells if "papermill-error-cell-tag" not in tags(c)]
    failed = [
        (cell, output)
        for cell in cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    if failed:
        cell, output = failed[0]
        cause = f"{output['ename']}: {output['evalue']}"
        if output["ename"] == "KeyboardInterrupt":  # what papermill sends at the time-out
            cause = KNOWN["CellTimeoutError"]
        tail = ANSI.sub("", "\n".join(output["traceback"])).splitlines()[-12:]
    else:
        cell = cells[number - 1] if 0 < number <= len(cells) else None
        tail = Path(log).read_text(encoding="utf-8").splitlines()[-12:]
        cause = next((text for name, text in KNOWN.items() if name in "\n".join(tail)), None)
        cause = cause or f"its process ended with status {status}"
    return [f"in {_where(cells, cell)}: {cause}", *(f"    {line}" for line in tail)]


def tags(cell):
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def _where(cells, cell):
    if cell is None:
        return "no cell (it never began)"
    own = [c for c in cells if "injected-parameters" not in tags(c)]  # as the author counts them
    lines = notebooks.source(cell).strip().splitlines() or [""]
    place = next((i for i, c in enumerate(own, 1) if c is cell), 0)
    return f"cell {place} of {len(own)} ({lines[0].strip()[:60]})"
