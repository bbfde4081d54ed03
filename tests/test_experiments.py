"""Notebooks 05 and 06 on the smoke run: parts that combine, and scores of types by another hand."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from helpers.results import read_table
from helpers.runner import notebooks
from helpers.studies import rungs

NOTEBOOK = "05_magnification"
TYPES = ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"]
KEYS = ["notebook", "model", "task", "protocol", "magnification", "level", "metric"]
SMALL = {"IMAGE_SIZE": [115, 175], "N_BOOT": 100, "PROTOCOLS": ["accession"], "FOLDS": [1, 2]}


def run_cells(name, **parameters):
    """Run the code cells of a notebook in this process, with other parameters."""
    space = {"__name__": name}
    for cell in notebooks.read(ROOT / "notebooks" / f"{name}.ipynb")["cells"]:
        if cell["cell_type"] == "code":
            exec(notebooks.source(cell), space)
            if "parameters" in cell["metadata"].get("tags", []):
                unknown = set(parameters) - set(space)
                assert not unknown, f"{name} has no parameter {unknown}"
                space.update(parameters)
    return space


@pytest.fixture
def start(smoke_run, tmp_path):
    """Make a results folder that holds what notebooks 01 and 02 wrote, and nothing more."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        for table in ("index.csv", "data.json", "splits.csv"):
            shutil.copy(smoke_run.results / table, folder / table)
        return folder

    return make


def outcome(folder):
    """What a run of 05 leaves: its predictions, validation predictions and metrics."""
    names = (f"predictions/{NOTEBOOK}.parquet", f"validation/{NOTEBOOK}.parquet", "metrics.csv")
    return [read_table(folder, name) for name in names]


def test_a_run_in_parts_combines_to_the_same_tables_as_one_run(start):
    whole, combined = start("whole"), start("combined")
    run_cells(NOTEBOOK, RESULTS=str(whole), **SMALL)
    pieces = [([40], [1, 2]), ([100], [1, 2]), ([200], [1, 2]), ([400], [2]), ([400], [1])]
    folders = []
    for number, (magnifications, folds) in enumerate(pieces):
        folders.append(str(start(f"part{number}")))
        own = {"MAGNIFICATIONS": magnifications, "FOLDS": folds, "POOLED": 100 in magnifications}
        run_cells(NOTEBOOK, **{**SMALL, "RESULTS": folders[-1], **own})
    run_cells(NOTEBOOK, **{**SMALL, "RESULTS": str(combined), "PARTS": folders[::-1]})
    for one, other in zip(outcome(whole), outcome(combined), strict=True):
        assert len(one) > 100
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    models = set(outcome(combined)[0]["model"])
    assert {"probe_40x", "probe_400x", "probe_all", "fusion_stacked", "best_single"} <= models


def test_every_pair_of_magnifications_is_in_the_metrics(smoke_run):
    rows = read_table(smoke_run.results, "metrics.csv").query("notebook == @NOTEBOOK")
    for protocol in ("accession", "official"):
        for level in ("image", "slide", "accession"):
            found = rows[(rows["protocol"] == protocol) & (rows["level"] == level)]
            found = found[found["metric"] == "auc"].astype({"magnification": str})
            cells = set(zip(found["model"], found["magnification"], strict=True))
            singles = [f"probe_{m}" for m in ("40x", "100x", "200x", "400x", "all")]
            assert {(s, m) for s in singles for m in ("40", "100", "200", "400", "all")} <= cells
            fused = {(name, "all") for name in ("fusion_mean", "fusion_stacked", "best_single")}
            assert fused <= cells or level == "image"


def test_fused_mean_can_be_recomputed_from_the_single_models(smoke_run):
    table = read_table(smoke_run.results, f"predictions/{NOTEBOOK}.parquet")
    table = table[table["protocol"] == "accession"]
    own = table[table["model"] == "probe_" + table["magnification"].astype(str) + "x"]
    p = own["p_malignant"].clip(1e-6, 1 - 1e-6)
    means = own.assign(s=np.log(p / (1 - p))).groupby(["accession", "magnification"])["s"].mean()
    hand = 1 / (1 + np.exp(-means.groupby("accession").mean()))
    fused = table[table["model"] == "fusion_mean"].groupby("accession")["p_malignant"]
    assert (fused.max() - fused.min()).max() < 1e-12
    np.testing.assert_allclose(fused.mean()[hand.index], hand, atol=1e-9)


