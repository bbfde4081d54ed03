"""The changes that should not change a diagnosis: right in kind, direction and strength."""

import numpy as np
import pytest
from skimage.color import rgb2hed

from helpers.studies import perturb

RNG = np.random.default_rng(0)
SMOOTH = np.stack([np.add.outer(np.arange(32), np.arange(48)) * s for s in (1, 2, 3)], -1)
IMAGES = np.stack([SMOOTH, SMOOTH[::-1]]).astype("uint8")


@pytest.mark.parametrize("kind", perturb.KINDS)
def test_shape_and_dtype_are_kept_and_the_change_grows(kind):
    changes = []
    for strength in perturb.STRENGTHS[kind][:2]:
        changed = perturb.apply(kind, IMAGES, strength)
        assert changed.shape == IMAGES.shape
        assert changed.dtype == np.uint8
        changes.append(np.abs(changed.astype(int) - IMAGES).mean())
    assert 0 < changes[0] < changes[1]


def test_stain_raises_haematoxylin_and_lowers_eosin():
    tissue = np.full((1, 4, 4, 3), (150, 90, 160), "uint8")
    before, after = (rgb2hed(part[0])[0, 0] for part in (tissue, perturb.stain(tissue, 20)))
    assert after[0] == pytest.approx(1.2 * before[0], rel=0.05)
    assert after[1] == pytest.approx(0.8 * before[1], rel=0.05)


def test_no_stain_change_is_the_identity():
    np.testing.assert_array_equal(perturb.stain(IMAGES, 0), IMAGES)


def test_blur_keeps_a_flat_image_and_spreads_a_point():
    flat = np.full((1, 9, 9, 3), 77, "uint8")
    np.testing.assert_array_equal(perturb.blur(flat, 2.0), flat)
    point = np.zeros((1, 9, 9, 3), "uint8")
    point[0, 4, 4] = 255
    peak = perturb.blur(point, 1.0)[0, 4, 4, 0]
    assert peak == pytest.approx(255 / (2 * np.pi), abs=1.5)  # Gaussian density at its centre


def test_rotation_by_180_is_exact_and_by_90_is_anticlockwise():
    np.testing.assert_array_equal(perturb.rotation(IMAGES, 180), IMAGES[:, ::-1, ::-1])
    square = RNG.integers(0, 256, (1, 8, 8, 3), "uint8")
    turned = perturb.rotation(square, 90)
    np.testing.assert_array_equal(turned[0], np.rot90(square[0]))


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="stain, blur, jpeg, rotation"):
        perturb.apply("noise", IMAGES, 1)


def test_a_sweep_predicts_each_kind_at_each_strength():
    found = perturb.sweep(IMAGES, lambda images: images.mean((1, 2, 3)))
    assert list(found) == [(kind, s) for kind, part in perturb.STRENGTHS.items() for s in part]
    np.testing.assert_allclose(found["rotation", 180], IMAGES.mean((1, 2, 3)))


def test_stability_of_a_model_that_sees_only_the_mean():
    found = perturb.stability(
        IMAGES, lambda images: images.mean((1, 2, 3)) / 255, [1, 2], n_boot=100
    )
    turned = found[found["strength"] == "180"].iloc[0]
    assert turned["value"] == 0
    assert turned["decisions_changed"] == 0
    assert (found["n_groups"] == 2).all()
    stain = found[found["kind"] == "stain"]
    expected = np.abs(perturb.stain(IMAGES, 40).mean((1, 2, 3)) - IMAGES.mean((1, 2, 3))) / 255
    assert stain["value"].iloc[-1] == pytest.approx(expected.mean())
