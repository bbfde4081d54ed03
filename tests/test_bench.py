"""The benchmark measures what it says."""

import os
import time

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import bench_data, bench_training
from helpers.data.images import pixel_hash


def test_rates_are_items_by_median_seconds(monkeypatch):
    clock = iter([0, 1, 1, 3, 3, 4, 4, 6, 6, 16, 16, 18])  # job a: 1, 1, 10 s; job b: 2, 2, 2 s
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    rates = bench_data.alternate({"a": lambda: 8, "b": lambda: 8}, 3)
    assert rates == {"a": 8, "b": 4}
    assert bench_data.ratios(rates, "a")["ratio"].tolist() == [1, 0.5]


@pytest.mark.parametrize("named", ["", "somewhere"])
def test_building_leaves_the_users_cache_alone(tmp_path, monkeypatch, named):
    place = str(tmp_path / named) if named else ""
    monkeypatch.setenv("BREAKHIS_CACHE", place)
    image = Image.new("RGB", (70, 46), "pink")
    image.save(tmp_path / "a.png")
    index = pd.DataFrame(
        {"path": ["a.png"], "pixel_sha256": [pixel_hash(bench_data.np.array(image))]}
    )
    assert bench_data.build(tmp_path, index) == 1
    assert os.environ["BREAKHIS_CACHE"] == place
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_operations_of_a_training_by_hand():
    """A 3x3 convolution of 2 to 4 channels on 5x6 places, frozen, and 4 to 1 units, trained."""
    frozen = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, trainable=False)
    model = keras.Sequential([keras.Input((5, 6, 2)), frozen])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(1, use_bias=False))
    expected = 2 * (5 * 6 * 3 * 3 * 2 * 4) + 3 * 2 * (4 * 1)
    assert bench_training.gigaflops(model) == pytest.approx(expected / 1e9)


def test_throughput_names_every_stage_and_relates_it_to_the_model_alone():
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3)).astype("uint8")
    table = bench_training.throughput_table(bench_training.network, images, repeats=1, steps=1)
    stages = ["model alone", "from the cache", "and dihedral views", "and stain jitter"]
    assert all(what.startswith(stage) for what, stage in zip(table["what"], stages, strict=True))
    assert table["ratio"].iloc[0] == 1
    assert np.isfinite(table.drop(columns="what").to_numpy(float)).all()
    assert (table.drop(columns="what") > 0).all(axis=None)