def by_hand(rows):
    """Metrics of one model's type predictions, from scikit-learn."""
    said = np.array(TYPES)[rows[[f"p_{name}" for name in TYPES]].to_numpy().argmax(1)]
    there = sorted(set(rows["tumor_type"]))
    recall = recall_score(rows["tumor_type"], said, labels=there, average=None)
    f1 = f1_score(rows["tumor_type"], said, labels=there, average="macro", zero_division=0)
    counts = confusion_matrix(rows["tumor_type"], said, labels=TYPES)
    found = {"accuracy": np.trace(counts) / counts.sum(), "macro_f1": f1}
    found["balanced_accuracy"] = recall.mean()
    return found | {f"recall_{name}": r for name, r in zip(there, recall, strict=True)}


@pytest.mark.parametrize("level", ["image", "accession"])
def test_scores_of_types_can_be_recomputed(smoke_run, level):
    table = read_table(smoke_run.results, "predictions/06_tumor_types.parquet")
    metrics = read_table(smoke_run.results, "metrics.csv").astype({"magnification": str})
    table = table[table["task"].eq("tumor_type") & table["protocol"].eq("accession")]
    p = [f"p_{name}" for name in TYPES]
    compared = 0
    for model, rows in table.groupby("model"):
        rows = rows.assign(**rows[p].round(12))
        if level == "accession":
            rows = rows.groupby(["accession", "tumor_type"])[p].mean().round(12).reset_index()
        for metric, value in by_hand(rows).items():
            key = ("06_tumor_types", model, "tumor_type", "accession", "all", level, metric)
            told = metrics[(metrics[KEYS] == list(key)).all(axis=1)]
            assert told["value"].item() == pytest.approx(value, abs=1e-9), metric
            compared += 1
    assert compared == 2 * 11


def test_rare_types_are_tested_with_each_patient_left_out(smoke_run):
    table = read_table(smoke_run.results, "predictions/06_tumor_types.parquet")
    alone = table[table["protocol"] == "leave_one_out"]
    assert alone.groupby("tumor_type")["accession"].nunique().to_dict() == {
        "A": 2,
        "LC": 4,
        "PT": 3,
    }
    assert alone.groupby("fold")["accession"].nunique().max() == 1


def climb(start, smoke_run, **parameters):
    """Run 04 with other parameters on what 03 left: its (validation, test) predictions."""
    folder = start("ladder")
    (folder / "predictions").mkdir()
    shutil.copy(smoke_run.results / "predictions/03_baseline_cnn.parquet", folder / "predictions")
    run_cells("04_transfer_learning", RESULTS=str(folder), **parameters)
    return [
        read_table(folder, f"{d}/04_transfer_learning.parquet")
        for d in ("validation", "predictions")
    ]


LITTLE = {"IMAGE_SIZE": [64, 96], "SIZES": [[96, 144]], "EPOCHS": 1, "N_BOOT": 50, "SEEDS": [0, 1],
          "BACKBONES": ["EfficientNetLite0"], "MAGNIFICATIONS": [100]}  # fmt: skip


def test_every_rung_is_climbed_and_tests_each_image_once(start, smoke_run):
    """Crops of native resolution, rival treatments of stain, thresholds and ensembles included."""
    val, test = climb(start, smoke_run, **LITTLE, FOLDS=[1], RUNGS=list(rungs.RUNGS))
    assert set(test["model"]) == {*rungs.RUNGS, "selected", "selected_threshold"}
    keys = ["model", "seed", "fold", "image_id"]
    assert not test.duplicated(keys).any()
    assert len(set(test.groupby("model")["image_id"].nunique())) == 1
    assert test.groupby("model")["seed"].nunique()["balanced"] == 2
    both = val.merge(test, on=["protocol", "fold", "accession"])
    assert not len(both), "a patient is known and tested in the same fold"
    p = test["p_malignant"]
    assert p.between(0, 1).all()
    selected = test[test["model"] == "selected"]
    assert set(selected["seed"]) == {0}, "folds with different seeds are not one pooled score"
    plain, viewed = (
        test[test["model"] == m].set_index(keys[1:]) for m in ("balanced", "test_views")
    )
    moved = (plain["p_malignant"] - viewed["p_malignant"]).abs()
    assert 0 < moved.mean() < 0.2


def test_networks_can_be_tuned_on_images_themselves(start, smoke_run):
    """Without stored maps, as on a GPU: stain is jittered and normalised in the images."""
    names = ["probe", "fine_tuned", "stain_augmented", "stain_normalised", "test_views"]
    _, test = climb(start, smoke_run, **LITTLE | {"SEEDS": [0]}, FOLDS=[1], RUNGS=names,
                    FROZEN_MAPS=False)  # fmt: skip
    p = test.pivot_table(values="p_malignant", index="image_id", columns="model")
    assert p[names].notna().all().all()
    for upper, lower in zip(names[1:], names[:-1], strict=True):
        assert (p[upper] - p[lower]).abs().max() > 1e-4, (upper, lower)
