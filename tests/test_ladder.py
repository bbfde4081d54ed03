"""Notebook 04's ladder: pairs of rungs, refitting, losses by hand, selection on validation only."""

import numpy as np
import pandas as pd
import pytest

from helpers import probe
from helpers.studies import ladder


def predictions(model, scores, fold=1, protocol="accession"):
    """One image a patient: scores is {(accession, tumor_class): P(malignant)}."""
    rows = [(f"{a}-{n}", a, c, p) for n, ((a, c), p) in enumerate(scores.items())]
    frame = pd.DataFrame(rows, columns=["image_id", "accession", "tumor_class", "p_malignant"])
    frame["tumor_type"] = np.where(frame["tumor_class"].eq("benign"), "A", "DC")
    about = {"slide": frame["accession"], "magnification": 100, "task": "malignancy"}
    return frame.assign(**about, protocol=protocol, fold=fold, seed=0, model=model)


def test_a_rung_is_compared_with_the_one_that_it_changes():
    pairs = ladder.steps(ladder.RUNGS)
    assert pairs == [
        ("probe_large", "probe"),
        ("probe_views", "probe_large"),
        ("stain_normalised", "probe_large"),
        ("fine_tuned", "probe_large"),
        ("stain_augmented", "fine_tuned"),
        ("balanced", "stain_augmented"),
        ("ensemble", "balanced"),
    ]
    assert ladder.steps(["probe"]) == []


@pytest.mark.parametrize("rungs", [[], ["fine_tuned"], ["probe", "probe_huge"]])
def test_a_ladder_without_a_foot_or_with_an_unknown_rung_is_refused(rungs):
    with pytest.raises(ValueError, match="'probe', then any of probe_large"):
        ladder.steps(rungs)


def test_recipes_change_one_thing():
    recipes = ladder.probe_recipes(ladder.RUNGS, [2, 3], [4, 6], ["identity", "flip"])
    assert recipes["probe_large"] == {"size": [4, 6], "views": ["identity"]}
    assert recipes["probe_views"] == {"size": [4, 6], "views": ["identity", "flip"]}
    without = ladder.probe_recipes(["probe", "probe_views"], [2, 3], [4, 6], ["flip"])
    assert without["probe_views"] == {"size": [2, 3], "views": ["flip"]}


def test_patient_loss_by_hand():
    """Benign patient a has images 0.2 and 0.4; malignant b 0.9 and c 0.5 weigh as much as a."""
    frame = predictions(
        "m", {("a", "benign"): 0.2, ("b", "malignant"): 0.9, ("c", "malignant"): 0.5}
    )
    frame = pd.concat([frame, frame[:1].assign(p_malignant=0.4)])
    expected = (-np.log(0.7) + (-np.log(0.9) - np.log(0.5)) / 2) / 2
    assert ladder.patient_loss(frame) == pytest.approx(expected)


def test_patient_loss_is_bounded_and_undefined_for_nothing():
    frame = predictions("m", {("a", "benign"): 1.0, ("b", "malignant"): 1.0})
    assert ladder.patient_loss(frame) == pytest.approx((-np.log(0.01) - np.log(0.99)) / 2)
    assert np.isnan(ladder.patient_loss(frame[:0]))


def test_selection_sees_the_validation_patients_of_its_own_fold_only():
    """Fold 2 speaks for "bad", and more clearly; fold 1 must not hear it."""
    scores = {
        1: {"good": (0.3, 0.7), "bad": (0.5, 0.5)},
        2: {"good": (0.9, 0.1), "bad": (0.1, 0.9)},
    }
    checked = {1: [("a", "benign"), ("b", "malignant")], 2: [("c", "benign"), ("d", "malignant")]}
    rows = [
        predictions(model, dict(zip(checked[fold], p, strict=True)), fold)
        for fold, of_models in scores.items()
        for model, p in of_models.items()
    ]
    val = pd.concat(rows)
    test = val.assign(image_id="other " + val["image_id"])
    known, tested, best = ladder.select(val, test)
    assert best.set_index("fold")["model"].to_dict() == {1: "good", 2: "bad"}
    assert tested.loc[tested["model"].eq("selected"), "p_malignant"].tolist() == [
        0.3,
        0.7,
        0.1,
        0.9,
    ]
    assert len(known) == len(tested) == len(val) + 4


def test_the_baseline_is_cut_to_images_and_folds_that_are_tested():
    scores = {("a", "benign"): 0.1, ("b", "malignant"): 0.9}
    baseline = pd.concat([predictions("cnn", scores, fold) for fold in (1, 2)])
    test = predictions("probe", {("a", "benign"): 0.1})
    kept = ladder.on_same_images(baseline, test)
    assert kept[["accession", "fold"]].to_numpy().tolist() == [["a", 1]]


def test_steps_are_told_apart_by_their_interval():
    row = {"rung": "Views", "against": "Probe", "metric": "auc", "difference": 0.1, "p_value": 0.01}
    clear, unclear = {"ci_low": 0.02, "ci_high": 0.2}, {"ci_low": -0.02, "ci_high": 0.2}
    other = row | clear | {"metric": "balanced_accuracy"}
    sentences, n = ladder.tell_steps(pd.DataFrame([row | clear, other, row | unclear]))
    assert n == 1
    start = "Views against Probe: AUC +0.10 "
    assert sentences == [
        f"{start}(+0.02 to +0.20, p = 0.010): distinguishable.",
        f"{start}(-0.02 to +0.20, p = 0.010): these patients cannot tell them apart.",
    ]


def test_auc_of_patients_by_hand_and_undefined_with_one_class():
    scores = {("a", "benign"): 0.1, ("b", "benign"): 0.8, ("c", "malignant"): 0.5}
    frame = predictions("m", scores)
    assert ladder.patient_auc(frame, "accession", 20, 0)["value"] == pytest.approx(0.5)
    assert np.isnan(ladder.patient_auc(frame[:2], "accession", 20, 0)["value"])


def test_blend_is_the_mean_over_members_and_seeds():
    one = predictions("m", {("a", "benign"): 0.2})
    frame = pd.concat(
        [one, one.assign(seed=1, p_malignant=0.4), one.assign(model="n", p_malignant=0.9)]
    )
    assert ladder.blend(frame, ["m", "n"], 0)["p_malignant"].tolist() == pytest.approx([0.5])
    assert ladder.blend(frame, ["m"], 0)["p_malignant"].tolist() == pytest.approx([0.3])


def test_validation_is_predicted_by_the_fit_without_it():
    rng = np.random.default_rng(0)
    accession = np.repeat(np.arange(30), 4)
    y = accession % 2
    x = rng.normal(size=(120, 10)) + y[:, None]
    fold = ("accession", 1, np.arange(60), np.arange(60, 90), np.arange(90, 120))
    p_val, p_test, last = ladder.probe_fold(x, y, accession, fold, refit=True, seed=0)
    first = probe.fit_probe(x[:60], y[:60], accession[:60])
    both = probe.fit_probe(x[:90], y[:90], accession[:90])
    np.testing.assert_array_equal(p_val, probe.predict(first, x[60:90])[:, 1])
    np.testing.assert_array_equal(p_test, probe.predict(both, x[90:])[:, 1])
    np.testing.assert_array_equal(last.coef, both.coef)
    _, p_plain, _ = ladder.probe_fold(x, y, accession, fold, refit=False, seed=0)
    np.testing.assert_array_equal(p_plain, probe.predict(first, x[90:])[:, 1])
