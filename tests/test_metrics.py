"""Metrics against hand-worked values, scikit-learn, and planted models with known scores."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from helpers import bootstrap, metrics
from helpers.metrics import P_TYPES, TUMOR_TYPES
from helpers.results import METRIC_COLUMNS


def frame(p, y, accession=None, slide=None, fold=1, seed=0, protocol="accession", model="m"):
    """Predictions of malignancy with one image a value."""
    n = len(p)
    accession = np.arange(n).astype(str) if accession is None else np.asarray(accession).astype(str)
    kind = np.where(np.asarray(y) == 1, "DC", "F")
    return pd.DataFrame(
        {
            "image_id": [f"image {i}" for i in range(n)],
            "slide": accession if slide is None else np.asarray(slide).astype(str),
            "accession": accession,
            "magnification": 100,
            "tumor_class": np.where(np.asarray(y) == 1, "malignant", "benign"),
            "tumor_type": kind,
            "task": "malignancy",
            "protocol": protocol,
            "fold": fold,
            "seed": seed,
            "model": model,
            "p_malignant": np.asarray(p, float),
        }
    )


def values(predictions, level="image", task="malignancy", protocol="accession", n_boot=50):
    rows = metrics.score(predictions, task, protocol, level, n_boot)
    return rows.set_index("metric")


def random_frame(n=400, n_accessions=30, seed=0):
    rng = np.random.default_rng(seed)
    accession = rng.integers(n_accessions, size=n)
    y = (accession % 3 > 0).astype(int)
    return frame(np.round(rng.random(n) * 0.7 + 0.25 * y, 2), y, accession), y


def test_hand_worked():
    found = values(frame([0.9, 0.6, 0.4, 0.3, 0.7], [1, 1, 1, 0, 0]))["value"]
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["balanced_accuracy"] == pytest.approx(7 / 12)
    assert found["auc"] == pytest.approx(4 / 6)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.09 + 0.49) / 5)
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.6 + 0.3 + 0.7) / 5)
    assert "recognition_rate" not in found


def test_against_scikit_learn_with_ties():
    predictions, y = random_frame()
    p = predictions["p_malignant"].to_numpy()
    found = values(predictions)["value"]
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, p >= 0.5))
    expected = sk.balanced_accuracy_score(y, p >= 0.5)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))
    assert found["sensitivity"] == pytest.approx(sk.recall_score(y, p >= 0.5))


def types_frame(seed=0, n=600):
    rng = np.random.default_rng(seed)
    accession = rng.integers(40, size=n)
    kind = np.array(TUMOR_TYPES)[accession % 7]  # PC never occurs
    out = frame(np.zeros(n), np.isin(kind, TUMOR_TYPES[4:]), accession)
    p = rng.dirichlet(np.ones(8), size=n) + 0.2 * (kind[:, None] == np.array(TUMOR_TYPES))
    p /= p.sum(axis=1, keepdims=True)
    out[P_TYPES] = p
    return out.assign(tumor_type=kind, task="tumor_type", p_malignant=p[:, 4:].sum(axis=1))


def test_types_against_scikit_learn():
    predictions = types_frame()
    said = np.array(TUMOR_TYPES)[predictions[P_TYPES].to_numpy().argmax(axis=1)]
    true = predictions["tumor_type"]
    found = values(predictions, task="tumor_type")["value"]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    labels = list(TUMOR_TYPES[:7])
    f1 = sk.f1_score(true, said, labels=labels, average="macro")
    assert found["macro_f1"] == pytest.approx(f1)
    recalls = sk.recall_score(true, said, labels=labels, average=None)
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    for name, recall in zip(labels, recalls, strict=True):
        assert found[f"recall_{name}"] == pytest.approx(recall)
    assert "recall_PC" not in found


def test_an_accession_with_two_types_is_two_groups():
    predictions = types_frame().assign(accession="one")
    rows = values(predictions, "accession", "tumor_type")
    assert (rows["n_groups"] == 7).all()
    assert rows["ci_low"].isna().all()  # one accession cannot be resampled


PLANTED = {
    "perfect": {"accuracy": 1, "auc": 1, "brier": 0, "ece": 0, "sensitivity": 1, "specificity": 1},
    "inverted": {"accuracy": 0, "auc": 0, "brier": 1, "ece": 1, "sensitivity": 0, "specificity": 0},
    "constant": {"accuracy": 0.75, "auc": 0.5, "brier": 0.1875, "ece": 0, "specificity": 0},
    # says 0.95 where three in four are malignant
    "miscalibrated": {"auc": 0.5, "ece": 0.2, "brier": 0.75 * 0.05**2 + 0.25 * 0.95**2},
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("level", ["image", "slide", "accession"])
def test_planted_models_have_their_known_scores(name, level):
    y = np.tile([1, 1, 1, 0], 20)
    p = {
        "perfect": y,
        "inverted": 1 - y,
        "constant": np.full(80, 0.75),
        "miscalibrated": np.full(80, 0.95),
    }[name]
    found = values(frame(p, y, accession=np.arange(80) // 4 * 2 + y), level)["value"]
    if level != "image":  # 20 benign and 20 malignant groups
        assert found["auc"] == pytest.approx(PLANTED[name]["auc"])
        assert found["balanced_accuracy"] == {"perfect": 1, "inverted": 0}.get(name, 0.5)
        return
    for metric, value in PLANTED[name].items():
        assert found[metric] == pytest.approx(value), metric


def test_groups_score_the_mean_of_their_images():
    p, y = [0.9, 0.2, 0.6, 0.1, 0.3, 0.8], [1, 1, 1, 0, 0, 0]
    predictions = frame(p, y, accession=[1, 1, 2, 3, 3, 3], slide=[1, 2, 3, 4, 4, 5])
    slides, cases = (values(predictions, level)["value"] for level in ("slide", "accession"))
    # slides: 0.9+ 0.2- 0.6+ | 0.2- 0.8+; accessions: 0.55, 0.6 | 0.4
    assert slides["accuracy"] == pytest.approx(3 / 5)
    assert slides["auc"] == pytest.approx((2 + 0.5 + 1) / 6)
    assert slides["recognition_rate"] == pytest.approx((1 + 0 + 1 + 1 + 0) / 5)
    assert cases["accuracy"] == 1.0
    assert cases["recognition_rate"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)


def test_means_of_equal_scores_tie():
    y = np.repeat([1, 0], 21)
    predictions = frame(np.full(42, 0.7), y, accession=np.repeat([1, 2, 3, 4], [3, 18, 7, 14]))
    assert values(predictions, "accession")["value"]["auc"] == 0.5


def test_undefined_metrics_are_left_out():
    found = values(frame([0.9, 0.2], [1, 1]))
    assert not {"auc", "balanced_accuracy", "specificity"} & set(found.index)
    assert found.loc["sensitivity", "value"] == 0.5


def test_a_class_of_one_accession_has_a_value_and_no_interval():
    found = values(frame([0.9, 0.7, 0.2, 0.6], [1, 1, 0, 0], accession=[1, 2, 3, 3]))
    assert np.isnan(found.loc["auc", "ci_low"])
    assert np.isnan(found.loc["specificity", "ci_high"])
    assert not np.isnan(found.loc["sensitivity", "ci_low"])


def test_folds_are_pooled_repeats_and_seeds_averaged():
    p, y = np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, 0, 0])
    pooled = pd.concat([frame(p, y).iloc[:2].assign(fold=1), frame(p, y).iloc[2:].assign(fold=2)])
    assert values(pooled)["value"]["auc"] == pytest.approx(3 / 4)
    again = frame(1 - p, y).assign(fold=[3, 4, 4, 3])
    both = values(pd.concat([again, pooled]))["value"]
    assert both["auc"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    seeds = values(pd.concat([pooled, pooled.assign(seed=1, p_malignant=[1, 1, 0, 0])]))["value"]
    assert seeds["auc"] == pytest.approx((3 / 4 + 1) / 2)


def test_official_folds_are_scored_one_by_one_and_averaged():
    first = frame([0.9, 0.8, 0.1], [1, 1, 0], accession=[1, 2, 3], fold=1)
    second = frame([0.2, 0.3], [1, 0], accession=[1, 3], fold=2)
    one_class = frame([0.4], [1], accession=[2], fold=3)
    found = values(pd.concat([first, second, one_class]), protocol="official")["value"]
    assert found["auc"] == pytest.approx((1 + 0) / 2)
    assert found["accuracy"] == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_interval_agrees_with_a_plain_bootstrap():
    predictions, y = random_frame()
    weights = bootstrap.resamples(30, 300, 5)
    codes = predictions["accession"].map(
        {a: i for i, a in enumerate(sorted(set(predictions["accession"])))}
    )
    p = predictions["p_malignant"].to_numpy()
    plain = []
    for row in weights[1:]:
        w = row[codes]
        plain.append(sk.roc_auc_score(y, p, sample_weight=w))
    expected = np.percentile(plain, [2.5, 97.5])
    found = metrics.score(predictions, "malignancy", "accession", "image", 300, 5).set_index(
        "metric"
    )
    assert found.loc["auc", ["ci_low", "ci_high"]].to_numpy(float) == pytest.approx(expected)


def test_row_order_changes_nothing():
    predictions, _ = random_frame()
    shuffled = predictions.sample(frac=1, random_state=1)
    first, second = (metrics.evaluate(f, "nb", 100) for f in (predictions, shuffled))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_table_has_every_level_magnification_and_the_word():
    predictions, _ = random_frame()
    predictions["magnification"] = np.where(np.arange(len(predictions)) % 2, 40, 400)
    both = pd.concat([predictions, predictions.assign(protocol="image")])
    table = metrics.evaluate(both, "nb", 20)
    assert list(table.columns) == METRIC_COLUMNS
    assert set(table["magnification"]) == {"all", "40", "400"}
    assert set(table["level"]) == {"image", "slide", "accession"}
    assert (table["leaky"] == table["protocol"].map({"image": "leaky", "accession": ""})).all()
    assert np.isfinite(table["value"]).all()


def test_two_thousand_resamples_of_the_whole_database_in_five_seconds():
    rng = np.random.default_rng(0)
    accession = rng.integers(70, size=7909)
    y = (accession > 15).astype(int)
    predictions = frame(rng.random(7909), y, accession)
    start = time.process_time()
    rows = metrics.evaluate(predictions, "nb", 2000)
    assert time.process_time() - start < 5
    assert len(rows) == 2 * (7 + 8 + 8)
