"""Notebook 04's tables and sentences, by hand."""

import numpy as np
import pandas as pd
import pytest
from test_rungs import predictions

from helpers.studies import choices, ladder


def test_the_baseline_is_cut_to_images_and_folds_that_are_tested():
    scores = {("a", "benign"): 0.1, ("b", "malignant"): 0.9}
    baseline = pd.concat([predictions("cnn", scores, fold) for fold in (1, 2)])
    test = predictions("probe", {("a", "benign"): 0.1})
    kept = ladder.on_same_images(baseline, test)
    assert kept[["accession", "fold"]].to_numpy().tolist() == [["a", 1]]


def test_steps_are_told_apart_by_their_adjusted_p_value():
    row = {"rung": "Views", "against": "Probe", "metric": "auc", "difference": 0.1}
    row |= {"ci_low": 0.02, "ci_high": 0.2, "p_value": 0.01}
    clear, unclear = row | {"p_holm": 0.03}, row | {"p_holm": 0.06}
    other = clear | {"metric": "balanced_accuracy"}
    sentences, n = ladder.tell_steps(pd.DataFrame([clear, other, unclear]))
    assert n == 1
    start = "Views against Probe: AUC +0.10 (+0.02 to +0.20, adjusted p = "
    assert sentences == [
        f"{start}0.030): distinguishable.",
        f"{start}0.060): these patients cannot tell them apart.",
    ]


def test_differences_are_adjusted_for_the_number_of_steps():
    rng = np.random.default_rng(0)
    patients = [(f"p{n}", ("benign", "malignant")[n % 2]) for n in range(30)]
    shifts = {"low": 0.0, "middle": 0.6, "high": 1.2}
    frames = [
        predictions(
            m, {(a, c): 0.3 * rng.random() + s * (c == "malignant") / 3 for a, c in patients}
        )
        for m, s in shifts.items()
    ]
    pairs = [("middle", "low"), ("high", "middle")]
    found = ladder.differences(pd.concat(frames), pairs, "accession", 200, 0)
    assert found["metric"].tolist() == ["auc", "auc", "balanced_accuracy", "balanced_accuracy"]
    auc = found[found["metric"].eq("auc")]
    smallest = auc["p_value"].min()
    assert auc.loc[auc["p_value"].idxmin(), "p_holm"] == pytest.approx(2 * smallest)
    assert (found["p_holm"] >= found["p_value"]).all()


def test_auc_of_patients_by_hand_and_undefined_with_one_class():
    scores = {("a", "benign"): 0.1, ("b", "benign"): 0.8, ("c", "malignant"): 0.5}
    frame = predictions("m", scores)
    assert ladder.patient_auc(frame, "accession", 20, 0)["value"] == pytest.approx(0.5)
    assert np.isnan(ladder.patient_auc(frame[:2], "accession", 20, 0)["value"])


def test_validation_auc_is_the_mean_over_folds():
    """Fold 1 ranks its two patients rightly, fold 2 wrongly, fold 3 has one class only."""
    val = pd.concat([
        predictions("m", {("a", "benign"): 0.1, ("b", "malignant"): 0.9}, 1),
        predictions("m", {("a", "benign"): 0.9, ("b", "malignant"): 0.1}, 2),
        predictions("m", {("b", "malignant"): 0.9}, 3),
    ])  # fmt: skip
    assert ladder.known_auc(val) == pytest.approx(0.5)
    assert np.isnan(ladder.known_auc(val[val["fold"].eq(3)]))


def test_rules_are_compared_and_chosen_for_each_fold():
    """Patient a has images 0.4 and 0.6: the mean says 0.5, the majority 0.5, the top 0.6."""
    val = pd.concat([
        predictions("m", {("a", "benign"): 0.4, ("b", "malignant"): 0.9}),
        predictions("m", {("a", "benign"): 0.6}).assign(image_id="other"),
    ])  # fmt: skip
    pool = ladder.by_rule([val, val])
    found = ladder.compare_rules(pool).set_index("rule")
    assert found.loc["mean", "validation loss"] == pytest.approx(
        -(np.log(0.5) + np.log(0.9)) / 2, abs=1e-9
    )
    assert found.loc["top", "test loss"] == pytest.approx(-(np.log(0.4) + np.log(0.9)) / 2)
    best = choices.choose(pool, ["top", "mean"])
    assert best["model"].tolist() == ["mean"]
    assert ladder.tell_counts(best["model"].value_counts()) == "mean in 1 fold."


def test_scores_of_seeds_are_averaged_not_their_predictions():
    sure = predictions("m", {("a", "benign"): 0.1})
    frame = pd.concat([sure, sure.assign(seed=1, p_malignant=0.9)])
    expected = -(np.log(0.9) + np.log(0.1)) / 2
    assert ladder.over_seeds(frame, choices.patient_loss) == pytest.approx(expected)
    assert np.isnan(ladder.over_seeds(frame[:0], choices.patient_loss))


def test_candidates_stand_with_speed_and_scores():
    good = predictions("a", {("a", "benign"): 0.1, ("b", "malignant"): 0.9})
    bad = predictions("b", {("a", "benign"): 0.9, ("b", "malignant"): 0.1})
    both = pd.concat([good, bad])
    cost = ladder.cost_table([both, both], ["a", "b"], [10.0, 20.0], "accession", 20, 0)
    assert cost["value"].tolist() == [1.0, 0.0]
    assert cost["images per second"].tolist() == [10.0, 20.0]
    assert cost["validation loss"].is_monotonic_increasing


def test_the_spread_over_seeds_is_told_for_models_with_several():
    good = predictions("m", {("a", "benign"): 0.1, ("b", "malignant"): 0.9})
    bad = predictions("m", {("a", "benign"): 0.9, ("b", "malignant"): 0.1}).assign(seed=1)
    said = ladder.tell_spread(pd.concat([good, bad]), ["m", "n"], "accession")
    assert said == "AUC of patients over seeds: m 0.00 to 1.00."
    assert ladder.tell_spread(good, ["m"], "accession") == "One seed was trained."
