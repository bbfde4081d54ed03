"""Notebook 04's rungs: pairs, cross-fitting, losses, thresholds by hand, choices without test."""

import numpy as np
import pandas as pd
import pytest

from helpers import probe
from helpers.studies import choices, rungs


def predictions(model, scores, fold=1, protocol="accession"):
    """One image a patient: scores is {(accession, tumor_class): P(malignant)}."""
    rows = [(f"{a}-{n}", a, c, p) for n, ((a, c), p) in enumerate(scores.items())]
    frame = pd.DataFrame(rows, columns=["image_id", "accession", "tumor_class", "p_malignant"])
    frame["tumor_type"] = np.where(frame["tumor_class"].eq("benign"), "A", "DC")
    about = {"slide": frame["accession"], "magnification": 100, "task": "malignancy"}
    return frame.assign(**about, protocol=protocol, fold=fold, seed=0, model=model)


def test_a_rung_is_compared_with_the_one_that_it_changes():
    assert rungs.steps(rungs.RUNGS) == [
        ("probe_chosen", "probe"),
        ("probe_views", "probe_chosen"),
        ("probe_crops", "probe_chosen"),
        ("fine_tuned", "probe_chosen"),
        ("stain_augmented", "fine_tuned"),
        ("stain_normalised", "fine_tuned"),
        ("stain_chosen", "fine_tuned"),
        ("balanced", "stain_chosen"),
        ("test_views", "balanced"),
        ("ensemble", "test_views"),
    ]
    assert rungs.steps(["probe"]) == []
    short = ["probe", "probe_views", "fine_tuned", "ensemble"]
    assert rungs.steps(short) == [
        ("probe_views", "probe"),
        ("fine_tuned", "probe"),
        ("ensemble", "fine_tuned"),
    ]


@pytest.mark.parametrize("names", [[], ["fine_tuned"], ["probe", "probe_huge"]])
def test_a_ladder_without_a_foot_or_with_an_unknown_rung_is_refused(names):
    with pytest.raises(ValueError, match="'probe', then any of probe_chosen"):
        rungs.steps(names)


def test_a_rung_without_what_it_changes_is_refused():
    with pytest.raises(ValueError, match="'balanced' changes stain_chosen or fine_tuned"):
        rungs.steps(["probe", "balanced"])


def test_known_patients_are_held_out_once_each():
    accession = np.repeat(np.arange(12), 3)
    y = accession % 2
    rows = np.arange(30)
    parts = rungs.inner_parts(rows, y, accession, 3, 0)
    assert len(parts) == 3
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), rows)
    for rest, held in parts:
        assert not set(accession[rest]) & set(accession[held])
        assert set(y[rest]) == {0, 1}


def test_patients_that_cannot_be_cross_validated_are_named():
    accession = np.array([0, 1, 1])
    with pytest.raises(ValueError, match="2 patients cannot be cross-validated"):
        rungs.inner_parts(np.arange(3), np.array([0, 1, 1]), accession, 2, 0)


def test_cross_fitting_predicts_patients_by_networks_that_have_not_seen_them():
    """A "network" is the rows it was trained on; it says the share of asked rows among them."""
    known, test = np.arange(2, 8), np.array([8, 9])
    parts = [(known[:3], known[3:]), (known[3:], known[:3])]
    asked = []

    def train(rows, stop, epochs):
        asked.append((rows.tolist(), stop.tolist(), epochs))
        losses = [0.5, 0.4, 0.6] if rows[0] == 2 else [0.5, 0.6, 0.3]
        return rows, pd.DataFrame({"epoch": [1, 2, 3], "val_loss": losses})

    def see(rows, wanted):
        return np.isin(wanted, rows)[:, None] + [0, 0.2] + 0.01 * len(rows)

    found = rungs.cross_fit(train, see, parts, known, test)
    assert asked[0] == ([2, 3, 4], [5, 6, 7], None)
    assert asked[2] == (known.tolist(), [], 2)  # best epochs 2 and 3, the mean is rounded to even
    np.testing.assert_allclose(found[""][0], 0.03)  # none of them was seen
    np.testing.assert_allclose(found[""][1], 0.06)
    np.testing.assert_allclose(found[rungs.VIEWS][0], 0.13)
    np.testing.assert_allclose(found[rungs.VIEWS][1], 0.16)
    np.testing.assert_allclose(found[rungs.FOLDS][1], 0.13)


