"""Speed of the data path: the cache against bare decoding, and `fit` on the cache against memory.

``make bench``, or ``python -m bench.bench_data [DIR]``. The images are those of DIR, else of
BREAKHIS_DIR or data/BreaKHis_v1, else of a phantom of 700x460 px, which takes minutes to draw.
Ratios are taken within one run, from medians of alternating repeats.
"""

import argparse
import os
import statistics
import tempfile
import time
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image

from helpers import data, images
from helpers.backbones import feed
from phantom import make_phantom, phantom_folder

import keras
from keras import layers

SIZE = [230, 350]  # px, height and width
BATCH = 32


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels) at `rows`, read from a memory map, as the notebooks do it.

    With a seed they are shuffled anew each epoch and, where `flip`, images mirrored at random.
    """

    def __init__(self, images, y, rows, seed=None, flip=False):
        super().__init__()
        self.images, self.y, self.rows = images, y, np.array(rows)
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.flip = flip

    def __len__(self):
        return -(-len(self.rows) // BATCH)

    def __getitem__(self, number):
        part = np.sort(self.rows[number * BATCH :][:BATCH])
        batch = self.images[part]
        for axis in (1, 2) if self.flip else ():
            mirrored = self.rng.random(len(batch)) < 0.5
            batch[mirrored] = np.flip(batch[mirrored], axis)
        return batch, self.y[part]

    def on_epoch_begin(self):
        if self.rng:
            self.rng.shuffle(self.rows)


def alternate(jobs, repeats):
    """Run the jobs in turn, `repeats` times: {name: median rate, items per second}.

    A job does its work and returns how many items that was. Taking turns lets a machine that is
    busy with other things slow all jobs alike.
    """
    seconds, counts = {name: [] for name in jobs}, {}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            counts[name] = job()
            seconds[name].append(time.perf_counter() - start)
    return {name: counts[name] / statistics.median(taken) for name, taken in seconds.items()}


def ratios(rates):
    """Table of rates and their ratio to the first."""
    first = next(iter(rates.values()))
    rows = [(name, rate, rate / first) for name, rate in rates.items()]
    return pd.DataFrame(rows, columns=["what", "images/s", "ratio"])


def cache_table(folder, index, repeats):
    """Rates of bare decoding on all cores and of building the cache in a folder of its own."""
    files = [folder / path for path in index["path"]]

    def decode():
        images.thread_map(lambda file: Image.open(file).load(), files, "Decoding")
        return len(files)

    def build():
        with (
            tempfile.TemporaryDirectory() as place,
            mock.patch.dict(os.environ, BREAKHIS_CACHE=place),
        ):
            images.load_images(folder, index, SIZE)
        return len(index)

    decode()  # the files are in memory from here on
    jobs = {"bare decoding, all cores": decode, "building the cache, 350x230 px": build}
    return ratios(alternate(jobs, repeats))


def epoch_table(folder, index, repeats):
    """Rates of an epoch of one small model on several sources of the same images."""
    mapped = images.load_images(folder, index, SIZE)
    memory, rows = np.array(mapped), np.arange(len(index))
    y = index["tumor_class"].eq("malignant").to_numpy("float32")
    x = inputs = keras.Input((*SIZE, 3))
    x = layers.Conv2D(8, 7, strides=4, activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy", jit_compile=False)

    def fit(*source, **options):
        model.fit(*source, epochs=1, shuffle=False, verbose=0, **options)
        return len(index)

    jobs = {
        "array in memory": lambda: fit(memory, y, batch_size=BATCH),
        "batches from the cache": lambda: fit(feed(Batches(mapped, y, rows, seed=0))),
        "batches from an array in memory": lambda: fit(feed(Batches(memory, y, rows, seed=0))),
        "batches from the cache, without feed": lambda: fit(Batches(mapped, y, rows, seed=0)),
    }
    for job in jobs.values():
        job()  # compiles
    return ratios(alternate(jobs, repeats))


def main(arguments=None):
    """Print both tables."""
    parser = argparse.ArgumentParser("python -m bench.bench_data", description=main.__doc__)
    parser.add_argument("folder", nargs="?", default="", help="folder of images")
    parser.add_argument("--images", type=int, default=400, help="how many are used at most")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    made = {"images_per_slide": 1, "size": (460, 700)}
    folder = data.find_data(options.folder, lambda: make_phantom(phantom_folder(**made), **made))
    index, _ = data.build_index(folder)
    chosen = np.unique(np.linspace(0, len(index) - 1, options.images).astype(int))
    index = index.iloc[chosen].reset_index(drop=True)
    print(f"\n{len(index)} images of {folder.name}, {os.cpu_count()} cores\n")
    for title, measure in (("Decoding", cache_table), ("An epoch", epoch_table)):
        table = measure(folder, index, options.repeats)
        print(f"{title}\n{table.to_string(index=False, float_format='{:.2f}'.format)}\n")


if __name__ == "__main__":
    main()
