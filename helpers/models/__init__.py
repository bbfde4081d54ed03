"""Backbones by name: one flat graph from raw images to feature maps, with weights or an error."""

import hashlib
import inspect
import random
import time
import warnings
from contextlib import contextmanager

import keras
import numpy as np

from helpers.models import lite
from helpers.results import resolve

SMALLEST = 32  # px; the backbones shrink an image 32 times
LARGER = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # px; unpadded layers
LITE0 = "EfficientNetLite0"


def _application_modules():
    """{backbone name: the module of keras.applications that has its preprocessing}."""
    modules = [value for value in vars(keras.applications).values() if inspect.ismodule(value)]
    names = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    homes = {name: module for module in modules for name in names if hasattr(module, name)}
    return {name: homes.get(name, keras.applications.mobilenet_v3) for name in names}


BACKBONES = (*lite.SCALES, *sorted(_application_modules()))


def build_backbone(name, image_size, weights="imagenet"):
    """A frozen-ready, flat `keras.Model` from raw images to feature maps.

    name: one of BACKBONES. image_size: [height, width] px; None for any, as in (None, None).
    weights: "imagenet", the path of a file of this backbone (.weights.h5, .h5; .pth for Lite; a
    relative one from the repository root), or "none" for random ones, the same each time, as the
    seeds of dropout in the backbone are. The model takes (n, height, width, 3) in 0 to 255, uint8
    or float, and gives float32 (n, h, w, channels); preprocessing is inside the graph.
    Raises ValueError or FileNotFoundError, in one line, for what it cannot give.
    """
    check_backbone(name, image_size, weights)
    inputs = keras.Input((*image_size, 3), name="images")
    with _same_seeds():
        if name in lite.SCALES:
            model = keras.Model(inputs, lite.build(name, inputs), name=name.lower())
        else:
            model = _application(name, inputs, image_size, weights)
    if name in lite.SCALES and weights == "imagenet":
        lite.load_state(name, model, _pinned(name))
    if weights not in ("imagenet", "none"):
        _load_file(model, name, resolve(weights))
    return model


def check_backbone(name, image_size, weights):
    """Raise a one-line error for a name, size or weights that cannot be had."""
    if name not in BACKBONES:
        raise ValueError(f"BACKBONE {name!r} is unknown; allowed: {', '.join(BACKBONES)}")
    smallest = LARGER.get(name, SMALLEST)
    if any(side is not None and side < smallest for side in image_size):
        raise ValueError(
            f"image size {list(image_size)} is too small for {name}: "
            f"height and width must be {smallest} px or more"
        )
    if weights not in ("imagenet", "none") and not resolve(weights).is_file():
        raise FileNotFoundError(
            f"WEIGHTS {weights!r}: no such file; allowed: 'imagenet', 'none', or a file of {name}"
        )


def weights_key(name, weights, build=None):
    """Short hash that names the weights: of the file, or of the values in the model of `build()`.

    build is called only where no file is pinned: for random weights and for keras.applications.
    """
    if weights == "imagenet" and name in lite.SCALES:
        return lite.WEIGHTS_SHA256[name][:16]
    if weights not in ("imagenet", "none"):
        return file_sha256(resolve(weights))[:16]
    parts = [keras.ops.convert_to_numpy(value).tobytes() for value in build().variables]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def imagenet_classifier(name, image_size):
    """An EfficientNet-Lite with its head of 1,000 ImageNet classes; gives logits."""
    inputs = keras.Input((*image_size, 3), name="images")
    model = keras.Model(inputs, lite.build(name, inputs, classes=1000))
    lite.load_state(name, model, _pinned(name))
    return model


def file_sha256(path):
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def images_per_second(name, image_size, weights="imagenet", n=64):
    """Images that a frozen backbone takes in a second on this machine, from memory, in batches."""
    network = build_backbone(name, image_size, weights)
    batch = np.zeros((n // 2, *image_size, 3), "uint8")
    network.predict_on_batch(batch)
    started = time.perf_counter()
    for _ in range(2):
        network.predict_on_batch(batch)
    return n / (time.perf_counter() - started)


@contextmanager
def _same_seeds():
    """Keras takes the seeds of layers from Python's generator: from the same place, here."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _application(name, inputs, image_size, weights):
    module = _application_modules()[name]
    images = module.preprocess_input(inputs)
    settings = {"include_top": False, "input_tensor": images, "input_shape": (*image_size, 3)}
    try:
        model = getattr(keras.applications, name)(
            weights="imagenet" if weights == "imagenet" else None, **settings
        )
        return keras.Model(inputs, model.output, name=name.lower())
    except Exception as error:  # what a download raises differs by platform and proxy
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} with WEIGHTS {weights!r} cannot be had ({reason}); allowed: 'imagenet' where "
            "the network can be reached, a weights file, or 'none' for random weights"
        ) from None


def _load_file(model, name, path):
    try:
        if path.suffix == ".pth":
            lite.load_state(name, model, path)
        else:
            with warnings.catch_warnings():  # of Keras's second list of the same layers, not saved
                warnings.filterwarnings("ignore", "Skipping nested container")
                model.load_weights(path)
    except Exception as error:  # Keras and h5py raise many kinds here
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"WEIGHTS {str(path)!r} are not weights of {name} ({reason}); allowed: 'imagenet', "
            f"'none', or a file saved from {name} by save_weights"
        ) from None


def _pinned(name):
    path = lite.weights_file(name)
    if file_sha256(path) != lite.WEIGHTS_SHA256[name]:
        raise ValueError(f"{path} is not the released file: its SHA-256 is not the pinned one")
    return path
