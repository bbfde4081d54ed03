"""Tumour types: counts, two levels and confusion, against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.studies import tumor_types


def clusters(types, per_type=6, seed=0):
    """Well separated features of each type, two images an accession."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(8, 20)) * 4
    labels = np.repeat(types, per_type)
    place = [tumor_types.TUMOR_TYPES.index(name) for name in labels]
    accession = np.array([f"{name}{k // 2}" for k, name in enumerate(labels)])
    return centres[place] + rng.normal(size=(len(labels), 20)), labels, accession


@pytest.mark.parametrize("model", [tumor_types.flat, tumor_types.two_level])
def test_separable_types_are_named(model):
    x, labels, accession = clusters(["A", "F", "DC", "PC"])
    x_test, truth, _ = clusters(["A", "F", "DC", "PC"], seed=5)
    p = model(x, labels, accession, x_test, C=0.1)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (np.array(tumor_types.TUMOR_TYPES)[p.argmax(1)] == truth).all()
    absent = [tumor_types.TUMOR_TYPES.index(name) for name in ("PT", "TA", "LC", "MC")]
    assert (p[:, absent] == 0).all()


def test_two_level_keeps_the_upper_probability():
    x, labels, accession = clusters(["F", "DC", "PC"])
    malignant = np.isin(labels, ["DC", "PC"])
    fitted = tumor_types.fit_probe(x, malignant, accession, C=0.1)
    p = tumor_types.two_level(x, labels, accession, x, C=0.1)
    upper = tumor_types.predict(fitted, x)[:, 1]
    np.testing.assert_allclose(tumor_types.malignant_share(p), upper, atol=1e-12)
    np.testing.assert_allclose(p[:, 1], 1 - upper, atol=1e-12)


def planted():
    """Patient a (F): two images called F then DC; b (DC) called DC; c (LC) called A twice."""
    rows = [("a", "F", "F", 0.9), ("a", "F", "DC", 0.6), ("b", "DC", "DC", 1.0),
            ("c", "LC", "A", 0.8), ("c", "LC", "A", 0.8)]  # fmt: skip
    frame = pd.DataFrame(0.0, index=range(5), columns=tumor_types.P_TYPES)
    for number, (_, true, said, p) in enumerate(rows):
        frame.loc[number, f"p_{true}"] = 1 - p
        frame.loc[number, f"p_{said}"] = p if said != true else 1.0
    facts = [(f"i{k}", row[0], row[1]) for k, row in enumerate(rows)]
    return frame.join(pd.DataFrame(facts, columns=["image_id", "accession", "tumor_type"]))


def test_confusion_of_images_and_of_patients():
    images = tumor_types.confusion(tumor_types.called(planted()))
    assert images.sum() == 5
    assert images[1, 1] == 1
    assert images[1, 4] == 1
    assert images[5, 0] == 2
    patients = tumor_types.called(planted(), "accession")
    assert patients["called"].tolist() == ["F", "DC", "A"]


def test_by_patient_counts_images():
    table = tumor_types.by_patient(tumor_types.called(planted())).set_index("accession")
    assert table.loc["a", ["images", "right", "called as"]].tolist() == [2, 1, "1 F, 1 DC"]
    assert table.loc["c", ["images", "right", "called as"]].tolist() == [2, 0, "2 A"]


def test_crossings_by_hand():
    found = tumor_types.crossings(tumor_types.called(planted()))
    assert found.to_dict("records") == [
        {"true": "LC", "called": "A", "kind": "missed cancer", "images": 2, "share": 1.0,
         "accessions": 1},
        {"true": "F", "called": "DC", "kind": "false alarm", "images": 1, "share": 0.5,
         "accessions": 1},
    ]  # fmt: skip


INDEX = pd.DataFrame({
    "tumor_type": ["A", "A", "DC", "DC"], "accession": ["1", "1", "2", "3"],
    "slide": ["1", "1b", "2", "3"], "image_id": list("abcd"),
})  # fmt: skip
FOLDS = [(1, [], [], [0, 2]), (2, [], [], [3])]


def test_types_are_judged_by_their_patients():
    counts = tumor_types.type_counts(INDEX, FOLDS, least=2)
    assert counts.loc["A", ["accessions", "slides", "images", "folds that test it"]].tolist() == [
        1, 2, 2, 1,
    ]  # fmt: skip
    assert counts.index[counts["can be judged"] == "yes"].tolist() == ["DC"]
    text = tumor_types.forewarnings(counts, left_out=3)
    assert "**Adenosis**, patients: 1." in text
    assert "Adenosis has one patient" in text
    assert "Fibroadenoma has one patient" not in text
    assert text.endswith("3 images are filed under two types and left out.")


def test_recalls_are_those_of_types_that_can_be_judged():
    counts = tumor_types.type_counts(INDEX, FOLDS, least=2)
    metrics = pd.DataFrame({"metric": ["accuracy", "recall_A", "recall_DC"], "level": "image"})
    found = tumor_types.recalls(metrics, counts)
    assert found["type"].tolist() == ["ductal carcinoma (n = 2)"]
    assert found["level"].tolist() == ["Images"]


def test_a_metric_is_said_with_its_interval():
    row = {"model": "m", "metric": "auc", "level": "image"}
    rows = pd.DataFrame([row | {"value": 0.5, "ci_low": 0.25, "ci_high": 0.75}])
    assert tumor_types.say(rows, "m", "auc", "image") == "0.50 (0.25 to 0.75)"
    assert tumor_types.say(rows, "m", "auc") == "undefined"


def test_paired_rows_are_named_and_signed():
    rows = pd.DataFrame({
        "image_id": list("abcd"), "slide": list("abcd"), "accession": list("abcd"), "fold": 1,
        "seed": 0, "task": "malignancy", "protocol": "accession", "magnification": 40,
        "tumor_class": ["benign", "malignant"] * 2, "tumor_type": ["A", "DC"] * 2,
    })  # fmt: skip
    right = rows.assign(model="right", p_malignant=[0.1, 0.9] * 2)
    wrong = rows.assign(model="wrong", p_malignant=[0.9, 0.1] * 2)
    found = tumor_types.paired(
        pd.concat([right, wrong]), [("right", "wrong", "auc", "image")], n_boot=100, seed=0
    )
    assert found.loc[0, ["model", "minus", "difference"]].tolist() == ["right", "wrong", 1.0]
