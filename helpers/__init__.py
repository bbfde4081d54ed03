"""What the notebooks import: a thin layer over pandas, scikit-learn and Keras."""

import json
import os
from importlib.util import find_spec
from pathlib import Path


def _check_backend():
    """Say which setting asks for a Keras backend that is not there: `import keras` does not."""
    file = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    try:
        saved = json.loads(file.read_text()).get("backend")
    except (OSError, ValueError):
        saved = None
    named, where = os.environ.get("KERAS_BACKEND"), "the environment variable KERAS_BACKEND"
    backend, where = (named, where) if named else (saved, f'"backend" in {file}')
    if backend and find_spec(backend) is None:
        raise ModuleNotFoundError(
            f"{where} asks for Keras on {backend}, which is not installed here: take it away, or "
            'set it to "tensorflow"'
        )


_check_backend()
