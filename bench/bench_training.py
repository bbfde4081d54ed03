"""Speed of training: augmentation against the model alone, XLA and mixed precision, and a probe on
cached features against fitting the same frozen network.

``make bench``, or ``python -m bench.bench_training [--weights FILE]``. Ratios are taken within one
run, from medians of alternating repeats. It runs on any Keras backend and device.
"""

import argparse
import time
from functools import partial

import keras
import numpy as np
import pandas as pd
from keras import layers as kl
from keras import ops

from bench.bench_data import alternate, ratios
from helpers import cache, features, layers, models, probe, splits, training
from helpers.data import build_index
from helpers.models import tuning
from helpers.phantom import make_phantom, phantom_folder
from helpers.training import loop

SIZE = [230, 350]  # px, height and width
BATCH = 32
STEPS = 30  # batches a measurement: about an epoch of a thousand images
N_FOLDS = 5


def network(size, filters=(16, 32, 64, 128)):
    """The network of 03_baseline_cnn: images 0 to 255 to P(malignant)."""
    x = inputs = keras.Input((*size, 3))
    x = kl.Rescaling(1 / 127.5, offset=-1)(x)
    for block, channels in enumerate(filters):
        x = kl.Conv2D(channels, 3, 1 if block else 2, padding="same", use_bias=False)(x)
        x = kl.MaxPooling2D()(kl.ReLU()(kl.BatchNormalization()(x)))
    x = kl.Dropout(0.2)(kl.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, kl.Dense(1, activation="sigmoid", dtype="float32")(x))


def classifier(size, weights):
    """EfficientNet-Lite0, frozen, under a logistic head."""
    backbone = models.build_backbone(models.LITE0, size, weights)
    backbone.trainable = False
    x = kl.GlobalAveragePooling2D()(backbone.output)
    return keras.Model(backbone.input, kl.Dense(1, activation="sigmoid")(x))


def tuned(size, weights, share=0.1):
    """EfficientNet-Lite0 with its upper blocks to be fine-tuned on images, as in notebook 04."""
    backbone = models.build_backbone(models.LITE0, size, weights)
    tuning.cut(backbone, share)[0].trainable = False
    return tuning.classifier(backbone)


