"""Intervals of means, worked by hand."""

import numpy as np

from helpers import bootstrap


def test_mean_interval_resamples_patients():
    groups = ["1"] * 50 + ["2"] * 50
    found = bootstrap.mean_interval([0] * 50 + [1] * 50, groups, n_boot=200)
    assert found["value"] == 0.5
    assert (found["ci_low"], found["ci_high"]) == (0, 1)  # two patients: both, or one of them twice
    assert (found["n_images"], found["n_groups"]) == (100, 2)
    alone = bootstrap.mean_interval([0, 1], ["1", "1"], n_boot=200)
    assert alone["value"] == 0.5
    assert np.isnan(alone["ci_low"])
