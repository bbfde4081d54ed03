"""Published results with their kind of split, and our numbers in the same columns."""

import pandas as pd
import pytest

from helpers.studies import literature


@pytest.mark.parametrize(
    ("protocol", "disjoint_by", "kind"),
    [
        ("official folds 1-5", "slide folder", "official (leaky)"),
        ("official folds (unconfirmed)", "slide folder", "official (leaky), unconfirmed"),
        ("own 5-fold cross-validation", "slide folder", "slide (leaky)"),
        ("image-level k-fold", "none", "image (leaky)"),
    ],
)
def test_kind_of_split(protocol, disjoint_by, kind):
    assert literature.kind_of_split(protocol, disjoint_by) == kind


def test_no_published_result_separates_accessions():
    rows = literature.published()
    assert len(rows) > 10
    assert rows["split"].str.contains("leaky").all()
    bar = rows[rows["method"].str.contains("Amato") & rows["level"].eq("slide")].iloc[0]
    assert (bar["40X"], bar["pooled"]) == ("85.49", "88.90")


def test_own_row_takes_the_literatures_metric():
    metrics = pd.DataFrame(
        [("a", "official", "40", "slide", "recognition_rate", 0.5, 0.25, 0.75),
         ("a", "official", "40", "slide", "accuracy", 0.9, 0.9, 0.9),
         ("b", "official", "all", "slide", "recognition_rate", 1.0, float("nan"), float("nan"))],
        columns=["model", "protocol", "magnification", "level", "metric", "value", "ci_low",
                 "ci_high"],
    )  # fmt: skip
    line = literature.own_row(metrics, "ours", {"40": "a", "all": "b"}, "official", "slide")
    assert line["40X"] == "50.0 (25.0 to 75.0)"
    assert line["100X"] == ""
    assert line["pooled"] == "100.0"
    assert line["split"] == "official (leaky)"
