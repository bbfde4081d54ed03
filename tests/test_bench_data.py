"""The benchmark measures what it says."""

import os
import time

import pandas as pd
import pytest
from PIL import Image

from bench import bench_data
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
