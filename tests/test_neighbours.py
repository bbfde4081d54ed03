"""Nearest neighbours and maps of features, against values worked out by hand."""

import numpy as np
import pytest

from helpers.studies import neighbours

POINTS = np.array([[0.0], [1.0], [3.0], [10.0]], dtype=np.float32)
LABELS = np.array(["x", "y", "x", "y"])


def test_nearest_other_row():
    np.testing.assert_array_equal(neighbours.nearest(POINTS), [1, 0, 1, 2])
    np.testing.assert_array_equal(neighbours.nearest(POINTS, block=1), [1, 0, 1, 2])


def test_excluded_group_is_passed_over():
    patient = np.array(["p", "p", "q", "q"])
    np.testing.assert_array_equal(neighbours.nearest(POINTS, patient), [2, 2, 1, 1])
    np.testing.assert_array_equal(neighbours.nearest(POINTS, np.zeros(4)), [-1, -1, -1, -1])


def test_agreement_and_chance_by_hand():
    agrees, chance = neighbours.agreement(POINTS, LABELS)
    np.testing.assert_array_equal(agrees, [0, 0, 0, 0])
    np.testing.assert_allclose(chance, 1 / 3)
    agrees, chance = neighbours.agreement(POINTS, LABELS, np.array(["p", "p", "q", "q"]))
    np.testing.assert_array_equal(agrees, [1, 0, 0, 1])
    np.testing.assert_allclose(chance, 1 / 2)


def test_agreement_is_undefined_without_a_neighbour():
    agrees, chance = neighbours.agreement(POINTS, LABELS, np.zeros(4))
    assert np.isnan(agrees).all()
    assert np.isnan(chance).all()


def test_standardise_leaves_a_constant_column_at_zero():
    x = neighbours.standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(x, [[-1, 0], [1, 0]])


def test_mean_interval_is_over_accessions():
    value, low, high = neighbours.mean_interval(
        np.array([1.0, 1.0, 0.0, np.nan]), ["a", "a", "b", "b"], n_boot=500
    )
    assert (value, low, high) == (pytest.approx(2 / 3), 0.0, 1.0)
    assert np.isnan(neighbours.mean_interval(np.array([1.0]), ["a"])[1])


def test_known_tells_patients_from_types():
    """Each patient is a tight cluster; of its neighbours by type, none is near."""
    x = np.array([[0.0], [0.1], [5.0], [5.1], [10.0], [10.1]], dtype=np.float32)
    types, patients = np.array(list("FFDDFF")), np.array(list("aabbcc"))
    found = neighbours.known(x, types, patients, n_boot=100).set_index(["question", "drawn"])
    near = found.xs("nearest neighbour", level="drawn")["value"]
    assert near.tolist() == [1.0, 1.0, 0.0]
    assert found.loc[("same patient", "chance"), "value"] == pytest.approx(1 / 5)


def test_the_sentence_holds_shares_and_chances():
    x = np.array([[0.0], [0.1], [5.0], [5.1], [10.0], [10.1]], dtype=np.float32)
    shares = neighbours.known(x, np.array(list("FFDDFF")), np.array(list("aabbcc")), n_boot=100)
    text = neighbours.tell(shares)
    assert "same patient in 100% (chance 20%)" in text
    assert "own patient barred, in 0%" in text


def test_maps_have_two_dimensions_and_keep_far_groups_apart():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 8)) + 20 * (np.arange(40)[:, None] < 20)
    for points in neighbours.two_maps(z).values():
        assert points.shape == (40, 2)
        gap = np.linalg.norm(points[:20].mean(0) - points[20:].mean(0))
        assert gap > points[:20].std(0).max()
