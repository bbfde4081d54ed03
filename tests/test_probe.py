"""The linear probe: the same optimum as scikit-learn, patients weighted, folds by accession."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from helpers import probe


def patients(n=300, d=40, k=2, n_accessions=30, seed=0, signal=1.0):
    """Features with a class signal and an offset for every accession."""
    rng = np.random.default_rng(seed)
    accession = rng.integers(0, n_accessions, n)
    y = accession % k
    x = (
        rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d)
        + rng.normal(size=(n_accessions, d))[accession]
    )
    x[:, :k] += signal * np.eye(k)[y]
    return x, y, accession


@pytest.mark.parametrize(("n", "d"), [(300, 40), (60, 200)])
@pytest.mark.parametrize("k", [2, 8])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_same_optimum_as_scikit_learn(n, d, k, C):
    x, y, accession = patients(n, d, k)
    fitted = probe.fit_probe(x, y, accession, C=C, repeats=1, n_inner=2)
    z = (x - fitted.mean) / fitted.scale
    weights = probe.patient_weights(y, accession)
    judge = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(z, y, weights)
    np.testing.assert_allclose(probe.predict(fitted, x), judge.predict_proba(z), atol=1e-3)


def test_weights_of_patients_by_hand():
    """Class 0: accession a with 2 images, b with 1; class 1: accession c with 1 image."""
    weights = probe.patient_weights([0, 0, 0, 1], ["a", "a", "b", "c"])
    np.testing.assert_allclose(weights, [0.5, 0.5, 1, 2])


def test_an_accession_of_two_types_counts_in_both():
    weights = probe.patient_weights(["DC", "LC", "LC"], ["a", "a", "a"])
    np.testing.assert_allclose(weights, [1.5, 0.75, 0.75])


def test_standardisation_has_weighted_mean_zero_and_deviation_one():
    x, y, accession = patients()
    fitted = probe.fit_probe(x, y, accession, C=0.01)
    weights = probe.patient_weights(y, accession)
    z = (x - fitted.mean) / fitted.scale
    np.testing.assert_allclose(np.average(z, axis=0, weights=weights), 0, atol=1e-10)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weights), 1, atol=1e-10)


def test_constant_features_do_no_harm():
    x, y, accession = patients()
    with_constant = np.column_stack([x, np.full(len(x), 7.0)])
    first = probe.predict(probe.fit_probe(x, y, accession, C=0.01), x)
    second = probe.predict(probe.fit_probe(with_constant, y, accession, C=0.01), with_constant)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_inner_folds_are_disjoint_in_accession_and_hold_every_class():
    _, y, accession = patients()
    fold = probe.inner_folds(y, accession, 5, seed=3)
    assert set(fold) == set(range(5))
    for patient in np.unique(accession):
        assert len(set(fold[accession == patient])) == 1
    for number in range(5):
        assert set(y[fold == number]) == {0, 1}


def test_inner_probabilities_are_of_rows_not_seen():
    """Accession offsets without class signal: seen rows are told apart, unseen ones are not."""
    x, y, accession = patients(n=600, d=60, n_accessions=40, signal=0)
    x = x + np.random.default_rng(5).normal(size=(40, 60))[accession] * 5
    fitted = probe.fit_probe(x, y, accession, C=1.0)
    seen = (probe.predict(fitted, x).argmax(1) == y).mean()
    unseen = (fitted.inner.argmax(1) == y).mean()
    assert seen > 0.99
    assert unseen < 0.75


def test_c_with_the_least_inner_loss_is_taken():
    x, y, accession = patients(signal=3)
    fitted = probe.fit_probe(x, y, accession)
    assert min(fitted.inner_scores, key=fitted.inner_scores.get) == fitted.C
    loss = probe.accession_log_loss(fitted.inner, y, accession, fitted.classes)
    assert loss == fitted.inner_scores[fitted.C]


def test_log_loss_of_accessions_by_hand():
    probability = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [np.nan, np.nan]])
    loss = probe.accession_log_loss(
        probability, [0, 0, 1, 1], ["a", "a", "b", "c"], np.array([0, 1])
    )
    assert loss == pytest.approx((-np.log(0.7) - np.log(0.8)) / 2)


def test_views_are_averaged():
    x, y, accession = patients()
    views = np.stack([x - 1, x + 1], axis=1)
    fitted = probe.fit_probe(views, y, accession, C=0.01)
    np.testing.assert_allclose(probe.predict(fitted, views), probe.predict(fitted, x), atol=1e-9)


def test_text_labels_and_logits():
    x, y, accession = patients()
    fitted = probe.fit_probe(x, np.array(["benign", "malignant"])[y], accession, C=0.01)
    assert fitted.classes.tolist() == ["benign", "malignant"]
    score = probe.logits(fitted, x)
    np.testing.assert_allclose(score[:, 0], -score[:, 1], atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-(score[:, 1] - score[:, 0])))
    np.testing.assert_allclose(probe.predict(fitted, x)[:, 1], sigmoid)


def test_one_class_is_refused():
    x, y, accession = patients()
    with pytest.raises(ValueError, match="needs two classes"):
        probe.fit_probe(x, np.zeros_like(y), accession)


def test_a_class_with_one_accession_and_one_row_per_accession():
    x, y, _ = patients(n=20)
    y = (np.arange(20) == 3).astype(int)
    fitted = probe.fit_probe(x, y, np.arange(20))
    assert np.isfinite(probe.predict(fitted, x)).all()


def test_colour_features_by_hand():
    """A flat image has the density of its grey levels and no spread."""
    image = np.empty((1, 4, 5, 3), "uint8")
    image[..., 0], image[..., 1], image[..., 2] = 255, 127, 15
    got = probe.colour_features(image)
    density = -np.log10([1, 128 / 256, 16 / 256])
    np.testing.assert_allclose(got[0, :3], density, atol=1e-6)
    np.testing.assert_allclose(got[0, 6:9], density, atol=1e-6)
    np.testing.assert_allclose(got[0, [3, 4, 5, 9, 10, 11]], 0, atol=1e-6)


def test_colour_features_know_no_places():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 9, 3)).astype("uint8")
    shuffled = image[:, ::-1, ::-1]
    np.testing.assert_allclose(
        probe.colour_features(image), probe.colour_features(shuffled), rtol=1e-5
    )


def test_one_head_gives_the_logit_of_raw_features():
    x, y, accession = patients()
    fitted = probe.fit_probe(x, y, accession, C=0.01)
    coef, bias = probe.one_head(fitted)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-(x @ coef + bias))), probe.predict(fitted, x)[:, 1], atol=1e-9
    )
    x, y, accession = patients(k=8)
    with pytest.raises(ValueError, match="two classes, not 8"):
        probe.one_head(probe.fit_probe(x, y, accession, C=0.01))
