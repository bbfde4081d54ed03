"""PyTorch state dicts of the format before 1.6, read without PyTorch."""

import collections
import io
import pickle
from pathlib import Path

import numpy as np


def read_state_dict(path):
    """Arrays of a PyTorch state dict (the format before 1.6): {name: float32 or int64 array}.

    Nothing but the few names that such a file needs can be called while reading.
    """
    data = Path(path).read_bytes()
    file = io.BytesIO(data)
    storages = {}
    try:
        _Reader(file, storages).load()  # magic number
        _Reader(file, storages).load()  # version of the format
        _Reader(file, storages).load()  # byte order and sizes
        tensors = _Reader(file, storages).load()
        for key in _Reader(file, storages).load():
            count = int.from_bytes(file.read(8), "little")
            dtype = storages[key].dtype
            storages[key][:] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
        return dict(tensors)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not a PyTorch state dict of the old format: {error}") from None


class _Reader(pickle.Unpickler):
    """Unpickler that knows tensors and their storages and refuses any other name."""

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch.FloatStorage": np.dtype("<f4"),
            "torch.LongStorage": np.dtype("<i8"),
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return allowed[f"{module}.{name}"]

    def persistent_load(self, saved):
        _, dtype, key, _, count, _ = saved
        return self.storages.setdefault(key, np.zeros(count, dtype))


def _tensor(storage, offset, shape, strides, *_):
    """A view of a storage, which is filled after all tensors are known."""
    strides = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides)
