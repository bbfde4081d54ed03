"""The linear probe: scikit-learn's optimum, patients weighted, C chosen on unseen patients."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from helpers import probe


def patients(n=300, d=40, k=2, n_patients=30, seed=0, signal=1.0):
    """Features with a class signal and an offset for every patient."""
    rng = np.random.default_rng(seed)
    accession = rng.integers(0, n_patients, n)
    y = accession % k
    x = rng.normal(size=(n, d)) + rng.normal(size=(n_patients, d))[accession]
    x[:, :k] += signal * np.eye(k)[y]
    return x, y, accession


@pytest.mark.parametrize(("n", "d"), [(300, 40), (60, 200)])
@pytest.mark.parametrize("k", [2, 8])
def test_it_is_the_optimum_of_scikit_learn(n, d, k):
    x, y, accession = patients(n, d, k)
    weights = probe.patient_weights(y, accession)
    z = StandardScaler().fit(x, sample_weight=weights).transform(x)
    judge = LogisticRegression(C=0.01, tol=1e-8, max_iter=5000).fit(z, y, weights)
    got = probe.fit_probe(x, y, accession, C=0.01).predict_proba(x)
    np.testing.assert_allclose(got, judge.predict_proba(z), atol=2e-3)


def test_weights_of_patients_by_hand():
    """Class 0: patient a with 2 images, b with 1; class 1: patient c with 1 image."""
    weights = probe.patient_weights([0, 0, 0, 1], ["a", "a", "b", "c"])
    np.testing.assert_allclose(weights, [0.5, 0.5, 1, 2])
    two_types = probe.patient_weights(["DC", "LC", "LC"], ["a", "a", "a"])
    np.testing.assert_allclose(two_types, [1.5, 0.75, 0.75])


def test_inner_folds_share_no_patient_and_deal_patients_not_images():
    accession = np.repeat(np.arange(21), [40] + [1] * 20)  # the first has two thirds of the images
    y = (accession >= 6).astype(int)
    folds = probe.inner_folds(y, accession, 3, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in folds])), range(60))
    for fit, held in folds:
        assert not set(accession[fit]) & set(accession[held])
        assert len(fit) + len(held) == 60
        for patient_class, n in ((0, 2), (1, 5)):
            assert len(np.unique(accession[held][y[held] == patient_class])) == n


def test_few_patients_give_fewer_folds_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(probe.inner_folds([0, 0, 1, 1], list("abcd"), 5)) == 2
        assert len(probe.inner_folds([0, 0, 0, 1], list("abcd"), 3)) == 3
        assert probe.inner_folds([0, 1], ["a", "b"], 3) == []


def test_c_is_the_one_with_the_least_loss_of_unseen_patients():
    x, y, accession = patients(signal=0.7)
    fitted = probe.fit_probe(x, y, accession, seed=2)
    losses = {}
    for C in probe.C_GRID:
        p = np.full(len(y), np.nan)
        for fit, held in probe.inner_folds(y, accession, seed=2):
            part = probe.fit_probe(x[fit], y[fit], accession[fit], C=C)
            p[held] = part.predict_proba(x[held])[:, 1]
        losses[C] = probe.patient_loss(p, y, accession)
    assert min(losses, key=losses.get) == fitted[-1].C


def test_loss_of_patients_by_hand():
    y, accession = [0, 0, 0, 1], ["a", "a", "b", "c"]
    p = np.array([0.1, 0.5, 0.2, 0.8])  # means: a 0.3, b 0.2, c 0.8
    expected = ((-np.log(0.7) - np.log(0.8)) / 2 - np.log(0.8)) / 2
    assert probe.patient_loss(p, y, accession) == pytest.approx(expected)
    both = np.column_stack([1 - p, p])
    assert probe.patient_loss(both, y, accession) == pytest.approx(expected)
    named = np.array(["DC", "LC"])[y]
    assert probe.patient_loss(both, named, accession) == pytest.approx(expected)
    assert np.isfinite(probe.patient_loss([1.0, 1.0, 1.0, 0.0], y, accession))


def test_views_are_averaged():
    x, y, accession = patients()
    views = np.stack([x - 1, x + 1], axis=1)
    fitted = probe.fit_probe(views, y, accession, C=0.01)
    np.testing.assert_allclose(fitted.predict_proba(views), fitted.predict_proba(x), atol=1e-9)


def test_head_gives_the_logit_of_raw_features():
    x, y, accession = patients()
    fitted = probe.fit_probe(x, y, accession, C=0.01)
    coef, bias = probe.head(fitted)
    np.testing.assert_allclose(x @ coef + bias, fitted.decision_function(x), atol=1e-9)
    with pytest.raises(ValueError, match="two classes, not 8"):
        probe.head(probe.fit_probe(*patients(k=8), C=0.01))


def test_rare_types_and_few_patients_are_no_obstacle():
    x, y, accession = patients(k=8, n_patients=12)
    types = np.array(["A", "DC", "F", "LC", "MC", "PC", "PT", "TA"])[y]
    fitted = probe.fit_probe(x, types, accession, n_inner=3)
    assert fitted.classes_.tolist() == sorted(set(types))
    np.testing.assert_allclose(fitted.predict_proba(x).sum(axis=1), 1)
    single = (np.arange(20) == 3).astype(int)  # one patient in a class
    assert np.isfinite(probe.fit_probe(x[:20], single, np.arange(20)).predict_proba(x)).all()
    alone = probe.fit_probe(x[:2], [0, 1], ["a", "b"])
    assert np.isfinite(alone.predict_proba(x)).all()


def test_one_class_is_refused():
    x, y, accession = patients()
    with pytest.raises(ValueError, match="needs two classes, but all 300 rows are"):
        probe.fit_probe(x, np.zeros_like(y), accession)