def gigaflops(model):
    """Floating-point operations to train on one image, 1e9, in convolutions and dense layers.

    Backwards costs twice as much as forwards, for the layers that are trained.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, (kl.Conv2D, kl.DepthwiseConv2D, kl.Dense)):
            places = np.prod(layer.output.shape[1:-1]) if len(layer.output.shape) == 4 else 1
            total += 2 * places * np.prod(layer.kernel.shape) * (3 if layer.trainable else 1)
    return total / 1e9


def matmul_rate(side=2048, repeats=8):
    """Rate of a float32 matrix product on this device, 1e9 operations per second: the ceiling."""
    a = ops.convert_to_tensor(np.random.default_rng(0).random((side, side), np.float32))
    ops.convert_to_numpy(ops.matmul(a, a)[:1, :1])
    start = time.perf_counter()
    b = a
    for _ in range(repeats):
        b = ops.matmul(a, b) / side
    ops.convert_to_numpy(b[:1, :1])
    return 2e-9 * side**3 * repeats / (time.perf_counter() - start)


def trainer_of(model, augment, images, jit_compile):
    """The model as training.fit compiles it, behind its augmentation."""
    read = (*images.shape[1:], images.dtype.name)
    rates = (1e-3, 1e-4, 0.1, 1000, 0.99)
    return loop.trainer(model, read, augment, None, rates, 0.0, jit_compile)[0]


def alone(model, images, jit_compile="auto", steps=STEPS):
    """A job: train on one batch that lies in memory already, over and over."""
    trainer = trainer_of(model, None, images, jit_compile)
    x = ops.convert_to_tensor(np.asarray(images[:BATCH]))
    y = ops.convert_to_tensor(np.arange(BATCH, dtype="float32")[:, None] % 2)

    def job():
        for _ in range(steps):
            loss, _ = trainer.train_on_batch(x, y)
        float(loss)
        return steps * BATCH

    job()
    return job


def fed(model, images, augment, jit_compile="auto", steps=STEPS):
    """A job: train on the memory map, shuffled, through the feed and the augmentation."""
    trainer = trainer_of(model, augment, images, jit_compile)
    targets = np.arange(len(images), dtype="float32")[:, None] % 2
    rows, weights = np.arange(len(images)), np.ones(len(images), "float32")
    options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}

    def job():
        trainer.fit(loop.feed(images, rows, targets, weights, BATCH, "shuffle", 0, 0), **options)
        return steps * BATCH

    job()
    return job


def throughput_table(build, images, repeats, steps=STEPS):
    """Images per second of the network of build(size), alone and with what training adds to it.

    Without XLA, as in the notebooks, where Keras leaves it out for the sake of determinism.
    """
    size = images.shape[1:3]
    model, options = build(size), {"jit_compile": False, "steps": steps}
    flops = gigaflops(model)
    jobs = {
        "model alone, batch in memory": alone(model, images, **options),
        "from the cache": fed(model, images, None, **options),
        "and dihedral views": fed(model, images, layers.augmentation(), **options),
        "and stain jitter": fed(model, images, layers.augmentation(0.05), **options),
    }
    table = ratios(alternate(jobs, repeats), "model alone, batch in memory")
    table["GFLOP/s"] = table["images/s"] * flops
    table["share of matmul"] = table["GFLOP/s"] / matmul_rate()
    return table


def compile_table(images, weights, repeats):
    """XLA and bfloat16: training of the small network, and features of EfficientNet-Lite0."""
    size, policy = images.shape[1:3], keras.mixed_precision.dtype_policy()
    train, see = {}, {}
    for precision in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_dtype_policy(precision)
        for jit in (False, True):
            name = f"{precision}, {'XLA' if jit else 'no XLA'}"
            train[f"training, {name}"] = alone(network(size), images, jit)
            see[f"Lite0 features, {name}"] = forward(size, weights, images, jit)
    keras.mixed_precision.set_dtype_policy(policy)
    first = "float32, no XLA"
    parts = [
        ratios(alternate(jobs, repeats), f"{what}, {first}")
        for what, jobs in {"training": train, "Lite0 features": see}.items()
    ]
    return pd.concat(parts)


def forward(size, weights, images, jit_compile):
    """A job: two batches through the frozen backbone."""
    model = models.build_backbone(models.LITE0, size, weights)
    model.compile(jit_compile=jit_compile)
    batch = np.asarray(images[:BATCH])

    def job():
        for _ in range(2):
            model.predict_on_batch(batch)
        return 2 * BATCH

    job()
    return job


def probe_seconds(folder, index, sets, weights):
    """Seconds to fit and apply a probe to every set of rows, features from the cache included."""
    y = index["tumor_class"].eq("malignant").to_numpy(int)
    accession = index["accession"].to_numpy()
    start = time.perf_counter()
    x = features.frozen_features(folder, index, SIZE, models.LITE0, weights)
    for train, val, test in sets:
        known = np.concatenate([train, val])
        probe.predict(probe.fit_probe(x[known], y[known], accession[known]), x[test])
    return time.perf_counter() - start


def epochs_needed(x, y, accession, sets):
    """Mean number of epochs until early stopping ends the training of a head on these features."""
    counts = []
    for train, val, _ in sets:
        head = keras.Sequential([keras.Input(x.shape[1:]), kl.Dense(1, activation="sigmoid")])
        weights = training.balanced_weights(y, accession, train, val)
        options = {"epochs": 60, "learning_rate": 0.01, "patience": 5}
        counts.append(len(training.fit(head, x, train, y, weights, val, **options)))
    return np.mean(counts)


def probe_table(folder, index, images, weights):
    """Probing every fold and magnification from cached features, against fitting with `fit`.

    The time of `fit` is computed: images a second, measured in the second epoch of a training of
    the frozen network, times the images of all sets, times the epochs that its head needs.
    """
    y = index["tumor_class"].eq("malignant").to_numpy(int)
    accession, magnification = index["accession"].to_numpy(), index["magnification"].to_numpy()
    plan = splits.make_splits(index, N_FOLDS, protocols=("accession",))
    folds = [parts for _, *parts in splits.fold_rows(index, plan, "accession")]
    zooms = np.unique(magnification)
    sets = [[r[magnification[r] == zoom] for r in fold] for fold in folds for zoom in zooms]
    x = features.frozen_features(folder, index, SIZE, models.LITE0, weights)[:, 0]
    seeing = alternate({"": forward(SIZE, weights, images, "auto")}, 3)[""]
    first = len(index) / seeing
    probing = probe_seconds(folder, index, sets, weights)
    epochs = epochs_needed(x, y, accession, sets[: len(zooms)])
    train, val, _ = folds[0]
    model, none = classifier(SIZE, weights), {"epochs": 2, "patience": None}
    history = training.fit(model, images, train, y, None, val, **none)
    rate = (len(train) + len(val)) / history["seconds"].iloc[1]
    fitting = sum(len(t) + len(v) for t, v, _ in sets) * epochs / rate
    rows = [
        (f"fit, {epochs:.0f} epochs at {rate:.0f} images/s", fitting, 1.0),
        (f"features, once: {len(index)} images at {seeing:.0f} images/s", first, np.nan),
        ("probe from cached features", probing, fitting / probing),
        ("features, once, and probe", first + probing, fitting / (first + probing)),
    ]
    return pd.DataFrame(rows, columns=["what", "seconds", "times faster"])


def main(arguments=None):
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m bench.bench_training", description=main.__doc__)
    parser.add_argument("--weights", default="imagenet", help="of EfficientNet-Lite0")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    made = {"images_per_slide": 1, "size": tuple(SIZE)}
    folder = make_phantom(phantom_folder(**made), **made)
    index, _ = build_index(folder)
    small, images = (cache.load_images(folder, index, size) for size in ([115, 175], SIZE))
    print(f"\nKeras on {keras.backend.backend()}, {len(index)} images, batches of {BATCH}\n")
    lite = partial(tuned, weights=options.weights)
    tables = {
        "Training the small network, 175x115 px": lambda: throughput_table(
            network, small, options.repeats
        ),
        "Training the small network, 350x230 px": lambda: throughput_table(
            network, images, options.repeats
        ),
        "Fine-tuning EfficientNet-Lite0 on images, 350x230 px": lambda: throughput_table(
            lite, images, options.repeats, STEPS // 3
        ),
        "XLA and mixed precision": lambda: compile_table(small, options.weights, options.repeats),
        f"{N_FOLDS} folds x 4 magnifications on frozen EfficientNet-Lite0, 350x230 px": (
            lambda: probe_table(folder, index, images, options.weights)
        ),
    }
    for title, measure in tables.items():
        text = measure().to_string(index=False, float_format="{:.2f}".format)
        print(f"{title}\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
