"""Where a result came from, as hashes, by which done-and-valid is decided, and in words."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata

import nbformat

from runner.plan import HIDDEN

CODE = ("helpers/*.py", "phantom/*.py", "requirements.lock", "data/*.csv")
# Asked in a process of its own: what computes is what Keras finds when a notebook imports it.
ASK = """import json; from keras import config, distribution
name = config.backend()
backend = __import__(name)
gpus = ["gpu"] * backend.cuda.is_available() if name == "torch" else distribution.list_devices()
print(json.dumps([name, backend.__version__, gpus]))"""
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
    """The part of a notebook's key that the repository decides: dict file -> hash."""
    files = [file for pattern in CODE for file in sorted(root.glob(pattern))]
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]  # outputs do not matter
    key = {file.relative_to(root).as_posix(): file_hash(file) for file in files}
    return {"notebook": digest([cells, notebook.metadata.get("series")]), **key}


def key_of(plan, name, done, images):
    """All that the results of `name` depend on, as hashes. done: the entries of run.json."""
    notebook, parameters = nbformat.read(plan["paths"][name], 4), plan["parameters"][name]
    key = code_key(notebook, plan["root"]) | {"backend": os.environ.get("KERAS_BACKEND", "")}
    key |= {f"parameter {p}": digest(v) for p, v in parameters.items() if p not in HIDDEN}
    for other in notebook.metadata.get("series", {}).get("needs", []):
        key[f"results of {other}"] = digest(done.get(other, {}).get("results", {}))
    return key | ({"images": images} if "DATA" in parameters else {})


def result_hashes(results, notebook, names):
    """Hashes of the files `names` under `results`, and of the notebook's rows of metrics.csv."""
    found = {name: file_hash(results / name) for name in names if name != "metrics.csv"}
    text = path.read_text("utf-8") if (path := results / "metrics.csv").exists() else ""
    rows = [line for line in text.splitlines() if line.startswith(f"{notebook},")]
    return found | ({"metrics.csv": digest(rows)} if rows else {})


def where(root):
    """With what is computed here, in words; idle: why a GPU is not used. ValueError: no Keras."""
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    if asked.returncode:
        said = asked.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"Keras cannot compute (KERAS_BACKEND, keras.json in ~/.keras): {said}")
    name, version, devices = json.loads(asked.stdout.splitlines()[-1])
    used = any("gpu" in device or "cuda" in device for device in devices)
    no_gpu, gpu = subprocess.getstatusoutput("nvidia-smi --query-gpu=name --format=csv,noheader")
    no_git, commit = subprocess.getstatusoutput(f'git -C "{root}" describe --always')
    changed = subprocess.run(["git", "-C", root, "diff", "--quiet", "HEAD", "--", ".", ":!reports"])
    gpu, idle = gpu.partition("\n")[0], "CUDA_VISIBLE_DEVICES hides it, or its driver is too old"
    if name == "tensorflow" and "tensorflow-cpu" in metadata.packages_distributions()[name]:
        idle = "the extra cpu is installed; rm -r .venv && make env installs the extra gpu"
    return {
        "commit": "" if no_git else commit + "-dirty" * changed.returncode,
        "backend": f"{LABELS[name]} {version}", "keras": metadata.version("keras"),
        "device": f"GPU {gpu}" if used else f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "idle": "" if used or no_gpu else f"warning: {LABELS[name]} does not use the {gpu}: {idle}",
    }  # fmt: skip
