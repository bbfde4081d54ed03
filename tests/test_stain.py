"""Optical density, stain jitter and colour features, against NumPy."""

import numpy as np
import pytest

from helpers import stain

import keras
from keras import layers, ops

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)


def to_numpy(x):
    return ops.convert_to_numpy(x)


def test_od_of_known_values():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    od = to_numpy(stain.to_od(values))
    assert od[0, 15, 15, 0] == 0  # white
    assert od[0, 0, 0, 0] == pytest.approx(np.log(256))  # black
    assert od[0, 7, 15, 0] == pytest.approx(np.log(2), abs=1e-6)  # 127: half the light


def reference_shift(images, gain, offset):
    """shift_stain in float64, by way of the stains themselves, which the code never computes."""
    od = -np.log((images.astype("float64") + 1) / 256)
    hed = od @ np.linalg.inv(stain.RGB_FROM_HED.astype("float64"))
    hed = hed * (1 + gain)[:, None, None] + offset[:, None, None]
    return np.clip(256 * np.exp(-hed @ stain.RGB_FROM_HED) - 1, 0, 255)


def test_shift_of_stain_agrees_with_numpy():
    gain, offset = RNG.uniform(-0.2, 0.2, (2, 4, 3)).astype("float32")
    seen = to_numpy(stain.shift_stain(WIDE, gain, offset))
    np.testing.assert_allclose(seen, reference_shift(WIDE, gain, offset), atol=0.01)


def test_haematoxylin_added_to_glass_has_the_colour_of_haematoxylin():
    glass = np.full((1, 1, 1, 3), 255, np.uint8)
    seen = to_numpy(stain.shift_stain(glass, np.zeros((1, 3)), np.float32([[0.5, 0, 0]])))
    expected = 256 * np.exp(-0.5 * np.array([0.65, 0.70, 0.29])) - 1  # Ruifrok and Johnston
    np.testing.assert_allclose(seen.ravel(), expected, rtol=1e-5)


def test_zero_strength_is_exactly_the_identity():
    zero = np.zeros((4, 3), "float32")
    np.testing.assert_array_equal(to_numpy(stain.shift_stain(WIDE, zero, zero)), WIDE)
    np.testing.assert_array_equal(to_numpy(stain.StainJitter(0.0)(WIDE, training=True)), WIDE)
    np.testing.assert_array_equal(to_numpy(stain.StainJitter(0.2)(WIDE, training=False)), WIDE)


def test_jitter_differs_between_images_stays_in_range_and_repeats_at_a_seed():
    batch = np.stack([WIDE[0]] * 16)
    seen = to_numpy(stain.StainJitter(0.2, seed=3)(batch, training=True))
    assert len({one.tobytes() for one in seen}) == 16
    assert seen.min() >= 0
    assert seen.max() <= 255
    again = to_numpy(stain.StainJitter(0.2, seed=3)(batch, training=True))
    np.testing.assert_array_equal(again, seen)


def test_jitter_in_a_graph_is_that_without_one():
    """Training calls the layer while it traces, with a batch of unknown size."""
    jitter = stain.StainJitter(0.2, seed=2)

    class Training(layers.Layer):
        def call(self, images):
            return jitter(images, training=True)

    graph = keras.Sequential([keras.Input((6, 9, 3), dtype="uint8"), Training(autocast=False)])
    start = ops.copy(jitter.generator.state)
    eager = to_numpy(jitter(WIDE, training=True))
    jitter.generator.state.assign(start)
    seen = graph.predict_on_batch(WIDE)
    np.testing.assert_allclose(seen, eager, atol=1e-3)
    assert not np.array_equal(seen, WIDE)


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="allowed is 0 to below 1"):
        stain.StainJitter(strength)


def test_jitter_survives_saving(tmp_path):
    inputs = keras.Input((6, 9, 3))
    x = stain.StainJitter(0.1, seed=5)(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(WIDE), model.predict_on_batch(WIDE))
    assert again.layers[-2].strength == 0.1


def test_colour_features_by_hand():
    """A flat image has the density of its grey levels and no spread."""
    image = np.empty((1, 4, 5, 3), "uint8")
    image[..., 0], image[..., 1], image[..., 2] = 255, 127, 15
    got = stain.colour_features(image)
    density = -np.log10([1, 128 / 256, 16 / 256])
    np.testing.assert_allclose(got[0, :3], density, atol=1e-6)
    np.testing.assert_allclose(got[0, 6:9], density, atol=1e-6)
    np.testing.assert_allclose(got[0, [3, 4, 5, 9, 10, 11]], 0, atol=1e-6)


def test_colour_features_know_no_places():
    shuffled = WIDE[:, ::-1, ::-1]
    expected = stain.colour_features(WIDE)
    assert expected.shape == (4, 12)
    np.testing.assert_allclose(stain.colour_features(shuffled), expected, rtol=1e-5)
