"""Fusion of magnifications against hand-worked values."""

import numpy as np
import pandas as pd
import pytest

from helpers.studies import fusion

COLUMNS = [
    "image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type",
    "task", "protocol", "fold", "seed", "model", "p_malignant",
]  # fmt: skip


def rows(scores: dict, malignant=(), fold=1) -> pd.DataFrame:
    """Build predictions from {accession: {magnification: [log-odds of its images]}}."""
    out = []
    for accession, by_magnification in scores.items():
        tumor_class = "malignant" if accession in malignant else "benign"
        for magnification, values in by_magnification.items():
            for number, value in enumerate(values):
                image_id = f"{accession}-{magnification}-{number}"
                out.append((image_id, accession + "s", accession, magnification, tumor_class, "DC",
                            "malignancy", "accession", fold, 0, f"probe_{magnification}x",
                            1 / (1 + np.exp(-value))))  # fmt: skip
    return pd.DataFrame(out, columns=COLUMNS)


def test_unit_log_odds_is_the_mean_over_images_of_the_matched_model():
    frame = rows({"a": {40: [1.0, 3.0], 100: [-1.0]}})
    foreign = frame.assign(model="probe_400x", p_malignant=0.999)
    table = fusion.unit_log_odds(pd.concat([frame, foreign]))
    assert table.loc[("accession", 1, 0, "a", "benign"), 40] == pytest.approx(2.0)
    assert table.loc[("accession", 1, 0, "a", "benign"), 100] == pytest.approx(-1.0)


def test_missing_magnification_takes_the_mean_of_the_others():
    filled = fusion.fill_missing(np.array([[1.0, np.nan, 3.0], [0.0, 1.0, 2.0]]))
    np.testing.assert_array_equal(filled, [[1, 2, 3], [0, 1, 2]])


def test_class_weights_balance():
    weights = fusion.class_weights(np.array([True, True, True, False]))
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    np.testing.assert_allclose(fusion.class_weights(np.array([True, True])), [1, 1])


def test_log_loss_by_hand():
    # Benign at log-odds 0 costs ln 2; malignant at ln 3 (p = 3/4) costs ln 4/3; equal weights.
    loss = fusion.log_loss(np.array([0.0, np.log(3)]), np.array([False, True]))
    assert loss == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


def test_stack_without_both_classes_is_the_mean():
    theta = fusion.fit_stack(np.array([[5.0, -5.0]]), np.array([True]))
    np.testing.assert_array_equal(theta, [0.5, 0.5, 0.0])


def test_stack_minimises_its_objective_and_prefers_the_informative_column():
    rng = np.random.default_rng(0)
    malignant = np.arange(40) % 4 > 0
    informative = np.where(malignant, 2.0, -2.0) + rng.normal(size=40)
    scores = np.column_stack([informative, 3 * rng.normal(size=40)])
    theta = fusion.fit_stack(scores, malignant)
    assert theta[0] > 0.5 > theta[1]

    def objective(t):
        losses = np.logaddexp(0, np.where(malignant, -1, 1) * (scores @ t[:2] + t[2]))
        return np.sum(fusion.class_weights(malignant) * losses) + 0.5 * np.sum(
            (t - np.array([0.5, 0.5, 0])) ** 2
        )

    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.01:
        assert objective(theta) < objective(theta + step)


def test_best_column_has_least_loss_and_skips_one_class():
    malignant = np.array([True, True, False, False])
    scores = np.array([[1, 3, 9], [1, 3, 9], [-1, -3, np.nan], [-1, -3, np.nan]], float)
    assert fusion.best_column(scores, malignant) == 1
    assert fusion.best_column(scores[:, 2:], malignant) == 0


def test_fuse_writes_the_unit_score_on_each_image():
    test = rows({"a": {40: [2.0, 4.0], 100: [-1.0]}, "b": {100: [2.0]}}, malignant=("a",))
    held = rows({"v": {40: [4.0], 100: [-1.0]}, "w": {40: [-4.0], 100: [1.0]}}, malignant=("v",))
    fused, choices = fusion.fuse(test, held)
    mean = fused[fused.model == "fusion_mean"].set_index("image_id").p_malignant
    assert len(mean) == 4
    np.testing.assert_allclose(fusion.log_odds(mean[["a-40-0", "a-40-1", "a-100-0"]]), 1.0)
    assert fusion.log_odds(mean["b-100-0"]) == pytest.approx(2.0)
    single = fused[fused.model == "best_single"]
    assert choices.best_magnification.tolist() == [40]
    assert set(single.accession) == {"a"}
    np.testing.assert_allclose(fusion.log_odds(single.p_malignant), 3.0)
    assert list(fused.columns) == COLUMNS


def test_fuse_uses_the_validation_of_its_own_fold():
    test = pd.concat([rows({"a": {40: [1.0], 100: [2.0]}}, fold=f) for f in (1, 2)])
    good, bad = {"v": {40: [4.0], 100: [-1.0]}, "w": {40: [-4.0], 100: [1.0]}}, {}
    bad = {key: {40: value[100], 100: value[40]} for key, value in good.items()}
    held = pd.concat([rows(good, ("v",), fold=1), rows(bad, ("v",), fold=2)])
    _, choices = fusion.fuse(test, held)
    assert choices.best_magnification.tolist() == [40, 100]
    assert choices.weight_40x[0] == pytest.approx(choices.weight_100x[1], abs=1e-4)


def test_protocols_are_fused_by_the_unit_that_they_separate():
    test = rows({"a": {40: [2.0], 100: [-1.0]}, "b": {40: [1.0], 100: [2.0]}})
    test["slide"] = "one"  # both patients: under a leaky split the slide is the unit
    held = rows({"v": {40: [4.0], 100: [-1.0]}, "w": {40: [-4.0], 100: [1.0]}}, malignant=("v",))
    both = [pd.concat([part, part.assign(protocol="slide")]) for part in (test, held)]
    fused, choices = fusion.fuse_protocols(*both)
    assert choices["protocol"].tolist() == ["accession", "slide"]
    mean = fused[fused["model"].eq("fusion_mean") & fused["accession"].eq("b")]
    p = mean.groupby("protocol")["p_malignant"].first()
    np.testing.assert_allclose(fusion.log_odds(p["accession"]), 1.5)
    np.testing.assert_allclose(fusion.log_odds(p["slide"]), 1.0)


def test_one_magnification_is_not_fused():
    test = rows({"a": {40: [2.0]}, "b": {40: [1.0]}}, malignant=("a",))
    fused, choices = fusion.fuse_protocols(test, test)
    assert len(fused) == len(choices) == 0
    assert list(fused.columns) == COLUMNS
