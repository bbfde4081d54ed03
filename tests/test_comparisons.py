"""Two models on the same accessions, and p-values adjusted for their number."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from helpers import comparisons


def random_frame(n=400, n_accessions=30, seed=0):
    """Predictions of malignancy by model m with one image a value, and the truth."""
    rng = np.random.default_rng(seed)
    accession = rng.integers(n_accessions, size=n)
    y = (accession % 3 > 0).astype(int)
    predictions = pd.DataFrame({
        "image_id": [f"image {i}" for i in range(n)], "slide": accession.astype(str),
        "accession": accession.astype(str), "magnification": 100,
        "tumor_class": np.where(y == 1, "malignant", "benign"),
        "tumor_type": np.where(y == 1, "DC", "F"), "task": "malignancy",
        "protocol": "accession", "fold": 1, "seed": 0, "model": "m",
        "p_malignant": np.round(rng.random(n) * 0.7 + 0.25 * y, 2),
    })  # fmt: skip
    return predictions, y


def test_compare_pairs_the_same_accessions():
    a, y = random_frame()
    b = a.assign(model="b", p_malignant=1 - a["p_malignant"])
    found = comparisons.compare(pd.concat([a, b]), "m", "b", "auc", "image")
    auc = sk.roc_auc_score(y, a["p_malignant"])
    assert found["difference"] == pytest.approx(2 * auc - 1)
    assert found["n_groups"] == 30
    assert found["ci_low"] > 0
    assert found["p_value"] < 0.01
    same = comparisons.compare(pd.concat([a, a.assign(model="b")]), "m", "b")
    assert same["difference"] == 0
    assert same["p_value"] == 1


def test_compare_asks_which_protocol():
    a, _ = random_frame()
    both = pd.concat([a, a.assign(protocol="image"), a.assign(model="b")])
    with pytest.raises(ValueError, match="name one protocol"):
        comparisons.compare(both, "m", "b")
    strangers = pd.concat([a, a.assign(model="b", image_id="other " + a["image_id"])])
    with pytest.raises(ValueError, match="no image in common"):
        comparisons.compare(strangers, "m", "b")


def test_holm_by_hand():
    adjusted = comparisons.holm([0.04, 0.01, np.nan, 0.03, 0.9])
    np.testing.assert_allclose(adjusted, [0.09, 0.04, np.nan, 0.09, 0.9])


def test_holm_stops_at_one():
    np.testing.assert_allclose(comparisons.holm([0.6, 0.7]), [1.0, 1.0])
