"""The tables of notebooks 02 and 03, on small hand-made rows."""

import matplotlib.pyplot as plt
import pandas as pd

from helpers.studies import audit, baseline, history, literature


def test_parts_are_counted_by_class_in_accessions_and_images():
    index = pd.DataFrame({
        "accession": ["a", "a", "b", "c", "c"],
        "tumor_class": ["benign", "benign", "malignant", "malignant", "malignant"],
    })  # fmt: skip
    rows = baseline.part_counts(index, [("image", 1, [0, 1, 2], [], [3, 4])])
    assert rows["split"].tolist() == ["image (leaky)"]
    assert rows["train benign"].tolist() == ["1 (2)"]
    assert rows["train malignant"].tolist() == ["1 (1)"]
    assert rows["val benign"].tolist() == ["0 (0)"]
    assert rows["test malignant"].tolist() == ["1 (2)"]


def test_scores_are_shown_in_the_order_of_the_models_with_their_intervals():
    columns = ["model", "protocol", "magnification", "level", "metric", "value", "ci_low",
               "ci_high"]  # fmt: skip
    nan = float("nan")
    scores = pd.DataFrame(
        [("baseline_cnn", "accession", "all", "image", "auc", 0.9, 0.8, 0.95),
         ("majority", "accession", "all", "image", "auc", 0.5, nan, nan),
         ("majority", "accession", "40", "image", "auc", 0.1, nan, nan)],
        columns=columns,
    )  # fmt: skip
    overall = baseline.overall_rows(scores)
    assert overall["model"].tolist() == ["majority", "baseline_cnn"]
    assert overall["text"].tolist() == ["0.500", "0.900 (0.800 to 0.950)"]


def test_overlap_is_named_by_split():
    shared = {"image": {"slide": 3, "accession": 2, "pixel_sha256": 0}}
    plan = pd.DataFrame({"protocol": ["image"] * 3, "fold": [1, 1, 2]})
    line = audit.overlap_table(shared, plan).iloc[0]
    assert line.tolist() == ["image (leaky)", 2, 3, 2, 0]


def test_one_number_a_paper_pooled_or_the_mean_over_magnifications():
    papers = pd.DataFrame([["80", "", "90", "", ""], ["80", "80", "80", "80", "99"]],
                          columns=["40X", "100X", "200X", "400X", "pooled"])  # fmt: skip
    assert literature.percent_of(papers).tolist() == [85.0, 99.0]


def test_a_single_epoch_has_a_single_tick():
    rows = pd.DataFrame({"protocol": ["image"], "fold": [1], "seed": [0], "epoch": [1],
                         "loss": [0.5], "accuracy": [0.7]})  # fmt: skip
    fig = history.learning_curves(rows)
    ticks = [tick for tick in fig.axes[0].get_xticks() if 0.5 <= tick <= 1.5]
    plt.close(fig)
    assert ticks == [1]
