"""Rules fitted on validation scores, against planted predictions worked by hand."""

import numpy as np
import pandas as pd
import pytest
from test_errors import BOOT, PLAIN, planted

from helpers.studies import rules


def test_a_threshold_is_moved_to_one_half_and_means_keep_their_side():
    p = np.array([0.0, 0.2, 0.3, 1.0])
    moved = rules.with_threshold(p, 0.2)
    np.testing.assert_allclose(moved, [0.375, 0.5, 0.5625, 1])
    assert (moved.mean() >= 0.5) == (p.mean() >= 0.2)
    np.testing.assert_array_equal(rules.with_threshold(p, 0.5), p)


def test_each_fold_is_fitted_on_its_own_validation():
    first = planted({("1", "A"): [0.1], ("2", "DC"): [0.4, 0.8]}, fold=1)
    second = planted({("3", "DC"): [0.3]}, fold=2)
    held = pd.concat([first, second])
    lowest = rules.fit_by_fold(held, "image", lambda p, truth: p[truth].min())
    assert lowest.to_dict() == {1: 0.4, 2: 0.3}
    means = rules.fit_by_fold(held, "accession", lambda p, truth: p[truth].min())
    assert means.to_dict() == pytest.approx({1: 0.6, 2: 0.3})

    def refuses(p, truth):
        raise ValueError("one class only")

    assert rules.fit_by_fold(held, "image", refuses).isna().all()


def test_thresholds_of_validation_decide_the_test_images():
    held = planted({("9", "DC"): [0.2, 0.6]})  # image threshold 0.2, patient threshold 0.4
    chosen = rules.thresholded(PLAIN, held, sensitivity=1.0)
    rows = rules.threshold_metrics(chosen, "07", **BOOT).query("magnification == 'all'")
    value = rows.set_index(["level", "metric"])["value"]
    assert value["image", "sensitivity"] == 1
    assert value["image", "specificity"] == 0.25
    assert value["accession", "sensitivity"] == 1  # patient 3 lies at 0.4
    assert value["accession", "specificity"] == 0.5
    assert not {"auc", "ece", "brier"} & set(rows["metric"])


def test_calibration_finds_the_planted_temperature_and_leaves_the_undetermined_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-logits))
    p = 1 / (1 + np.exp(-3 * logits))  # three times too sure
    scores = {("1", "DC"): p[truth], ("2", "A"): p[~truth]}
    held = pd.concat([planted(scores, fold=1), planted({("3", "DC"): [0.5]}, fold=2)])
    test = pd.concat([planted({("4", "DC"): [0.9]}, fold=1), planted({("5", "DC"): [0.9]}, fold=2)])
    calibrated, temperature = rules.calibrate(test, held)
    assert temperature[1] == pytest.approx(3, rel=0.1)
    assert np.isnan(temperature[2])
    assert calibrated["p_malignant"].iloc[1] == pytest.approx(0.9)
    assert calibrated["p_malignant"].iloc[0] == pytest.approx(1 / (1 + 9 ** (-1 / temperature[1])))
    assert set(calibrated["model"]) == {"m_calibrated"}


def test_separated_validation_leaves_the_temperature_at_one():
    held = planted({("1", "DC"): [0.9, 0.8], ("2", "A"): [0.1, 0.2]})
    calibrated, temperature = rules.calibrate(PLAIN, held)
    assert temperature.isna().all()
    np.testing.assert_allclose(calibrated["p_malignant"], PLAIN["p_malignant"], atol=1e-6)


def test_referral_keeps_the_error_rate_asked_for_on_validation():
    truth = np.array([1, 1, 0, 1, 0])
    p = np.array([0.95, 0.9, 0.2, 0.4, 0.55])  # the two least certain are wrong
    assert rules.least_certainty(p, truth, risk=0.0) == pytest.approx(0.3)
    assert rules.least_certainty(p, truth, risk=0.25) == pytest.approx(0.1)
    assert rules.least_certainty(1 - p, truth, risk=0.1) == np.inf
    held = planted({("8", "DC"): [0.95, 0.9, 0.4], ("9", "A"): [0.2, 0.55]})
    found = rules.referral(PLAIN, held, 0.0, **BOOT)  # decided: 0.9 0.1 0.2 0.9 of 8 images
    assert found["share decided"] == pytest.approx(4 / 8)
    assert found["error among decided"] == pytest.approx(2 / 4)
    assert found["patients with none decided"] == 0
