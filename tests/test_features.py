"""Frozen features: computed once, keyed by content, the same however they were asked for."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import features, models, stain, views
from helpers.data.images import pixel_hash
from helpers.models import tuning

NAME = "EfficientNetLite0"
SIZE = [64, 96]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(5):
        coarse = rng.integers(0, 256, (8, 12, 3)).astype("uint8")
        Image.fromarray(coarse).resize((96, 64)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def index(folder):
    paths = sorted(path.name for path in folder.glob("*.png"))
    hashes = [pixel_hash(np.asarray(Image.open(folder / path))) for path in paths]
    return pd.DataFrame({"path": paths, "pixel_sha256": hashes})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))


def pictures(folder, index):
    return np.stack([np.asarray(Image.open(folder / path)) for path in index["path"]])


def test_features_are_the_mean_of_the_maps(folder, index):
    got = features.frozen_features(folder, index, SIZE, NAME, batch_size=2)
    network = models.build_backbone(NAME, SIZE)
    expected = network.predict(pictures(folder, index), verbose=0).mean(axis=(1, 2))
    assert got.shape == (5, 1, 1280)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-4)


def test_views_are_those_of_turned_images(folder, index):
    names = ["flip_lr", "rot90", "tile_1_0"]
    got = features.frozen_features(folder, index, SIZE, NAME, views=names)
    images = pictures(folder, index)
    network = models.build_backbone(NAME, (None, None))
    by_hand = [images[:, :, ::-1], np.rot90(images, 1, (1, 2)), images[:, 32:, :48]]
    for column, view in enumerate(by_hand):
        expected = network.predict(np.ascontiguousarray(view), verbose=0).mean(axis=(1, 2))
        np.testing.assert_allclose(got[:, column], expected, atol=1e-4)


def test_dihedral_views_are_eight_and_all_different():
    image = np.arange(4 * 6 * 3).reshape(1, 4, 6, 3)
    seen = {views.see(image, view).tobytes() for view in views.DIHEDRAL}
    assert len(seen) == 8


def test_views_can_follow_one_another():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(views.see(image, "rot180+flip_lr"), image[:, ::-1])
    np.testing.assert_array_equal(views.see(image, "identity+tile_0_1"), image[:, :2, 3:])


def test_views_to_learn_from_by_stain():
    names = ["identity", "rot180"]
    assert views.stained(names, "as it is") == names
    assert views.stained(names, "normalised") == ["normalised+identity", "normalised+rot180"]
    both = [*names, "jittered_0+identity", "jittered_1+rot180"]
    assert views.stained(names, "jittered") == both


def test_jittered_stain_depends_on_the_image_and_the_copy_alone():
    """A batch of other size or order must not change what is stored for an image."""
    images = np.random.default_rng(0).integers(60, 200, (3, 8, 12, 3), dtype=np.uint8)
    both = views.see(images, "jittered_0")
    np.testing.assert_array_equal(views.see(images[::-1], "jittered_0")[::-1], both)
    np.testing.assert_array_equal(views.see(images[1:2], "jittered_0")[0], both[1])
    change = np.abs(both - images)
    assert change.max() > 1
    assert np.abs(views.see(images, "jittered_1") - both).max() > 1
    shift = stain.to_od(both) - stain.to_od(images)
    hed = np.asarray(shift) @ stain.HED_FROM_RGB
    own = np.asarray(stain.to_od(images)) @ stain.HED_FROM_RGB
    assert (np.abs(hed) <= views.JITTER * (1 + np.abs(own)) + 1e-3).all()


def test_images_under_a_view_are_stored_rounded(folder, index):
    got = features.seen_images(folder, index, SIZE, "normalised+flip_lr")
    expected = views.see(views.see(pictures(folder, index), "normalised"), "flip_lr")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.rint(expected))
    plain = features.seen_images(folder, index, SIZE, "identity")
    np.testing.assert_array_equal(plain, pictures(folder, index))


def test_tiles_make_up_the_image():
    image = np.arange(4 * 6 * 3).reshape(1, 4, 6, 3)
    rows = [
        np.concatenate([views.see(image, f"tile_{row}_{column}") for column in (0, 1)], axis=2)
        for row in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), image)


def test_second_time_needs_no_network_and_no_images(folder, index, monkeypatch):
    first = features.frozen_features(folder, index, SIZE, NAME)

    def never(*args, **kwargs):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(models, "build_backbone", never)
    monkeypatch.setattr("helpers.cache.load_images", never)
    again = features.frozen_features("nowhere", index, SIZE, NAME)
    np.testing.assert_array_equal(first, again)


def test_features_that_are_used_again_are_the_last_to_be_removed(folder, index):
    """The cache removes what was not used for longest, by the time of the file."""
    features.frozen_features(folder, index, SIZE, NAME)
    file = next(features.cache.cache_folder().glob("features-*.npy"))
    os.utime(file, (1, 1))
    features.frozen_features(folder, index, SIZE, NAME)
    assert file.stat().st_mtime > 1e9


def test_features_cut_short_are_made_again(folder, index):
    first = features.frozen_features(folder, index, SIZE, NAME)
    file = next(features.cache.cache_folder().glob("features-*.npy"))
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(features.frozen_features(folder, index, SIZE, NAME), first)


def test_stored_maps_count_as_part_of_the_cache(folder, index):
    features.lower_maps(folder, index, SIZE, NAME, "imagenet", 0.1, batch_size=2)
    assert features.cache.clean() > 0
    assert not list(features.cache.cache_folder().glob("*.npy"))


def test_key_follows_content_size_weights_and_view(index, tmp_path):
    changed = index.assign(pixel_sha256=index["pixel_sha256"][::-1].to_numpy())
    file = tmp_path / "lite.weights.h5"
    models.build_backbone(NAME, (None, None)).save_weights(file)
    keys = [
        features.features_key(rows, size, features._Network(NAME, weights), view)
        for rows, size, weights, view in [
            (index, SIZE, "imagenet", "identity"),
            (changed, SIZE, "imagenet", "identity"),
            (index[:4], SIZE, "imagenet", "identity"),
            (index, [32, 48], "imagenet", "identity"),
            (index, SIZE, str(file), "identity"),
            (index, SIZE, "imagenet", "flip_lr"),
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_errors_come_before_any_work(folder, index):
    with pytest.raises(ValueError, match="allowed: identity, flip_lr"):
        features.frozen_features(folder, index, SIZE, NAME, views=["upside_down"])
    with pytest.raises(ValueError, match="too small for EfficientNetLite0"):
        features.frozen_features(folder, index, [48, 96], NAME, views=["tile_0_0"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        features.frozen_features(folder, index, SIZE, NAME, weights="nowhere.h5")


def test_lower_maps_lead_to_the_same_features(folder, index):
    [maps] = features.lower_maps(folder, index, SIZE, NAME, "imagenet", 0.1, batch_size=2)
    assert maps.dtype == np.float16
    _, upper = tuning.cut(models.build_backbone(NAME, SIZE), 0.1)
    got = upper.predict(np.float32(maps), verbose=0).mean(axis=(1, 2))
    expected = features.frozen_features(folder, index, SIZE, NAME)[:, 0]
    np.testing.assert_allclose(got, expected, atol=2e-2)


def test_normalised_view_removes_a_change_of_stain():
    images = np.random.default_rng(0).integers(100, 180, (1, 32, 48, 3)).astype("uint8")
    darker = (256 * ((images + 1) / 256.0) ** 1.3 - 1).round().astype("uint8")
    first, second = (views.see(part, "normalised") for part in (images, darker))
    assert np.abs(first - second).mean() < 0.2 * np.abs(images.astype(float) - darker).mean()
