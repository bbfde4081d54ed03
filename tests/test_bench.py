"""The benchmark measures what it says."""

import os
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import bench_data, bench_training
from helpers.images import pixel_hash


def test_rates_are_items_by_median_seconds(monkeypatch):
    clock = iter([0, 1, 1, 3, 3, 4, 4, 6, 6, 16, 16, 18])  # job a: 1, 1, 10 s; job b: 2, 2, 2 s
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    rates = bench_data.alternate({"a": lambda: 8, "b": lambda: 8}, 3)
    assert rates == {"a": 8, "b": 4}
    assert bench_data.ratios(rates)["ratio"].tolist() == [1, 0.5]


@pytest.mark.parametrize("named", ["", "somewhere"])
def test_building_leaves_the_users_cache_alone(tmp_path, monkeypatch, named):
    place = str(tmp_path / named) if named else ""
    monkeypatch.setenv("BREAKHIS_CACHE", place)
    pixels = np.full((46, 70, 3), 200, "uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    index = pd.DataFrame({"path": ["a.png"], "pixel_sha256": [pixel_hash(pixels)]})
    table = bench_data.cache_table(tmp_path, index, repeats=1)
    assert (table["images/s"] > 0).all()
    assert os.environ["BREAKHIS_CACHE"] == place
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_batches_hold_each_image_once_an_epoch_with_its_label_and_mirrored_at_random():
    images = np.random.default_rng(0).integers(0, 256, (70, 4, 6, 3), dtype=np.uint8)
    y = np.arange(70)
    batches = bench_data.Batches(images, y, y[:66], seed=0, flip=True)
    seen = []
    for _ in range(2):
        batches.on_epoch_begin()
        parts = [batches[number] for number in range(len(batches))]
        seen.append(np.concatenate([labels for _, labels in parts]))
        assert sorted(seen[-1]) == list(range(66))
        for batch, labels in parts:
            for image, label in zip(batch, labels, strict=True):
                views = {images[label][::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)}
                assert image.tobytes() in views
        assert any((batch != images[labels]).any() for batch, labels in parts)
    assert seen[0].tolist() != seen[1].tolist()
    plain = bench_data.Batches(images, y, y[:66])
    np.testing.assert_array_equal(plain[1][0], images[32:64])


def test_throughput_names_every_stage_and_relates_it_to_the_model_alone(monkeypatch):
    monkeypatch.setattr(bench_training, "STEPS", 1)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3)).astype("uint8")
    table = bench_training.throughput_table(images, repeats=1)
    assert table["what"].is_unique
    assert table["ratio"].iloc[0] == 1
    assert (table.drop(columns="what") > 0).all(axis=None)
