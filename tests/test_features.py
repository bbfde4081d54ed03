"""Frozen features: computed once, keyed by content, the same however they were asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import backbones, features, images, stain

import keras

NAME = "EfficientNetLite0"
SIZE = [64, 96]
BY_HAND = {  # of one image (height, width, 3)
    "identity": lambda x: x,
    "flip_lr": lambda x: x[:, ::-1],
    "flip_ud": lambda x: x[::-1],
    "rot180": lambda x: np.rot90(x, 2),
    "transpose": lambda x: x.transpose(1, 0, 2),
    "rot90": np.rot90,
    "rot270": lambda x: np.rot90(x, 3),
    "anti_transpose": lambda x: np.rot90(x, 2).transpose(1, 0, 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 256, (8, 12, 3)).astype("uint8")
        Image.fromarray(coarse).resize((96, 64)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def index(folder):
    paths = sorted(path.name for path in folder.glob("*.png"))
    hashes = [images.pixel_hash(np.asarray(Image.open(folder / path))) for path in paths]
    return pd.DataFrame({"path": paths, "pixel_sha256": hashes})


@pytest.fixture(scope="module")
def pictures(folder, index):
    return np.stack([np.asarray(Image.open(folder / path)) for path in index["path"]])


@pytest.fixture(scope="module")
def network():
    return backbones.build_backbone(NAME, (None, None))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def keras_settings():
    layout, floatx = keras.config.image_data_format(), keras.config.floatx()
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_image_data_format(layout)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def test_views_are_exact():
    batch = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    for view, by_hand in BY_HAND.items():
        expected = np.stack([by_hand(image) for image in batch])
        np.testing.assert_array_equal(features.see(batch, view), expected)
    assert len({features.see(batch, view).tobytes() for view in BY_HAND}) == 8
    assert set(BY_HAND) | set(features.JITTERED) == set(features.VIEWS)
    for view in (*features.SHAPE_KEEPING, *features.JITTERED):
        assert features.see(batch, view).shape == batch.shape


def test_jittered_views_depend_on_the_image_and_the_number_alone():
    """A batch of other size or order must not change what is stored for an image."""
    batch = np.random.default_rng(0).integers(60, 200, (3, 8, 12, 3), dtype=np.uint8)
    seen = features.see(batch, "jittered_0")
    np.testing.assert_array_equal(features.see(batch[::-1], "jittered_0")[::-1], seen)
    np.testing.assert_array_equal(features.see(batch[1:2], "jittered_0")[0], seen[1])
    assert np.abs(seen - batch).max() > 1
    assert np.abs(features.see(batch, "jittered_1") - seen).max() > 1
    before, after = (
        -np.log((x + 1.0) / 256) @ np.linalg.inv(stain.RGB_FROM_HED.astype(float))
        for x in (batch, seen)
    )
    assert (np.abs(after - before) <= features.JITTER * (1 + np.abs(before)) + 1e-3).all()


def test_features_are_the_mean_of_the_maps_of_each_view(folder, index, pictures, network):
    views = ["identity", "flip_lr", "rot90"]
    got = features.frozen_features(folder, index, SIZE, NAME, views=views)
    assert got.shape == (3, 3, 1280)
    assert got.dtype == np.float32
    assert got.std() > 0.1
    for column, view in enumerate(views):
        seen = np.stack([BY_HAND[view](picture) for picture in pictures])
        expected = keras.ops.convert_to_numpy(network(seen)).mean(axis=(1, 2))
        np.testing.assert_allclose(got[:, column], expected, atol=1e-4)


def test_second_time_needs_no_network_and_no_images(folder, index, monkeypatch):
    views = ("identity", "jittered_2")
    first = features.frozen_features(folder, index, SIZE, NAME, views=views)

    def never(*args, **kwargs):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(backbones, "build_backbone", never)
    monkeypatch.setattr(features, "load_images", never)
    again = features.frozen_features("nowhere", index, SIZE, NAME, views=views[::-1])
    np.testing.assert_array_equal(first[:, ::-1], again)


def test_key_follows_all_that_features_depend_on(index, tmp_path, monkeypatch, keras_settings):
    keys = []

    def cached(kind, parts, shape, dtype, fill):
        keys.append("\n".join(map(str, [kind, *parts])))
        return np.zeros(shape, dtype)

    def ask(rows=index, size=SIZE, name=NAME, weights="imagenet", view="identity"):
        features.frozen_features("nowhere", rows, size, name, weights, [view])

    monkeypatch.setattr(features, "cached", cached)
    file = tmp_path / "lite.weights.h5"
    ask()
    ask(index.assign(pixel_sha256=index["pixel_sha256"][::-1].to_numpy()))
    ask(index[:2])
    ask(size=[32, 48])
    ask(name="MobileNetV3Small", weights="none")
    ask(view="flip_lr")
    for content in (b"one", b"other"):
        file.write_bytes(content)
        ask(weights=str(file))
    keras.config.set_dtype_policy("mixed_bfloat16")
    ask()
    keras.config.set_dtype_policy("float32")
    with monkeypatch.context() as patch:
        patch.setattr(keras.config, "backend", lambda: "another")
        ask()
    assert len(set(keys)) == len(keys) == 10
    ask(index.assign(path="moved.png"))  # content, not place
    assert keys[-1] == keys[0]


def test_errors_come_before_any_work(index):
    with pytest.raises(ValueError, match="allowed are one or more of identity, flip_lr"):
        features.frozen_features("nowhere", index, SIZE, NAME, views=["upside_down"])
    with pytest.raises(ValueError, match="'upside_down' is unknown; allowed: identity, flip_lr"):
        features.see(np.zeros((1, 2, 2, 3)), "upside_down")
    with pytest.raises(ValueError, match="one or more"):
        features.frozen_features("nowhere", index, SIZE, NAME, views=[])
    with pytest.raises(ValueError, match="too small: EfficientNetLite0"):
        features.frozen_features("nowhere", index, [16, 96], NAME)
    with pytest.raises(FileNotFoundError, match="no such file"):
        features.frozen_features("nowhere", index, SIZE, NAME, weights="nowhere.h5")
    with pytest.raises(ValueError, match=r"\['rot90'\] need square images; size is \[64, 96\]"):
        features.lower_maps("nowhere", index, SIZE, NAME, "imagenet", 0.1, ["rot90"])


def test_lower_maps_and_upper_part_are_the_whole_network(folder, index, network):
    views = ("identity", "flip_ud")
    maps = features.lower_maps(folder, index, SIZE, NAME, "imagenet", 0.1, views)
    _, upper = backbones.cut(network, 0.1)
    expected = features.frozen_features(folder, index, SIZE, NAME, views=views)
    for column, array in enumerate(maps):
        assert array.dtype == np.float16
        got = keras.ops.convert_to_numpy(upper(np.float32(array))).mean(axis=(1, 2))
        np.testing.assert_allclose(got, expected[:, column], atol=2e-2)
    other = features.lower_maps(folder, index, SIZE, NAME, "imagenet", 0.6)
    assert other[0].shape[1:] != maps[0].shape[1:]


def test_maps_of_the_whole_network_are_the_images(folder, index, pictures):
    views = ("identity", "rot180", "jittered_1")
    plain, turned, jittered = features.lower_maps(folder, index, SIZE, NAME, "imagenet", 1, views)
    np.testing.assert_array_equal(plain, pictures)
    np.testing.assert_array_equal(turned, pictures[:, ::-1, ::-1])
    assert jittered.dtype == np.uint8
    np.testing.assert_array_equal(jittered, np.rint(features.see(pictures, "jittered_1")))


def test_features_count_as_part_of_the_cache(folder, index):
    features.lower_maps(folder, index, SIZE, NAME, "imagenet", 0.1)
    features.frozen_features(folder, index, SIZE, NAME)
    assert images.clean() > 0
    assert not list(images.cache_folder().glob("*.npy"))


def test_settings_of_the_user_change_nothing(folder, index, keras_settings):
    """The same array, under the same key, whatever keras.json says."""
    expected = features.frozen_features(folder, index, SIZE, NAME)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("float16")
    np.testing.assert_array_equal(features.frozen_features("nowhere", index, SIZE, NAME), expected)
    images.clean()
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("float16")
    np.testing.assert_array_equal(features.frozen_features(folder, index, SIZE, NAME), expected)


JAX = """
import sys

