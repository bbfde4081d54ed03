"""What a result came from, as hashes: whether a notebook is done and valid is decided by content.

A notebook's key names all that its results depend on, part by part, so that a run can say what has
changed.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata

import nbformat

from runner.plan import HIDDEN

CODE = {
    "helpers": "helpers/*.py", "phantom": "phantom/*.py", "lock": "requirements.lock",
    "facts": "data/*.csv",
}  # fmt: skip
# Asked in a process of its own: what computes is what Keras finds when a notebook imports it.
ASK = """import json, keras
name = keras.config.backend()
version = __import__(name).__version__
print(json.dumps([name, version, keras.distribution.list_devices()]))"""
LABELS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def digest(content):
    """SHA-256 of bytes, or of anything JSON can hold, in hexadecimal."""
    content = (
        content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    )
    return hashlib.sha256(content).hexdigest()


def file_hash(path):
    """SHA-256 of a file, with line ends as LF on every system; "missing" where there is none."""
    return digest(path.read_bytes().replace(b"\r\n", b"\n")) if path.is_file() else "missing"


def code_key(notebook, root):
    """The part of a notebook's key that the repository decides: dict part -> hash."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]  # outputs do not matter
    key = {"notebook": digest([cells, notebook.metadata.get("series")])}
    for part, pattern in CODE.items():
        key[part] = digest([[file.name, file_hash(file)] for file in sorted(root.glob(pattern))])
    return key


def key_of(plan, name, done, images):
    """Everything that the results of notebook `name` depend on: dict part -> hash.

    done: the entries of run.json, whose results count where this notebook needs them; images: their
    fingerprint, which counts for a notebook that looks for them.
    """
    notebook, parameters = nbformat.read(plan["paths"][name], 4), plan["parameters"][name]
    key = code_key(notebook, plan["root"]) | {"backend": os.environ.get("KERAS_BACKEND", "")}
    key |= {f"parameter {p}": digest(v) for p, v in parameters.items() if p not in HIDDEN}
    for other in notebook.metadata.get("series", {}).get("needs", []):
        key[f"results of {other}"] = digest(done.get(other, {}).get("results", {}))
    return key | ({"images": images} if "DATA" in parameters else {})


def result_hashes(results, notebook, names):
    """Hashes of the files `names` under `results`, and of the notebook's rows of metrics.csv."""
    found = {name: file_hash(results / name) for name in names if name != "metrics.csv"}
    metrics = results / "metrics.csv"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    rows = [line for line in lines if line.startswith(f"{notebook},")]
    return found | ({"metrics.csv": digest(rows)} if rows else {})


def where(root):
    """With what is computed here and now, in words: dict commit, backend, device, idle, keras.

    idle: why a GPU of this machine is not used. ValueError where Keras cannot be imported.
    """
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    if asked.returncode:
        said = (asked.stderr.splitlines() or ["?"])[-1]
        raise ValueError(f"Keras cannot compute (KERAS_BACKEND, keras.json in ~/.keras): {said}")
    name, version, devices = json.loads(asked.stdout.splitlines()[-1])
    used = any("gpu" in device or "cuda" in device for device in devices)
    no_gpu, gpu = subprocess.getstatusoutput("nvidia-smi --query-gpu=name --format=csv,noheader")
    gpu = "" if no_gpu else gpu.partition("\n")[0]
    no_git, commit = subprocess.getstatusoutput(f'git -C "{root}" describe --always --dirty')
    idle = "the driver is too old, or CUDA_VISIBLE_DEVICES hides it"
    if name == "tensorflow" and "tensorflow-cpu" in metadata.packages_distributions()[name]:
        idle = "the extra cpu is installed; rm -r .venv && make env installs the extra gpu"
    return {
        "commit": "" if no_git else commit,
        "backend": f"{LABELS[name]} {version}", "keras": metadata.version("keras"),
        "device": f"GPU {gpu}" if used else f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "idle": f"warning: {gpu} is not used by {LABELS[name]}: {idle}" if gpu and not used else "",
    }  # fmt: skip
