"""Error analysis on planted predictions whose answers are worked by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.studies import errors

BOOT = {"n_boot": 200, "seed": 0}


def planted(scores: dict, **columns) -> pd.DataFrame:
    """Predictions from {(accession, type): scores of its images}; benign types are A and F."""
    rows = [
        {
            "image_id": f"{accession}-{kind}-{i}", "slide": f"{kind}-{accession}",
            "accession": accession, "magnification": 40 if i % 2 else 100, "tumor_type": kind,
            "tumor_class": "benign" if kind in ("A", "F") else "malignant", "p_malignant": p,
        }
        for (accession, kind), part in scores.items()
        for i, p in enumerate(part)
    ]  # fmt: skip
    given = {"task": "malignancy", "protocol": "accession", "fold": 1, "seed": 0, "model": "m"}
    return pd.DataFrame(rows).assign(**given | columns)


PLAIN = planted({("1", "A"): [0.9, 0.7], ("2", "F"): [0.1, 0.3], ("3", "DC"): [0.2, 0.4, 0.6],
                 ("4", "LC"): [0.9]})  # fmt: skip


def test_the_model_asked_for_is_taken_and_others_are_named():
    both = pd.concat([PLAIN, PLAIN.assign(model="n", protocol="image")])
    assert set(errors.of_model(both, "m")["model"]) == {"m"}
    with pytest.raises(ValueError, match="'n' has no accession predictions; there are: m"):
        errors.of_model(both, "n")


def test_images_are_averaged_over_seeds_and_marked_wrong_at_one_half():
    other = PLAIN.assign(seed=1, fold=2, p_malignant=1 - PLAIN["p_malignant"])
    frame = errors.per_image(pd.concat([PLAIN, other]))
    assert len(frame) == len(PLAIN)
    np.testing.assert_allclose(frame["p_malignant"], 0.5)
    assert frame["wrong"].tolist() == frame["tumor_class"].eq("benign").tolist()
    assert set(frame["fold"]) == {1}


def test_patients_are_ranked_by_error():
    patients = errors.per_group(errors.per_image(PLAIN))
    assert patients["accession"].tolist() == ["1", "3", "2", "4"]
    np.testing.assert_allclose(patients["error"], [0.8, 0.6, 0.2, 0.1])
    np.testing.assert_allclose(patients["wrong_images"], [1, 2 / 3, 0, 0])
    assert patients["wrong"].tolist() == [True, True, False, False]
    assert errors.share_of_errors(errors.per_image(PLAIN), patients.head(1)) == 0.5


def test_a_patient_under_two_types_is_one_patient():
    frame = errors.per_image(planted({("1", "DC"): [0.9], ("1", "LC"): [0.3]}))
    patients = errors.per_group(frame)
    assert patients["tumor_type"].tolist() == ["DC/LC"]
    assert patients["p_malignant"].tolist() == [0.6]


def test_sister_slides_exclude_the_slide_itself():
    frame = errors.per_image(
        planted({("1", "A"): [0.9, 0.9], ("1", "F"): [0.9, 0.1], ("2", "DC"): [1]})
    )
    slides = errors.sister_slides(frame).set_index("slide")["sister_slides_wrong"]
    assert slides["A-1"] == 0.5
    assert slides["F-1"] == 1
    assert np.isnan(slides["DC-2"])


def test_decisions_by_type_are_counts():
    found = errors.decisions_by_type(errors.per_image(PLAIN), ["A", "F", "DC", "LC"])
    np.testing.assert_array_equal(found, [[0, 2], [2, 0], [2, 1], [0, 1]])


def test_error_rates_leave_out_slices_of_one_patient():
    rates, alone = errors.error_rates(
        errors.per_image(PLAIN), ["tumor_class", "magnification"], **BOOT
    )
    rates = rates.set_index(["tumor_class", "magnification"])["value"]
    assert rates["benign", 100] == 0.5
    assert rates["malignant", 100] == pytest.approx(1 / 3)
    assert alone == ["malignant 40"]


def test_draw_takes_patients_in_turn_and_both_classes():
    scores = {(str(i), "A" if i < 3 else "DC"): [0.5] * 10 for i in range(12)}
    frame = errors.per_image(planted(scores))
    drawn = errors.draw(frame, 12, seed=0)
    assert drawn["tumor_class"].value_counts().to_dict() == {"benign": 6, "malignant": 6}
    assert drawn["accession"].value_counts().loc[["0", "1", "2"]].tolist() == [2, 2, 2]
    assert drawn[drawn["truth"] == 1]["accession"].nunique() == 6


def test_clearest_and_worst_images():
    frame = errors.per_image(PLAIN)
    assert errors.clearest(frame, wrong=True, n=5)["p_malignant"].tolist() == [0.9, 0.2]
    assert errors.clearest(frame, wrong=False, n=1)["p_malignant"].tolist() == [0.1]
    patients = errors.per_group(frame)
    worst = errors.worst_images(frame, patients.head(2), n=2)
    assert worst["p_malignant"].tolist() == [0.9, 0.7, 0.2, 0.4]
    assert errors.titles(worst)[2] == "3 (DC), 100X\np = 0.20, wrong"