def test_probes_are_validated_on_patients_that_they_have_not_seen():
    """Labels without any signal: scores of patients that were fitted would look good."""
    rng = np.random.default_rng(0)
    accession = np.repeat(np.arange(40), 4)
    y = accession % 2
    x = rng.normal(size=(40, 300))[accession] + 0.1 * rng.normal(size=(160, 300))
    fold = ("accession", 1, np.arange(80), np.arange(80, 120), np.arange(120, 160))
    p_known, p_test, fitted = rungs.probe_fold(x, y, accession, fold, 0)
    known = np.arange(120)
    right = (p_known >= 0.5) == y[known]
    assert right.mean() < 0.7
    assert ((probe.predict(fitted, x[known])[:, 1] >= 0.5) == y[known]).mean() > 0.9
    np.testing.assert_array_equal(p_test, probe.predict(fitted, x[120:])[:, 1])


def test_patient_loss_by_hand():
    """Benign patient a has images 0.2 and 0.4; malignant b 0.9 and c 0.5 weigh as much as a."""
    frame = predictions(
        "m", {("a", "benign"): 0.2, ("b", "malignant"): 0.9, ("c", "malignant"): 0.5}
    )
    frame = pd.concat([frame, frame[:1].assign(p_malignant=0.4)])
    expected = (-np.log(0.7) + (-np.log(0.9) - np.log(0.5)) / 2) / 2
    assert choices.patient_loss(frame) == pytest.approx(expected)


def test_patient_loss_is_bounded_and_undefined_for_nothing():
    frame = predictions("m", {("a", "benign"): 1.0, ("b", "malignant"): 1.0})
    assert choices.patient_loss(frame) == pytest.approx((-np.log(0.01) - np.log(0.99)) / 2)
    assert np.isnan(choices.patient_loss(frame[:0]))


def test_a_choice_sees_the_known_patients_of_its_own_fold_only():
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
    best = choices.choose([val, test], ["good", "bad"])
    assert best.set_index("fold")["model"].to_dict() == {1: "good", 2: "bad"}
    assert choices.by_fold(best, {"good": 3, "bad": 4}) == {
        ("accession", 1): 3,
        ("accession", 2): 4,
    }
    known, tested = choices.follow([val, test], best, "selected")
    assert tested["p_malignant"].tolist() == [0.3, 0.7, 0.1, 0.9]
    assert set(tested["image_id"]) == set(test["image_id"])
    assert set(known["model"]) == set(tested["model"]) == {"selected"}


def test_of_equal_candidates_the_first_is_chosen_and_others_of_the_pool_are_not_asked():
    one = {("a", "benign"): 0.4, ("b", "malignant"): 0.6}
    better = {("a", "benign"): 0.1, ("b", "malignant"): 0.9}
    val = pd.concat([predictions(m, p) for m, p in (("x", one), ("y", one), ("z", better))])
    assert choices.choose([val, val], ["y", "x"])["model"].tolist() == ["y"]


def test_other_predictions_of_the_chosen_model_are_found_by_the_end_of_their_name():
    scores = {("a", "benign"): 0.1}
    table = pd.concat([predictions("m", scores), predictions("m_views", {("a", "benign"): 0.3})])
    best = pd.DataFrame({"protocol": ["accession"], "fold": [1], "model": ["m"]})
    for part in choices.follow([table, table], best, "test_views", rungs.VIEWS):
        assert part[["model", "p_malignant"]].to_numpy().tolist() == [["test_views", 0.3]]


def test_blend_gives_models_the_same_weight_whatever_their_seeds():
    one = predictions("m", {("a", "benign"): 0.2})
    frame = pd.concat(
        [one, one.assign(seed=1, p_malignant=0.4), one.assign(model="n", p_malignant=0.9)]
    )
    both, _ = choices.blend([frame, frame], ["m", "n"], 0)
    assert both["p_malignant"].tolist() == pytest.approx([0.6])
    alone, _ = choices.blend([frame, frame], ["m"], 0)
    assert alone["p_malignant"].tolist() == pytest.approx([0.3])


def test_best_threshold_by_hand():
    truth = [False, False, True, True]
    assert choices.best_threshold([0.1, 0.6, 0.7, 0.9], truth) == pytest.approx(0.65)
    assert choices.best_threshold([0.1, 0.2, 0.7, 0.9], truth) == pytest.approx(0.5)
    assert choices.best_threshold([0.8, 0.9], [True, True]) == 0.5


def test_thresholds_are_found_on_known_patients_and_keep_decisions():
    val = predictions("m", {("a", "benign"): 0.6, ("b", "malignant"): 0.8})
    test = predictions("m", {("c", "benign"): 0.65, ("d", "malignant"): 0.75})
    _, moved = choices.threshold([val, test], "m_threshold")
    assert moved["p_malignant"].ge(0.5).tolist() == [False, True]
    assert set(moved["model"]) == {"m_threshold"}
    assert moved.columns.tolist() == test.columns.tolist()
