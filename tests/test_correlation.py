"""Rank correlations of errors with measures, planted and against SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from helpers.studies import correlation

BOOT = {"n_boot": 200, "seed": 0}


def test_association_is_spearman():
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=60), np.repeat(np.arange(12), 5)
    y = np.round(x + rng.normal(size=60), 1)  # with ties
    found = correlation.association(x, y, groups, **BOOT)
    assert found["value"] == pytest.approx(spearmanr(x, y).statistic)
    assert found["ci_low"] < found["value"] < found["ci_high"]
    assert np.isnan(correlation.association(np.ones(60), y, groups, **BOOT)["value"])


def test_associations_are_within_the_class_and_say_which_exclude_zero():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"accession": np.repeat(np.arange(24), 4), "error": rng.random(96)})
    malignant = frame["accession"] % 2 == 0
    frame["tumor_class"] = np.where(malignant, "malignant", "benign")
    frame["focus"] = frame["error"] ** 2 + 10 * malignant
    links = correlation.associations(frame, ["focus"], **BOOT)
    np.testing.assert_allclose(links["value"], 1)
    text = correlation.excluding_zero(links)
    assert "excludes 0: 2 of 2 (focus, benign (+1.00); focus, malignant (+1.00))" in text
