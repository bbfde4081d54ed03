"""Class activation maps against worked values, and the checks that doubt them."""

import keras
import numpy as np
import pytest

from helpers.studies import cam

RNG = np.random.default_rng(0)


def test_mean_of_a_map_is_the_logit_of_its_image():
    features = RNG.normal(size=(3, 4, 5, 6))
    coef = RNG.normal(size=(3, 6))
    maps = cam.class_maps(features, coef, np.array([0.0, 1.0, -2.0]))
    logits = (features.mean((1, 2)) * coef).sum(1) + [0, 1, -2]
    assert maps.shape == (3, 4, 5)
    np.testing.assert_allclose(maps.mean((1, 2)), logits)
    np.testing.assert_allclose(cam.probability(maps), 1 / (1 + np.exp(-logits)))


def test_one_head_serves_all_images():
    features = np.zeros((2, 1, 2, 2))
    features[0, 0, 1] = [1, 10]
    maps = cam.class_maps(features, np.array([2.0, 0.5]), 1.0)
    np.testing.assert_allclose(maps, [[[1, 8]], [[1, 1]]])


def test_agreement_is_that_of_ranks():
    first = np.array([[[1, 2], [3, 4]]] * 4, float)
    second = np.array(
        [[[1, 4], [9, 16]], [[4, 3], [2, 1]], [[1, 2], [4, 3]], [[5, 5], [5, 5]]], float
    )
    np.testing.assert_allclose(cam.agreement(first, second), [1, -1, 0.8, np.nan])


def test_pointing_takes_the_strongest_cell():
    mask = np.zeros((4, 8), bool)
    mask[:2, 4:] = True  # the upper right quarter
    mask[2:, :2] = True  # half of the lower left quarter
    maps = np.zeros((3, 2, 2))
    maps[0, 0, 1] = maps[1, 1, 0] = maps[2, 1, 1] = 1
    score, chance = cam.pointing(maps, [mask] * 3)
    np.testing.assert_allclose(score, [1, 0.5, 0])
    np.testing.assert_allclose(chance, 3 / 8)


def test_untrained_maps_differ_and_the_weights_are_put_back():
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, bias_initializer="ones")]
    model = keras.Sequential(layers)
    images = RNG.integers(0, 256, (5, 8, 8, 3), "uint8")
    before, weights = cam.feature_maps(model, images, batch_size=2), model.get_weights()
    after = cam.untrained_maps(model, images, batch_size=2, seed=0)
    assert before.shape == after.shape == (5, 6, 6, 4)
    assert not np.allclose(before, after)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_own_heads_follow_the_fold_or_take_the_next():
    heads = {"coef": {1: np.array([1.0, 0]), 3: np.array([0, 2.0])}, "intercept": {1: 5.0, 3: 6.0}}
    coef, intercept = cam.own_heads(heads, [3, 1, 3])
    np.testing.assert_array_equal(coef, [[0, 2], [1, 0], [0, 2]])
    np.testing.assert_array_equal(intercept, [6, 5, 6])
    coef, intercept = cam.own_heads(heads, [3, 1], step=1)
    np.testing.assert_array_equal(intercept, [5, 6])


def test_sanity_agrees_with_an_equal_head_and_not_with_a_constant_map():
    features = RNG.normal(size=(2, 3, 4, 8))
    coef = RNG.normal(size=8)
    heads = {"coef": {1: coef, 2: 2 * coef}, "intercept": {1: 0.0, 2: 1.0}}
    found = cam.sanity(features, np.ones_like(features), heads, [1, 2], seed=0)
    np.testing.assert_allclose(found["head of another fold"], 1)
    assert np.isnan(found["all weights shuffled"]).all()
    assert (found["head shuffled"] < 0.99).all()
    heads = {"coef": {1: coef}, "intercept": {1: 0.0}}
    assert "head of another fold" not in cam.sanity(features, features, heads, [1, 1], seed=0)


def test_overlay_is_red_for_the_positive_and_blue_for_the_negative_class():
    images = np.full((1, 40, 40, 3), 255, "uint8")
    maps = np.array([[[-2.0, 2.0], [-2.0, 2.0]]])
    shown = cam.overlay(images, maps).astype(int)
    assert shown.shape == images.shape
    assert shown[0, 20, 0, 2] > shown[0, 20, 0, 0] + 50
    assert shown[0, 20, -1, 0] > shown[0, 20, -1, 2] + 50


def test_flat_zero_maps_leave_the_grey_image():
    images = RNG.integers(0, 256, (1, 6, 6, 3), "uint8")
    shown = cam.overlay(images, np.zeros((1, 2, 2)))
    np.testing.assert_allclose(shown[..., 0], images.mean(-1), atol=0.51)


@pytest.mark.parametrize("size", [(2, 2), (3, 5)])
def test_cell_shares_average_to_the_share_of_the_mask(size):
    mask = RNG.random((30, 50)) < 0.3
    shares = cam.cell_shares(mask, *size)
    assert shares.shape == size
    assert shares.mean() == pytest.approx(mask.mean(), abs=1e-6)