import keras
import numpy as np
import pandas as pd

from helpers import backbones, features, probe, stain

assert (keras.config.backend(), keras.config.floatx()) == ("jax", "float16")
folder, size, name = sys.argv[1], [64, 96], "EfficientNetLite0"
index = pd.read_csv("index.csv")
x = features.frozen_features(folder, index, size, name)
np.save("features.npy", x)
backbones.set_seed(0)
probe.fit_probe(x, [0, 1], ["a", "b"])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        return np.full((4, 8, 8, 3), 100, "uint8"), np.zeros((4, 3), "float32")


inputs = keras.Input((8, 8, 3))
jittered = stain.StainJitter(0.2)(inputs)
model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(jittered))
model.compile("sgd", "mean_absolute_error")
losses = model.fit(backbones.feed(Batches()), epochs=2, shuffle=False, verbose=0).history["loss"]
assert losses[0] != losses[1]  # the jitter is drawn anew
assert np.allclose(model.predict(backbones.feed(Batches()), verbose=0), 100)
"""


def test_jax_gives_the_same_under_keys_of_its_own(folder, index, tmp_path):
    """In a process of its own, with a keras.json that asks for another layout and precision."""
    settings = {"floatx": "float16", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings | {"backend": "tensorflow"}))
    index[:2].to_csv(tmp_path / "index.csv", index=False)
    root = Path(__file__).parents[1]
    own = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(folder)],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = features.frozen_features(folder, index[:2], SIZE, NAME)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, atol=1e-3)
    assert len(list(images.cache_folder().glob("features-*.npy"))) == 2
