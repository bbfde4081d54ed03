"""The state of a training run in one file, replaced atomically, so that it can be resumed.

The file (.npz) holds the variables of the model (seeds of its random layers included) and of the
optimizer, the best weights so far, the history, and a key of the run that it belongs to.
"""

import hashlib
import json

import joblib
import numpy as np
from keras import ops

from helpers.results import ROOT, resolve, write_atomic


def key(settings, arrays):
    """Short hash of a run: its settings (anything JSON writes) and the arrays that it is fed."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def values(variables):
    """NumPy copies of Keras variables, in their order."""
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def assign(variables, arrays):
    """Set Keras variables to arrays in the same order."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def save(path, run_key, state, groups):
    """Write state (JSON) and groups (name -> list of arrays) to path, atomically."""
    arrays = {f"{name}/{i}": a for name, group in groups.items() for i, a in enumerate(group)}
    meta = np.array(json.dumps({"key": run_key, "state": state}))
    write_atomic(path, lambda temporary: np.savez(temporary, meta=meta, **arrays))


def load(path, run_key):
    """(state, groups) of the checkpoint at path, or None where there is no file.

    Raises ValueError if the file is of another run (other settings, rows or labels).
    """
    path = resolve(path)
    if not path.exists():
        return None
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        if meta["key"] != run_key:
            raise ValueError(
                f"checkpoint {path} belongs to a run with other settings, rows or labels: "
                "delete it, or name another file"
            )
        groups = {}
        for name in (n for n in file.files if n != "meta"):
            group, index = name.rsplit("/", 1)
            groups.setdefault(group, {})[int(index)] = file[name]
    return meta["state"], {g: [v[i] for i in range(len(v))] for g, v in groups.items()}


def memory(folder):
    """A joblib.Memory in `folder`, for what trainings gave; folder "": one that keeps nothing.

    What other code of helpers has made is not read: it lies in a folder of its own.
    """
    if not folder:
        return joblib.Memory(None)
    files = sorted((ROOT / "helpers").rglob("*.py"))
    code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return joblib.Memory(resolve(folder) / code, verbose=0)
