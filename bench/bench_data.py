"""Speed of the data path: the cache against bare decoding, and an epoch from the cache against
memory and against opening PNG files.

``make bench``, or ``python -m bench.bench_data [DIR]``. The images are those of DIR, else of
BREAKHIS_DIR or data/BreaKHis_v1, else of a phantom of 700x460 px, which takes minutes to draw.
Ratios are taken within one run, from medians of alternating repeats.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers import cache
from helpers.data import build_index, find_data
from helpers.data.images import n_workers, parallel
from helpers.phantom import make_phantom, phantom_folder

SIZE = [230, 350]  # px, height and width
BATCH = 32


def alternate(jobs: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Run the jobs in turn, ``repeats`` times; return the median rate of each, items per second.

    A job does its work and returns how many items that was. Taking turns lets a machine that is
    busy with other things slow all jobs alike.
    """
    seconds = {name: [] for name in jobs}
    counts = {}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            counts[name] = job()
            seconds[name].append(time.perf_counter() - start)
    return {name: counts[name] / statistics.median(taken) for name, taken in seconds.items()}


def decode(files: list[Path]) -> int:
    """Decode the files with all cores, and throw the pixels away."""
    parallel(lambda file: Image.open(file).load(), files, "Decoding")
    return len(files)


def build(folder: Path, index: pd.DataFrame) -> int:
    """Build the cache anew, in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        before = os.environ.get("BREAKHIS_CACHE")
        os.environ["BREAKHIS_CACHE"] = place
        try:
            cache.load_images(folder, index, SIZE)
        finally:
            os.environ.pop("BREAKHIS_CACHE")
            if before is not None:
                os.environ["BREAKHIS_CACHE"] = before
    return len(index)


def cache_table(folder: Path, index: pd.DataFrame, repeats: int = 5) -> pd.DataFrame:
    """Return the rates of bare decoding and of building the cache, images per second."""
    files = [folder / path for path in index["path"]]
    decode(files)  # the files are in memory from here on
    jobs = {
        "bare decoding, all cores": lambda: decode(files),
        "building the cache, 350x230 px": lambda: build(folder, index),
    }
    return ratios(alternate(jobs, repeats), "bare decoding, all cores")


def ratios(rates: dict[str, float], reference: str) -> pd.DataFrame:
    """Return a table of rates and their ratio to that of ``reference``."""
    rows = [(name, rate, rate / rates[reference]) for name, rate in rates.items()]
    return pd.DataFrame(rows, columns=["what", "images/s", "ratio"])


def small_model():
    """Return a network so small that an epoch is bound by its data."""
    import keras

    model = keras.Sequential([
        keras.layers.Input((*SIZE, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 7, strides=4, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    model.compile("adam", "binary_crossentropy")
    return model


def png_dataset(files: list[Path], labels: np.ndarray):
    """Return the plain way: a PyDataset that opens the PNG files of each batch."""
    import keras

    class Plain(keras.utils.PyDataset):
        def __len__(self):
            return -(-len(files) // BATCH)

        def __getitem__(self, number):
            rows = slice(number * BATCH, (number + 1) * BATCH)
            images = [Image.open(f).resize(SIZE[::-1], Image.Resampling.BOX) for f in files[rows]]
            return np.stack([np.asarray(image) for image in images]), labels[rows]

    return Plain(workers=n_workers(), max_queue_size=8)


def directory_dataset(files: list[Path], labels: np.ndarray, place: Path):
    """Return ``keras.utils.image_dataset_from_directory`` on links to the files."""
    import keras

    for file, label in zip(files, labels, strict=True):
        (place / str(label)).mkdir(exist_ok=True)
        (place / str(label) / file.name).symlink_to(file)
    options = {"label_mode": "binary", "batch_size": BATCH, "seed": 0, "verbose": False}
    return keras.utils.image_dataset_from_directory(place, image_size=tuple(SIZE), **options)


def epoch_table(folder: Path, index: pd.DataFrame, repeats: int = 3) -> pd.DataFrame:
    """Return the rates of an epoch of one small model on four sources of the same images."""
    from helpers.training.loop import feed

    files = [folder / path for path in index["path"]]
    labels = (index["tumor_class"] == "malignant").to_numpy(int)
    mapped = cache.load_images(folder, index, SIZE)
    memory, model = np.array(mapped), small_model()
    steps, rows = -(-len(index) // BATCH), np.arange(len(index))
    weights = np.ones(len(index), "float32")

    def fit(source, **options) -> int:
        model.fit(source, epochs=1, verbose=0, **options)
        return len(index)

    def ours(images) -> int:
        source = feed(images, rows, labels[:, None], weights, BATCH, "shuffle", 0, 0)
        return fit(source, steps_per_epoch=steps)

    with tempfile.TemporaryDirectory() as place:
        directory = directory_dataset(files, labels, Path(place))
        jobs = {
            "array in memory": lambda: fit(memory, y=labels, batch_size=BATCH),
            "cache": lambda: ours(mapped),
            "the cache's feed on an array in memory": lambda: ours(memory),
            "image_dataset_from_directory": lambda: fit(directory),
            "PyDataset that opens PNGs": lambda: fit(png_dataset(files, labels)),
        }
        ours(memory)  # compiles
        return ratios(alternate(jobs, repeats), "array in memory")


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser("python -m bench.bench_data", description=main.__doc__)
    parser.add_argument("folder", nargs="?", default="", help="folder of images")
    parser.add_argument("--images", type=int, default=400, help="how many are used at most")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    made = {"images_per_slide": 1, "size": (460, 700)}
    folder = find_data(options.folder, lambda: make_phantom(phantom_folder(**made), **made))
    index, _ = build_index(folder)
    chosen = np.unique(np.linspace(0, len(index) - 1, options.images).astype(int))
    index = index.iloc[chosen].reset_index(drop=True)
    print(f"\n{len(index)} images of {folder.name}, {n_workers()} cores\n")
    for title, measure in (("Decoding", cache_table), ("An epoch", epoch_table)):
        table = measure(folder, index, options.repeats)
        print(f"{title}\n{table.to_string(index=False, float_format='{:.2f}'.format)}\n")


if __name__ == "__main__":
    main()
