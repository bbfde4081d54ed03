"""What a result came from, as hashes: whether a notebook is done and valid is decided by content.

A notebook's key names everything that its results depend on. It is kept in `run.json` part by
part, so that a run can say which part has changed.
"""

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from helpers.runner import notebooks

FACTS = ("data/slides.csv", "data/published.csv")
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "pandas", "scikit-learn", "papermill")


def digest(content):
    """SHA-256 of bytes, of a text, or of anything JSON can hold, in hexadecimal."""
    if not isinstance(content, bytes | str):
        content = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_hash(path):
    """SHA-256 of a file's bytes; of a text file, with line ends as LF on every system."""
    content = Path(path).read_bytes()
    if Path(path).suffix in (".py", ".txt", ".csv", ".j2", ".css", ".js", ".json"):
        content = content.replace(b"\r\n", b"\n")
    return digest(content)


def notebook_hash(notebook):
    """SHA-256 of the cells' types, tags and sources: outputs and counts do not matter."""
    cells = [
        [c["cell_type"], c["metadata"].get("tags", []), notebooks.source(c)]
        for c in notebook["cells"]
    ]
    return digest([cells, notebooks.needs(notebook)])


def code_key(path, root):
    """The part of a notebook's key that the repository decides: dict name -> hash."""
    notebook = notebooks.read(path)
    key = {f"notebooks/{path.name}": notebook_hash(notebook)}
    modules = notebooks.helpers_of(notebook, root)
    for file in [*modules, Path(root, "requirements.lock"), *(Path(root, f) for f in FACTS)]:
        if file.exists():
            key[file.relative_to(root).as_posix()] = file_hash(file)
    return key


def public(parameters):
    """Parameters as run.json may show them: of DATA, a folder here, only the name.

    What the folder holds is known by its fingerprint.
    """
    kept = {k: value for k, value in parameters.items() if k not in notebooks.RESERVED}
    return {k: Path(value).name if k == "DATA" else value for k, value in kept.items()}


def key_of(path, root, parameters, done, data):
    """Everything that the results of the notebook at `path` depend on: dict name -> hash or value.

    parameters: the values it runs with; done: dict notebook -> record of those that ran, whose
    results count where this notebook needs them; data: fingerprint of the images, or None.
    """
    notebook = notebooks.read(path)
    key = code_key(path, root)
    for name, value in public(parameters).items():
        key[f"parameter {name}"] = value
    for other in notebooks.needs(notebook):
        key[f"results of {other}"] = digest(done.get(other, {}).get("results", {}))
    if "DATA" in parameters:
        key["data"] = data
    return key


def changes(old, new):
    """Names of the parts in which two keys differ."""
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def snapshot(results):
    """State of each file under `results`: dict relative path -> (modification time, size)."""
    files = (path for path in Path(results).rglob("*") if path.is_file())
    stats = {path.relative_to(results).as_posix(): path.stat() for path in files}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def result_hashes(results, notebook, names):
    """Hashes of the files `names` under `results` and of the notebook's rows of metrics.csv.

    A file that is missing has the hash "missing".
    """
    found = {}
    for name in sorted(names):
        path = Path(results, name)
        found[name] = file_hash(path) if path.exists() else "missing"
    rows = metric_rows(results, notebook)
    return {**found, "metrics.csv": digest(rows)} if rows else found


def metric_rows(results, notebook):
    """The lines of metrics.csv that belong to `notebook` (its first column)."""
    path = Path(results, "metrics.csv")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(f"{notebook},")]


def git_state(root):
    """Commit and whether files differ from it: dict commit, dirty; commit None outside git."""
    # Reports are what a run writes: they must not make the code that wrote them look changed.
    status = ["status", "--porcelain", "--", ":/", ":!/reports"]
    try:
        out = [
            subprocess.run(["git", "-C", str(root), *c], capture_output=True, text=True, check=True)
            for c in (["rev-parse", "HEAD"], status)
        ]
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": out[0].stdout.strip(), "dirty": bool(out[1].stdout.strip())}


def versions():
    """Versions of Python and of the packages that decide the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package.removesuffix("-cpu")] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device():
    """What computes here, in words: the GPU that nvidia-smi names, else the processor."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
        if names.stdout.strip():
            return "GPU: " + ", ".join(names.stdout.strip().splitlines())
    except (OSError, subprocess.SubprocessError):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU: {cores} cores, {processor()}"


def processor():
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def where(root):
    """With what is computed here and now: dict git, versions, device."""
    return {"git": git_state(root), "versions": versions(), "device": device()}


def now():
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
