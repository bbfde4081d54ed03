"""The audit's parts: the negative control, sister slides, permutations and power."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from helpers import cache, data, metrics, phantom, probe, splits
from helpers.studies import leakage


def toy(n_accessions=20, per_accession=6, signal=0.0, signature=3.0, seed=0):
    """An index and features with a look of each accession and, if asked, a sign of the class."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for a in range(n_accessions):
        malignant = a % 2
        look = signature * rng.normal(size=30)
        kind = "DC" if malignant else "F"
        for k in range(per_accession):
            slide = f"{kind}-20-{a}{'AB'[k % 2]}"
            rows.append((f"{slide}-100-{k:03d}", slide, f"20-{a}", kind))
            x.append(look + rng.normal(size=30) + signal * malignant * np.eye(30)[0] * 20)
    index = pd.DataFrame(rows, columns=["image_id", "slide", "accession", "tumor_type"])
    index["tumor_class"] = index["tumor_type"].map({"DC": "malignant", "F": "benign"})
    return index.assign(magnification=100, pixel_sha256=index["image_id"]), np.array(x)


CLEAN = ("accession", "slide", "image")


def test_negative_control_image_split_leaks_and_accession_split_does_not(tmp_path, monkeypatch):
    """A phantom without signal: far above chance by image, chance by accession. Seeds are fixed."""
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    size = [115, 175]
    folder = phantom.make_phantom(
        tmp_path / "phantom", 3, size, seed=0, signal=0.0, signature=1.0, magnifications=[100]
    )
    index, _ = data.build_index(folder)
    x = probe.colour_features(cache.load_images(folder, index, size))
    plan = splits.make_splits(index, protocols=("image", "accession"))
    found = {}
    for name in ("image", "accession"):
        frame, left_out = leakage.cross_predict(x, index, plan, name, "control", 10.0, squares=True)
        assert not left_out
        found[name] = metrics.score(frame, "malignancy", name, name).set_index("metric")
    assert found["image"].loc["accuracy", "ci_low"] > 0.7
    assert found["image"].loc["balanced_accuracy", "ci_low"] > 0.6  # a constant has one half
    for metric in ("auc", "balanced_accuracy"):
        row = found["accession"].loc[metric]
        assert row["ci_low"] < 0.5 < row["ci_high"]


def test_predictions_cover_each_image_once_and_know_nothing_of_the_test_part():
    index, x = toy()
    plan = splits.make_splits(index, protocols=CLEAN)
    frame, left_out = leakage.cross_predict(x, index, plan, "accession", "probe", 0.01)
    assert left_out == []
    assert sorted(frame["image_id"]) == sorted(index["image_id"])
    fold, _, _, test = splits.fold_rows(index, plan, "accession")[0]
    first = plan[plan["fold"] == fold]
    other = {"malignant": "benign", "benign": "malignant"}
    flipped = index.copy()
    flipped.loc[test, "tumor_class"] = flipped.loc[test, "tumor_class"].map(other)
    known, _ = leakage.cross_predict(x, index, first, "accession", "probe", 0.01)
    again, _ = leakage.cross_predict(x, flipped, first, "accession", "probe", 0.01)
    assert (known["p_malignant"] == again["p_malignant"]).all()
    assert (known["tumor_class"] != again["tumor_class"]).all()


def test_a_fold_with_one_class_in_training_is_left_out():
    index, x = toy(n_accessions=4)
    plan = splits.make_splits(index, 2, protocols=("accession",))
    benign = index.loc[index["tumor_class"] == "benign", "image_id"]
    plan.loc[plan["fold"].eq(1) & plan["image_id"].isin(benign), "role"] = "test"
    frame, left_out = leakage.cross_predict(x, index, plan, "accession", "probe", 0.01)
    assert left_out == [1]
    assert set(frame["fold"]) == {2}


def test_sisters_are_found_and_can_be_kept_out():
    index, x = toy()
    plan = splits.make_splits(index, 2, protocols=CLEAN)
    sisters = leakage.sister_slides(index, plan, "slide")
    by_hand = []
    for fold, rows in plan[plan["protocol"] == "slide"].merge(index).groupby("fold"):
        learnt = set(rows.loc[rows["role"] != "test", "accession"])
        test = rows[rows["role"] == "test"]
        by_hand += [
            (fold, i, a in learnt) for i, a in zip(test.image_id, test.accession, strict=True)
        ]
    found = sisters[["fold", "image_id", "sister"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(by_hand)
    known, _ = leakage.cross_predict(x, index, plan, "slide", "m", 0.01)
    kept_out, _ = leakage.cross_predict(x, index, plan, "slide", "m", 0.01, without_sisters=True)
    keys = ["fold", "image_id"]
    known, kept_out = (
        f.merge(sisters, on=[*keys, "slide", "accession"]) for f in (known, kept_out)
    )
    right = [
        ((f["p_malignant"] >= 0.5) == (f["tumor_class"] == "malignant"))[f["sister"]].mean()
        for f in (known, kept_out)
    ]
    assert right[0] > right[1] + 0.2


def test_permutations_tell_signal_from_signature():
    index, x = toy(signature=1.0, signal=1.0)
    plan = splits.make_splits(index, protocols=("accession",))
    auc, null, p_value = leakage.permutation_test(x, index, plan, 199)
    assert auc == 1.0
    assert p_value == 1 / 200
    index, x = toy(signal=0.0)
    auc, null, p_value = leakage.permutation_test(x, index, plan, 199)
    assert p_value > 0.05
    assert len(null) == 199
    assert null.min() >= 0
    assert null.max() <= 1


def test_power_against_the_exact_test_and_its_limits():
    assert leakage.power(70, 0.0) < 0.05
    assert leakage.power(500, 0.14) > 0.99
    assert leakage.power(25, 0.05) < leakage.power(70, 0.05) < leakage.power(500, 0.05)
    assert binomtest(1, 8, 0.5).pvalue == pytest.approx(2 * (1 + 8) / 2**8)
    assert np.isnan(leakage.detectable(10))
    assert leakage.detectable(500) < leakage.detectable(70)
