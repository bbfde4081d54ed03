"""The benchmark measures what it says."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import bench_data, bench_scale, bench_training, gpu_check
from helpers import data
from helpers.images import pixel_hash
from runner import provenance

import keras
from keras import layers


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


def test_flops_are_those_of_the_kernels_at_each_place():
    inputs = keras.Input((8, 6, 3))
    x = layers.Conv2D(5, 3, strides=2, padding="same")(inputs)  # 4 x 3 places
    x = layers.DepthwiseConv2D(3, padding="same")(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    passes = [2 * 4 * 3 * 5 * 3 * 3 * 3, 2 * 4 * 3 * 5 * 3 * 3, 2 * 5 * 2]
    assert bench_training.flops(model) == 3 * sum(passes)
    model.layers[1].trainable = False
    assert bench_training.flops(model) == 3 * sum(passes) - 2 * passes[0]


def test_the_work_of_the_full_profile_is_counted_in_images():
    p = {"PROTOCOLS": ["accession"], "FOLDS": [], "SEEDS": [0, 1], "EPOCHS": 3}
    # Each of 7,909 images is tested in one fold of five and known in the others.
    assert gpu_check.work(p) == (10, 2 * (3 * 4 * 7909 + 7909))
    p |= {"RUNGS": ["probe", "fine_tuned"], "N_INNER": 2, "VIEWS": ["identity", "rot180", "rot90"]}
    assert gpu_check.work(p) == (30, 2 * (3 * 2 * 4 * 7909 + 2 * 5 * 7909))


def nvidia_smi(monkeypatch, status, said, idle):
    """The device as gpu_check sees it, where nvidia-smi says so."""
    here = {"backend": "TensorFlow 2", "keras": "3", "device": "GPU X", "idle": idle}
    monkeypatch.setattr(provenance, "where", lambda root: here)
    monkeypatch.setattr(gpu_check.subprocess, "getstatusoutput", lambda command: (status, said))
    return gpu_check.device()


@pytest.mark.parametrize(
    ("status", "said", "idle", "told", "gpu", "precisions"),
    [
        (127, "not found", "", "nvidia-smi finds no GPU", False, 1),
        (0, "3.7, 11441 MiB, 470.1", "warning: no", "the GPU is too old", False, 1),
        (0, "7.5, 15360 MiB, 580.1", "warning: no", "warning: no", False, 1),
        (0, "7.5, 15360 MiB, 580.1", "", "No bfloat16", True, 1),
        (0, "8.9, 23034 MiB, 580.1\n8.9, 23034 MiB, 580.1", "", "It has bfloat16", True, 2),
    ],
)
def test_the_check_names_the_gpu_or_why_it_is_not_used(
    monkeypatch, status, said, idle, told, gpu, precisions
):
    text, found, worth = nvidia_smi(monkeypatch, status, said, idle)
    assert told in text
    assert (found, len(worth)) == (gpu, precisions)


def test_the_check_gives_speeds_and_the_time_of_a_profile(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "SECONDS", 0)
    gpu_check.main(["--profile", "smoke", "-p", "BATCH_SIZE=2"])
    said = capsys.readouterr().out
    assert "computes on" in said
    assert "float32: a product of large matrices reaches" in said
    assert said.count(" images/s, ") == said.count(" hours") == 2
    assert "5 trainings of 7909 images" in said  # of 03: an epoch and the test, in five folds


def test_time_and_memory_are_those_of_the_whole_tree_of_processes(tmp_path):
    work = "x, end = b'.' * 2**29, time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    code = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {'import time;' + work!r}])"
    )
    cost = bench_scale.measure(["-c", code], tmp_path / "log")
    assert 0.5 < cost["cpu_s"] < 3
    assert cost["wall_s"] > 0.5
    assert 512 < cost["peak_mib"] < 640
    with pytest.raises(RuntimeError, match="no such thing"):
        bench_scale.measure(["-c", "raise ValueError('no such thing')"], tmp_path / "log")


def test_table_of_scale_has_a_row_a_step_and_part_and_can_be_measured_again(tmp_path, monkeypatch):
    def make(folder, images_per_slide, size):
        folder.mkdir(exist_ok=True)
        for name in {Path(path).stem[:-3] for path in data.manifest().values()}:
            noise = np.random.default_rng().integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{name}001.png")
        (folder / "phantom.json").write_text('{"images_per_slide": 1}')
        return folder

    monkeypatch.setattr(bench_scale, "make_phantom", make)
    monkeypatch.setattr(bench_scale, "phantom_folder", lambda **_: tmp_path / "phantom")
    table, place, parts = tmp_path / "scale.csv", tmp_path / "images", (800, 400)
    bench_scale.main(place, table, parts, ["index", "verify"], size=(32, 48))
    bench_scale.main(place, table, parts[:1], ["verify"], size=(32, 48))
    rows = pd.read_csv(table).set_index(["step", "images"])
    assert list(rows.index) == [("index", 10), ("index", 20), ("verify", 10), ("verify", 20)]
    assert rows["fraction"].tolist() == ["1/800", "1/400"] * 2
    small, large = rows.loc[("index", 10)], rows.loc[("index", 20)]
    for more, of, unit in (("more_ms", "cpu_s", 1000), ("more_kib", "peak_mib", 1024)):
        assert large[more] == pytest.approx((large[of] - small[of]) / 10 * unit, abs=11)
        assert pd.isna(small[more])
    index = pd.read_csv(place / "1-400-work" / "results" / "index.csv")
    assert index["pixel_sha256"].is_unique
    assert index["slide"].nunique() > 10


def test_committed_table_of_scale_holds_every_step_at_three_sizes():
    rows = pd.read_csv(bench_scale.ROOT / "bench" / "scale.csv")
    wanted = [(step, images) for step in sorted(bench_scale.CALLS) for images in (495, 1978, 7909)]
    assert list(zip(rows["step"], rows["images"], strict=True)) == wanted
