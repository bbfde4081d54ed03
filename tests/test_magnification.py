"""Results at several magnifications: counts, paired tests, what is presentable."""

import numpy as np
import pandas as pd

from helpers.studies import magnification


def planted() -> pd.DataFrame:
    """Ten patients with two images at 40X and one at 100X; right at 40X, inverted at 100X."""
    rows = []
    for k in range(10):
        malignant = k % 2 == 1
        for zoom, sequence in ((40, 1), (40, 2), (100, 1)):
            right = (0.6 if sequence == 1 else 1.0) if malignant else (0.4 if sequence == 1 else 0)
            p = right if zoom == 40 else 1 - right
            rows.append({
                "image_id": f"{k}-{zoom}-{sequence}", "slide": f"s{k}",
                "accession": f"a{k}", "magnification": zoom,
                "tumor_class": "malignant" if malignant else "benign",
                "tumor_type": "DC" if malignant else "F", "task": "malignancy",
                "protocol": "accession", "fold": 1 + k % 3, "seed": 0,
                "model": f"probe_{zoom}x", "p_malignant": p,
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_patient_rows_average_the_images():
    rows = magnification.patient_rows(planted(), "probe_40x", 40).set_index("accession")
    assert len(rows) == 10
    np.testing.assert_allclose(rows.p_malignant[["a0", "a1"]], [0.2, 0.8])


def test_compare_patients_pairs_different_images():
    found = magnification.compare_patients(
        planted(), ("probe_40x", 40), ("probe_100x", 100), n_boot=200
    )
    assert found["difference"] == 1.0
    assert found["n_groups"] == 10
    assert found["p_value"] < 0.05
    same = magnification.compare_patients(
        planted(), ("probe_40x", 40), ("probe_40x", "all"), n_boot=200
    )
    assert same["difference"] == 0.0
    assert same["p_value"] == 1.0


def test_compare_all_leaves_out_what_was_not_scored():
    one, two = ("probe_40x", "40"), ("probe_100x", "100")
    wanted = [("40X minus 100X", one, two), ("gone", one, ("probe_200x", "200"))]
    found = magnification.compare_all(planted(), wanted, {one, two}, n_boot=200)
    assert found["pair"].tolist() == ["40X minus 100X"]
    assert found["value"].tolist() == [1.0]
    assert found["p"].tolist() == found["p_value"].tolist()
    empty = magnification.compare_all(planted(), wanted, set(), n_boot=200)
    assert list(empty.columns) == list(found.columns)


def test_presentable_keeps_what_has_patients_of_both_classes():
    rows = planted()
    fused = rows.assign(model="fusion_mean")
    few = rows[rows["accession"].isin(["a0", "a1", "a3"])].assign(model="probe_200x")
    predictions = pd.concat([rows, fused, few])
    metrics = pd.DataFrame(
        [("probe_40x", 40, "image"), ("probe_40x", "all", "accession"), ("probe_200x", 40, "image"),
         ("fusion_mean", "40", "accession"), ("fusion_mean", "all", "image"),
         ("fusion_mean", "all", "slide")],
        columns=["model", "magnification", "level"],
    ).assign(protocol="accession")  # fmt: skip
    kept = magnification.presentable(metrics, predictions, least=2)
    assert kept[["model", "magnification", "level"]].to_numpy().tolist() == [
        ["probe_40x", "40", "image"],
        ["probe_40x", "all", "accession"],
        ["fusion_mean", "all", "slide"],
    ]


def test_crossing_puts_trained_in_rows_and_tested_in_columns():
    scores = pd.DataFrame(
        [("probe_all", "40", 0.9, 5), ("probe_100x", "40", 0.7, 5), ("probe_40x", "100", 0.6, 7),
         ("probe_40x", "all", 0.1, 9), ("fusion_mean", "all", 0.1, 9)],
        columns=["model", "magnification", "value", "n_groups"],
    ).assign(ci_low=0.0, ci_high=1.0)  # fmt: skip
    value = magnification.crossing(scores)["value"]
    assert value.index.tolist() == ["40X", "100X", "all"]
    assert value.columns.tolist() == ["40X\nn = 5", "100X\nn = 7"]
    np.testing.assert_array_equal(value, [[np.nan, 0.6], [0.7, np.nan], [0.9, np.nan]])


def test_a_magnification_needs_patients_of_both_classes():
    index = pd.DataFrame(
        [("a", "benign", 40), ("a", "benign", 40), ("b", "malignant", 40), ("b", "malignant", 400)],
        columns=["accession", "tumor_class", "magnification"],
    )
    counts = magnification.patient_counts(index, least=1).set_index("magnification")
    assert counts["studied"].to_dict() == {40: "yes", 100: "no", 200: "no", 400: "no"}
    assert counts.loc[40, ["benign patients", "malignant patients", "images"]].tolist() == [1, 1, 3]
    assert counts.loc[400, "benign patients"] == 0


SCORES = pd.DataFrame(
    [("probe_100x", "100", 0.7), ("probe_40x", "40", 0.9), ("probe_40x", "100", 0.6),
     ("fusion_mean", "all", 0.3), ("probe_all", "all", 0.8)],
    columns=["model", "magnification", "value"],
).assign(ci_low=0.25, ci_high=1.0)  # fmt: skip


def test_own_scores_are_those_at_the_magnification_of_training():
    said = magnification.own_scores(SCORES)
    assert said == "40X 0.90 (0.25 to 1.00); 100X 0.70 (0.25 to 1.00)"
    assert magnification.own_scores(SCORES.head(0)) == ""


def test_headline_is_the_pooled_models_else_the_first():
    found = magnification.headline(SCORES, "accession")
    assert (found["value"], found["ci_low"]) == (0.8, 0.25)
    assert magnification.headline(SCORES[:4], "accession")["value"] == 0.3
    assert magnification.headline(SCORES[:3], "accession") is None


def test_tell_counts_what_differs_from_zero():
    family = pd.DataFrame({"family": "F", "value": [-0.2, 0.1], "p": [0.01, np.nan]})
    text = magnification.tell(family)
    assert text.startswith("F: 1 of 2 differences")
    assert "-0.20 to +0.10" in text


def test_own_rates_stand_above_the_published_ones():
    metrics = SCORES.assign(protocol="official", level="image", metric="accuracy")
    table = magnification.beside_published(metrics)
    assert table["method"].str.startswith("This run").sum() == 4
    assert table["method"].str.startswith("This run").iloc[:4].all()
    ours = table.fillna("")[table["level"].eq("image") & table["method"].str.startswith("This run")]
    assert ours["40X"].tolist() == ["90.0 (25.0 to 100.0)", ""]
    assert ours["pooled"].tolist() == ["", "80.0 (25.0 to 100.0)"]
