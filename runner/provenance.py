"""What a result came from, as hashes: whether a notebook is done and valid is decided by content.

A notebook's key names all that its results depend on, part by part, so that a run can say what has
changed.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from runner import plan

CODE = {
    "helpers": ("helpers/*.py", "phantom/*.py"),
    "requirements.lock": ("requirements.lock",),
    "facts": ("data/*.csv",),
}
PACKAGES = ("keras", "numpy", "pandas", "scikit-learn", "papermill")
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
    path = Path(path)
    return digest(path.read_bytes().replace(b"\r\n", b"\n")) if path.is_file() else "missing"


def code_key(path, root):
    """The part of a notebook's key that the repository decides: dict part -> hash."""
    cells = [[cell.cell_type, cell.source] for cell in plan.read(path).cells]  # without outputs
    key = {"notebook": digest([cells, plan.needs(path)])}
    for part, patterns in CODE.items():
        files = sorted(file for pattern in patterns for file in root.glob(pattern))
        key[part] = digest([[file.name, file_hash(file)] for file in files])
    return key


def key_of(asked, name, done, images):
    """Everything that the results of notebook `name` depend on: dict part -> hash or value.

    asked: the plan; done: the entries of run.json, whose results count where this notebook needs
    them; images: their fingerprint, which counts for a notebook that looks for them.
    """
    path, parameters = asked["paths"][name], asked["parameters"][name]
    key = code_key(path, asked["root"]) | {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "")}
    key |= {f"parameter {given}": value for given, value in public(parameters).items()}
    for other in plan.needs(path):
        key[f"results of {other}"] = digest(done.get(other, {}).get("results", {}))
    return key | ({"images": images} if "DATA" in parameters else {})


def public(parameters):
    """Parameters as run.json may show them: of DATA, a folder here, only the name."""
    shown = {name: value for name, value in parameters.items() if name != plan.RESULTS}
    return shown | ({"DATA": Path(shown["DATA"]).name} if "DATA" in shown else {})


def changes(old, new):
    """Names of the parts in which two keys differ."""
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def result_hashes(results, notebook, names):
    """Hashes of the files `names` under `results`, and of the notebook's rows of metrics.csv."""
    found = {name: file_hash(Path(results, name)) for name in sorted({*names} - {"metrics.csv"})}
    rows = [line for line in metric_lines(results) if line.startswith(f"{notebook},")]
    return found | ({"metrics.csv": digest(rows)} if rows else {})


def metric_lines(results):
    """The lines of metrics.csv, which all notebooks share; the first field names the notebook."""
    path = Path(results, "metrics.csv")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def where(root):
    """With what is computed here and now, in words: dict commit, backend, device, idle, versions.

    idle: why a GPU of this machine is not used. ValueError where Keras cannot be imported.
    """
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    if asked.returncode:
        raise ValueError(
            f"Keras cannot compute here: {(asked.stderr.splitlines() or ['?'])[-1]} (KERAS_BACKEND "
            "names its backend, else keras.json in KERAS_HOME or ~/.keras)"
        )
    name, version, devices = json.loads(asked.stdout.splitlines()[-1])
    used = any("gpu" in device or "cuda" in device for device in devices)
    gpu = first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    idle = "it was installed without CUDA, or the driver is too old"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        idle = "CUDA_VISIBLE_DEVICES hides the GPU"
    elif {"tensorflow-cpu", "tensorflow_cpu"} & {found.name for found in metadata.distributions()}:
        idle = "the extra cpu is installed; rm -r .venv && make env installs the extra gpu"
    return {
        "commit": first_line("git", "-C", root, "describe", "--always", "--dirty", "--exclude=*"),
        "backend": f"{LABELS[name]} {version}",
        "device": f"GPU {gpu}" if used else f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "idle": f"{gpu} is not used by {LABELS[name]}: {idle}" if gpu and not used else "",
        "versions": {p: metadata.version(p) for p in PACKAGES},
    }


def first_line(*command):
    """The first line that a program prints; empty where it fails or is not there."""
    found = shutil.which(command[0])
    said = subprocess.run(command, capture_output=True, text=True).stdout if found else ""
    return said.partition("\n")[0]
