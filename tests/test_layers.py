"""Views, stain jitter and stain normalisation against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from helpers import layers, stain, views

RNG = np.random.default_rng(0)
SQUARE = RNG.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
TISSUE = RNG.integers(60, 190, (3, 20, 30, 3), dtype=np.uint8)

NUMPY_VIEWS = {
    "identity": lambda x: x,
    "flip_lr": lambda x: x[:, ::-1],
    "flip_ud": lambda x: x[::-1],
    "rot180": lambda x: np.rot90(x, 2),
    "transpose": lambda x: x.transpose(1, 0, 2),
    "rot90": np.rot90,
    "rot270": lambda x: np.rot90(x, 3),
    "anti_transpose": lambda x: np.rot90(x, 2).transpose(1, 0, 2),
}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("view", views.DIHEDRAL)
@pytest.mark.parametrize("images", [SQUARE, WIDE], ids=["square", "wide"])
def test_view_is_exact_and_inverts(view, images):
    seen = to_numpy(views.dihedral(images, view))
    expected = np.stack([NUMPY_VIEWS[view](image) for image in images])
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, expected)
    back = views.dihedral(seen, views.INVERSE[view])
    np.testing.assert_array_equal(to_numpy(back), images)


def test_views_keep_the_shape_they_promise():
    assert views.views_for(6, 6) == views.DIHEDRAL
    for view in views.views_for(6, 9):
        assert views.dihedral(WIDE, view).shape == WIDE.shape


def test_unknown_view_names_the_allowed():
    with pytest.raises(ValueError, match="unknown view 'rot45': allowed are identity, flip_lr"):
        views.dihedral(WIDE, "rot45")


@pytest.mark.parametrize(("height", "width", "n_views"), [(6, 6, 8), (6, 9, 4)])
def test_random_dihedral_draws_all_its_views(height, width, n_views):
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    batch = np.stack([image] * 200)
    seen = to_numpy(layers.RandomDihedral(seed=1)(batch, training=True))
    allowed = {NUMPY_VIEWS[v](image).tobytes() for v in views.views_for(height, width)}
    assert len(allowed) == n_views
    assert {one.tobytes() for one in seen} == allowed
    assert seen.dtype == np.uint8


@pytest.mark.parametrize("layer", [layers.RandomDihedral(seed=2), layers.StainJitter(0.2, seed=2)])
@pytest.mark.parametrize("images", [SQUARE, WIDE], ids=["square", "wide"])
def test_augmentation_in_a_graph_is_that_without_one(layer, images):
    """Training calls the layers while it traces, with a batch of unknown size."""

    class Training(keras.layers.Layer):
        def call(self, images):
            return layer(images, training=True)

    graph = keras.Sequential(
        [keras.Input(images.shape[1:], dtype="uint8"), Training(autocast=False)]
    )
    start = ops.copy(layer.generator.state)
    eager = to_numpy(layer(images, training=True))
    layer.generator.state.assign(start)
    seen = graph.predict_on_batch(images)
    np.testing.assert_allclose(seen, eager, atol=1e-3)
    assert not np.array_equal(seen, images)


@pytest.mark.parametrize("layer", [layers.RandomDihedral(), layers.StainJitter(0.2)])
def test_augmentation_is_the_identity_outside_training(layer):
    np.testing.assert_array_equal(to_numpy(layer(WIDE, training=False)), WIDE)


def test_od_of_known_values_and_its_inverse():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    od = to_numpy(stain.to_od(values))
    assert od[0, 15, 15, 0] == 0  # white
    assert od[0, 0, 0, 0] == pytest.approx(np.log(256))  # black
    assert od[0, 7, 15, 0] == pytest.approx(np.log(2), abs=1e-6)  # 127: half the light
    np.testing.assert_allclose(to_numpy(stain.from_od(od)), values, atol=1e-3)


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
    expected = 256 * np.exp(-0.5 * np.array([0.65, 0.70, 0.29])) - 1  # Ruifrok & Johnston's vector
    np.testing.assert_allclose(seen.ravel(), expected, rtol=1e-5)


def test_zero_strength_is_exactly_the_identity():
    zero = np.zeros((4, 3), "float32")
    np.testing.assert_array_equal(to_numpy(stain.shift_stain(WIDE, zero, zero)), WIDE)
    jitter = layers.StainJitter(0.0)
    np.testing.assert_array_equal(to_numpy(jitter(WIDE, training=True)), WIDE)
    none = layers.augmentation(stain=0.0, dihedral=False)
    np.testing.assert_array_equal(to_numpy(none(WIDE, training=True)), WIDE)


def test_jitter_differs_between_images_and_stays_in_range():
    batch = np.stack([TISSUE[0]] * 16)
    seen = to_numpy(layers.StainJitter(0.2, seed=3)(batch, training=True))
    assert len({one.tobytes() for one in seen}) == 16
    assert seen.min() >= 0
    assert seen.max() <= 255


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="allowed is 0 to below 1"):
        layers.StainJitter(strength)


def tissue_statistics(image):
    """Mean and deviation of OD of the tissue of one image, by NumPy."""
    od = -np.log((image.reshape(-1, 3).astype(float) + 1) / 256)
    tissue = od[od.mean(axis=1) > stain.TISSUE_OD]
    return tissue.mean(axis=0), tissue.std(axis=0)


def test_normalised_images_have_the_target_statistics():
    mean, std = np.float32([0.6, 0.8, 0.5]), np.float32([0.25, 0.3, 0.2])
    for image in to_numpy(stain.normalise_stain(TISSUE, mean, std)):
        own_mean, own_std = tissue_statistics(image)
        np.testing.assert_allclose(own_mean, mean, atol=0.02)
        np.testing.assert_allclose(own_std, std, atol=0.02)


def test_image_with_the_target_statistics_is_left_alone():
    mean, std = np.float32(tissue_statistics(TISSUE[0]))
    seen = to_numpy(stain.normalise_stain(TISSUE[:1], mean, std))
    np.testing.assert_allclose(seen, TISSUE[:1], atol=0.05)


def test_bare_glass_is_no_tissue_and_is_not_blown_up():
    mean, std = np.float32(tissue_statistics(TISSUE[0]))
    half = np.concatenate([TISSUE[:1], np.full((1, 20, 30, 3), 250, np.uint8)], axis=2)
    seen = to_numpy(stain.normalise_stain(half, mean, std))
    np.testing.assert_allclose(seen[:, :, :30], TISSUE[:1], atol=0.05)
    glass = to_numpy(stain.normalise_stain(half[:, :, 30:], mean, std))
    assert np.isfinite(glass).all()
    assert glass.min() >= 0
    assert glass.max() <= 255


def test_layers_survive_saving(tmp_path):
    inputs = keras.Input((6, 9, 3))
    x = layers.StainJitter(0.1, seed=5)(layers.RandomDihedral(seed=4)(inputs))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(WIDE), model.predict_on_batch(WIDE))
    assert again.layers[-2].strength == 0.1
