"""Speed of training: what feed and augmentation cost, and a probe on cached features against `fit`.

``python -m bench.bench_training``, on any Keras backend. Ratios are of one run, from medians.
"""

import argparse
import time

import numpy as np
import pandas as pd

from bench.bench_data import BATCH, SIZE, Batches, alternate, ratios
from helpers import backbones, data, features, images, splits
from helpers.probe import fit_probe
from helpers.stain import StainJitter
from phantom import make_phantom, phantom_folder

import keras
from keras import layers, ops

STEPS = 20  # batches a measurement
LITE0 = "EfficientNetLite0"


def network(size, *augmentation, filters=(16, 32, 64, 128)):
    """The network of 03_baseline_cnn: images 0 to 255 to P(malignant)."""
    x = inputs = keras.Input((*size, 3))
    for layer in augmentation:
        x = layer(x)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    for block, channels in enumerate(filters):
        x = layers.Conv2D(channels, 3, 1 if block else 2, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return compiled(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x)))


def tuned(p):
    """The network of 04_transfer_learning with parameters p, from random weights."""
    backbone = backbones.build_backbone(p["BACKBONE"], p["IMAGE_SIZE"], "none")
    lower, upper = backbones.cut(backbone, p["TRAINED_SHARE"])
    lower.trainable = False
    part = upper if p["FROZEN_MAPS"] else backbone
    for layer in part.layers:
        layer.trainable &= not isinstance(layer, layers.BatchNormalization)
    pooled = layers.GlobalAveragePooling2D()(part.output)
    return compiled(keras.Model(part.input, layers.Dense(1, activation="sigmoid")(pooled)))


def compiled(model, rate=1e-3):
    """Without XLA, which Keras leaves out on a CPU under TensorFlow for the sake of determinism."""
    jit = False if keras.config.backend() == "tensorflow" else "auto"
    model.compile(keras.optimizers.AdamW(rate), "binary_crossentropy", jit_compile=jit)
    return model


def flops(model):
    """FLOPs of a training step an image, an estimate.

    Three passes through each convolution and dense layer that is trained, one through each that is
    frozen, nothing for other layers.
    """
    kernels = [(layer, w) for layer in model.layers for w in layer.weights if len(w.shape) > 1]
    return sum(
        (6 if layer.trainable else 2) * np.prod([*kernel.shape, *layer.output.shape[1:-1]])
        for layer, kernel in kernels
    )


def alone(model, pixels, y):
    """A job: train on one batch that lies in memory already, over and over."""
    x, y = (ops.convert_to_tensor(np.array(part[:BATCH])) for part in (pixels, y))

    def job():
        for _ in range(STEPS):
            loss = model.train_on_batch(x, y)
        float(loss)
        return STEPS * BATCH

    job()
    return job


def fed(model, pixels, y, flip=False):
    """A job: train on the memory map, shuffled, by `fit`."""
    rows = np.resize(np.arange(len(y)), STEPS * BATCH)
    batches = backbones.feed(Batches(pixels, y, rows, seed=0, flip=flip))

    def job():
        model.fit(batches, shuffle=False, verbose=0)
        return STEPS * BATCH

    job()
    return job


def throughput_table(pixels, repeats):
    """Images per second of the network alone and with what training adds to it."""
    size, y = pixels.shape[1:3], np.arange(len(pixels), dtype="float32") % 2
    flips = [layers.RandomFlip(mode, seed=0) for mode in ("horizontal", "vertical")]
    jobs = {
        "model alone, batch in memory": alone(network(size), pixels, y),
        "from the cache": fed(network(size), pixels, y),
        "and flips as layers": fed(network(size, *flips), pixels, y),
        "and flips as layers, stain jitter": fed(network(size, *flips, StainJitter()), pixels, y),
        "and flips in the batches": fed(network(size), pixels, y, flip=True),
        "and flips in the batches, stain jitter": fed(
            network(size, StainJitter()), pixels, y, flip=True
        ),
    }
    return ratios(alternate(jobs, repeats))


def epochs_needed(x, y, fold):
    """Epochs until early stopping ends the training of a head on the features of a fold."""
    head = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(1, activation="sigmoid")])
    stop = keras.callbacks.EarlyStopping(patience=5)
    held = (x[fold.val], y[fold.val])
    options = {"epochs": 60, "verbose": 0, "callbacks": [stop], "validation_data": held}
    return len(compiled(head, 0.01).fit(x[fold.train], y[fold.train], **options).epoch)


def probe_table(folder, index, pixels):
    """Probing every fold and magnification from cached features, against fitting with `fit`.

    The time of `fit` is computed: images a second in an epoch of the frozen network under a head,
    times the images of all folds, times the epochs that the head needs.
    """
    y = index["tumor_class"].eq("malignant").to_numpy("float32")
    accession, zoom = index["accession"].to_numpy(), index["magnification"].to_numpy()
    folds = splits.folds(index, splits.make_splits(index, protocols=["accession"]), "accession")
    start = time.perf_counter()
    features.frozen_features(folder, index, SIZE, LITE0)
    first = time.perf_counter() - start
    start = time.perf_counter()
    x = features.frozen_features(folder, index, SIZE, LITE0)[:, 0]
    for fold in folds:
        for magnification in np.unique(zoom):
            known = fold.known[zoom[fold.known] == magnification]
            probe = fit_probe(x[known], y[known], accession[known])
            probe.predict_proba(x[fold.test[zoom[fold.test] == magnification]])
    probing = time.perf_counter() - start
    backbone = backbones.build_backbone(LITE0, SIZE)
    backbone.trainable = False
    pooled = layers.GlobalAveragePooling2D()(backbone.output)
    model = compiled(keras.Model(backbone.input, layers.Dense(1, activation="sigmoid")(pooled)))
    rate = alternate({"": fed(model, pixels, y)}, 1)[""]
    epochs = np.mean([epochs_needed(x, y, fold) for fold in folds])
    fitting = sum(len(fold.known) for fold in folds) * epochs / rate
    rows = [
        (f"fit, {epochs:.0f} epochs at {rate:.0f} images/s", fitting, 1.0),
        ("features, once (0 if they were cached)", first, np.nan),
        ("probe from cached features", probing, fitting / probing),
        ("features, once, and probe", first + probing, fitting / (first + probing)),
    ]
    return pd.DataFrame(rows, columns=["what", "seconds", "times faster"])


def main(arguments=None):
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m bench.bench_training", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(arguments).repeats
    backbones.set_seed(0)
    folder = make_phantom(phantom_folder(images_per_slide=1), images_per_slide=1)
    index, _ = data.build_index(folder)
    print(f"\nKeras on {keras.config.backend()}, {len(index)} images, batches of {BATCH}\n")
    for size in ([115, 175], SIZE):
        pixels = images.load_images(folder, index, size)
        print(f"Training the network of notebook 03, {size[1]}x{size[0]} px")
        print(throughput_table(pixels, repeats).round(2).to_string(index=False), "\n")
    print("5 folds x 4 magnifications on frozen EfficientNet-Lite0, 350x230 px")
    print(probe_table(folder, index, pixels).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
