"""Reliability, calibration error and temperature, on planted probabilities."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

from helpers import calibration

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0.02, 0.98, 20000)
Y = (RNG.random(20000) < TRUE).astype(int)


def test_reliability_agrees_with_scikit_learn():
    share, mean = calibration_curve(Y, TRUE, n_bins=10)
    table = calibration.reliability(TRUE, Y)
    assert table["share"].to_numpy() == pytest.approx(share)
    assert table["mean_p"].to_numpy() == pytest.approx(mean)
    assert table["n"].sum() == len(Y)
    assert (table["low"] <= table["mean_p"]).all()
    assert (table["mean_p"] <= table["high"]).all()


def test_a_calibrated_model_lies_within_its_intervals_and_a_distorted_one_does_not():
    accession = np.arange(20000) % 200
    honest = calibration.reliability(TRUE, Y, accession, n_boot=300)
    assert honest["share"].between(honest["ci_low"], honest["ci_high"]).all()
    assert (honest["mean_p"].between(honest["ci_low"], honest["ci_high"])).mean() > 0.7
    sure = calibration.reliability(expit(3 * logit(TRUE)), Y, accession, n_boot=300)
    assert sure["mean_p"].between(sure["ci_low"], sure["ci_high"]).mean() < 0.4
    assert calibration.expected_calibration_error(TRUE, Y) < 0.02
    assert calibration.expected_calibration_error(expit(3 * logit(TRUE)), Y) > 0.1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_planted_temperature_is_found(temperature):
    p = calibration.apply_temperature(TRUE, 1 / temperature)
    found = calibration.fit_temperature(p, Y)
    assert found == pytest.approx(temperature, rel=0.05)
    error = calibration.expected_calibration_error(calibration.apply_temperature(p, found), Y)
    assert error < 0.02


def test_a_temperature_needs_both_classes():
    with pytest.raises(ValueError, match="both classes"):
        calibration.fit_temperature([0.2, 0.8], [1, 1])


@pytest.mark.parametrize(("p", "y"), [([], []), ([0.5], [1, 0]), ([1.5], [1])])
def test_bad_arrays(p, y):
    with pytest.raises(ValueError, match="p "):
        calibration.reliability(p, y)
