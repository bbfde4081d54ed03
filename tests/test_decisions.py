"""Temperature, threshold, referral and net benefit: planted, and worked by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from helpers import decisions

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0.02, 0.98, 20000)
Y = (RNG.random(20000) < TRUE).astype(int)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_the_planted_temperature_is_found(planted):
    p = expit(logit(TRUE) * planted)
    found = decisions.temperature(p, Y)
    assert found == pytest.approx(planted, rel=0.05)
    np.testing.assert_allclose(decisions.apply_temperature(p, found), TRUE, atol=0.02)


@pytest.mark.parametrize(
    ("p", "y", "reason"),
    [
        ([0.2, 0.8], [1, 1], "both classes"),
        ([0.2, 0.7, 0.8], [0, 1, 1], "do not determine"),  # all right: ever surer
        ([0.8, 0.2], [0, 1], "do not determine"),  # all wrong: never sure
    ],
)
def test_a_temperature_that_the_rows_do_not_determine(p, y, reason):
    with pytest.raises(ValueError, match=reason):
        decisions.temperature(p, y)


def test_temperatures_differ_by_row():
    p = np.array([0.0, 0.9, 0.9])
    got = decisions.apply_temperature(p, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(got, [1e-6, 0.9, 0.75], atol=1e-6)


def test_operating_point_is_the_highest_that_keeps_the_sensitivity():
    p, y = np.arange(1, 21) / 20, np.ones(20, int)
    assert decisions.operating_point(p, y, 0.95) == pytest.approx(0.1)
    assert decisions.operating_point(p, y, 1.0) == pytest.approx(0.05)
    assert decisions.operating_point([0.5, 0.5, 0.9], [1, 1, 0]) == 0.5
    with pytest.raises(ValueError, match="malignant"):
        decisions.operating_point([0.5], [0])


def test_a_threshold_is_moved_to_one_half_and_means_keep_their_side():
    p = np.array([0.0, 0.2, 0.3, 1.0])
    moved = decisions.rescale(p, 0.2)
    np.testing.assert_allclose(moved, [0.375, 0.5, 0.5625, 1])
    assert (moved.mean() >= 0.5) == (p.mean() >= 0.2)
    np.testing.assert_array_equal(decisions.rescale(p, np.full(4, 0.5)), p)


def planted(scores, fold):
    """Predictions: scores maps (accession, class) to the probabilities of its images."""
    rows = [
        {"fold": fold, "accession": who, "tumor_class": label, "image_id": f"{who}-{n}", "p": p}
        for (who, label), values in scores.items()
        for n, p in enumerate(values)
    ]
    return pd.DataFrame(rows).rename(columns={"p": "p_malignant"})


def test_each_fold_is_fitted_on_its_own_validation():
    first = planted({("1", "benign"): [0.1], ("2", "malignant"): [0.4, 0.8]}, fold=1)
    second = planted({("3", "malignant"): [0.3]}, fold=2)
    held = pd.concat([first, second])
    lowest = decisions.by_fold(held, "image", lambda p, y: p[y].min())
    assert lowest.to_dict() == {1: 0.4, 2: 0.3}
    means = decisions.by_fold(held, "accession", lambda p, y: p[y].min())
    assert means.to_dict() == pytest.approx({1: 0.6, 2: 0.3})
    temperatures = decisions.by_fold(held, "image", decisions.temperature)
    assert temperatures.isna().to_dict() == {1: False, 2: True}  # one class only


def test_net_benefit_by_hand():
    found = decisions.net_benefit([0.9, 0.6, 0.7, 0.1], [1, 1, 0, 0], [0.5, 0.8])
    assert found["net_benefit"].tolist() == pytest.approx([2 / 4 - 1 / 4, 1 / 4])
    assert found["treat_all"].tolist() == pytest.approx([0.5 - 0.5, 0.5 - 0.5 * 4])
    assert found["threshold"].tolist() == [0.5, 0.8]
    perfect = decisions.net_benefit([1, 1, 0, 0], [1, 1, 0, 0], np.arange(1, 100) / 100)
    assert (perfect["net_benefit"] == 0.5).all()


def test_risk_coverage_of_planted_models():
    y = np.array([1, 0, 1, 0])
    perfect = decisions.risk_coverage([0.9, 0.2, 0.7, 0.4], y)
    assert perfect["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert perfect["certainty"].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert (perfect["risk"] == 0).all()
    assert (decisions.risk_coverage([0.1, 0.8, 0.3, 0.6], y)["risk"] == 1).all()
    tied = decisions.risk_coverage(np.full(4, 0.7), y)
    assert tied[["coverage", "risk"]].to_numpy().tolist() == [[1.0, 0.5]]
    one_wrong = decisions.risk_coverage([0.9, 0.2, 0.4, 0.4], y)
    assert one_wrong["coverage"].tolist() == [0.25, 0.5, 1.0]
    assert one_wrong["risk"].tolist() == pytest.approx([0, 0, 0.25])


@pytest.mark.parametrize(("p", "y"), [([], []), ([0.5], [1, 0]), ([1.5], [1])])
def test_bad_arrays(p, y):
    for function in (decisions.risk_coverage, decisions.operating_point, decisions.temperature):
        with pytest.raises(ValueError, match="p "):
            function(p, y)
