"""The tables that a whole run leaves: contracts, recomputation, repeatability."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, papermill
from sklearn.metrics import roc_auc_score

from helpers.results import METRIC_COLUMNS, PREDICTION_COLUMNS

NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
TYPES = ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"]
INDEX = ["image_id", "path", "tumor_class", "tumor_type", "slide", "accession", "magnification",
         "sequence", "width_px", "height_px", "pixel_sha256", "duplicate_of"]  # fmt: skip


def read(path):
    return pd.read_csv(path, keep_default_na=False, dtype={"images": str})  # 7e1 is no number here


@pytest.fixture(scope="module")
def metrics(smoke_run):
    frame = read(smoke_run.results / "metrics.csv")
    numbers = ["value", "ci_low", "ci_high"]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame.astype({"magnification": str}).drop(columns="images")


@pytest.fixture(scope="module")
def predictions(smoke_run):
    """All predictions, with the notebook that made them."""
    files = sorted((smoke_run.results / "predictions").glob("*.parquet"))
    return pd.concat([pd.read_parquet(f).assign(notebook=f.stem) for f in files])


def test_index_has_its_columns_and_a_row_an_image(smoke_run):
    index = read(smoke_run.results / "index.csv")
    assert list(index.columns[: len(INDEX)]) == INDEX
    assert len(index) == 82 * 4  # one image a slide and magnification
    assert index["image_id"].is_unique
    assert index["slide"].nunique() == 82
    assert index["accession"].nunique() == 70


def test_splits_cover_four_protocols_and_keep_accessions_apart(smoke_run):
    splits = read(smoke_run.results / "splits.csv")
    index = read(smoke_run.results / "index.csv").set_index("image_id")
    assert list(splits.columns) == ["image_id", "protocol", "fold", "role", "images"]
    assert set(splits["protocol"]) == {"accession", "official", "slide", "image"}
    assert set(splits["role"]) == {"train", "val", "test"}
    mine = splits[splits["protocol"] == "accession"]
    mine = mine.assign(accession=index.loc[mine["image_id"], "accession"].to_numpy())
    assert mine.groupby(["fold", "accession"])["role"].agg(set).map(len).max() == 1
    assert (mine[mine["role"] == "test"].groupby("image_id").size() == 1).all()


def test_predictions_keep_their_contract(smoke_run, predictions):
    assert set(PREDICTION_COLUMNS) <= set(predictions.columns)
    assert predictions["p_malignant"].between(0, 1).all()
    types = predictions[predictions["task"] == "tumor_type"]
    p = types[[f"p_{name}" for name in TYPES]].to_numpy()
    assert len(types)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-4)
    assert np.allclose(p[:, 4:].sum(axis=1), types["p_malignant"], atol=1e-4)


def test_no_model_saw_the_images_that_it_is_scored_on(smoke_run, predictions):
    splits = read(smoke_run.results / "splits.csv").set_index(["protocol", "fold", "image_id"])
    mine = predictions[predictions["protocol"].isin(["accession", "official", "slide", "image"])]
    keys = pd.MultiIndex.from_frame(mine[["protocol", "fold", "image_id"]].astype({"fold": int}))
    assert (splits.loc[keys, "role"] == "test").all()


def test_metrics_keep_their_contract(metrics):
    assert list(metrics.columns) == METRIC_COLUMNS
    assert set(metrics["task"]) == {"malignancy", "tumor_type"}
    assert set(metrics["level"]) <= {"image", "slide", "accession"}
    assert set(metrics["magnification"]) <= {"40", "100", "200", "400", "all"}
    keys = ["notebook", "model", "task", "protocol", "magnification", "level", "metric"]
    assert not metrics.duplicated(keys).any()
    fractions = metrics[~metrics["metric"].str.startswith("calibration_")]
    assert fractions["value"].between(-1e-9, 1 + 1e-9).all()  # sums of many fractions
    inside = metrics.dropna(subset=["ci_low"])
    assert (inside["ci_low"] <= inside["ci_high"]).all()
    assert len(inside) > 0.5 * len(metrics)
    leaky = metrics["protocol"].isin(["official", "slide", "image"])
    assert (metrics.loc[leaky, "leaky"] == "leaky").all()


def group(frame, level):
    """One row a group: its class and the mean of its probabilities."""
    keys = {"image": ["image_id"], "slide": ["slide"], "accession": ["accession"]}[level]
    parts = frame.assign(right=(frame["p_malignant"] >= 0.5) == frame["malignant"])
    return parts.groupby([*keys, "malignant"], as_index=False)[["p_malignant", "right"]].mean()


def by_hand(frame, level):
    """Scores of one fold and seed, from the words of the design page alone: dict."""
    rows = group(frame, level)
    y, p = rows["malignant"].to_numpy(), rows["p_malignant"].to_numpy().round(12)  # ties are ties
    said = p >= 0.5
    found = {"accuracy": (said == y).mean(), "brier": ((p - y) ** 2).mean()}
    if level != "image":
        found["recognition_rate"] = rows["right"].mean()
    if 0 < y.mean() < 1:
        found |= {"sensitivity": said[y].mean(), "specificity": (~said[~y]).mean()}
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
        found["auc"] = roc_auc_score(y, p)
    return found


@pytest.mark.parametrize("protocol", ["accession", "official"])
def test_metrics_can_be_recomputed_from_the_predictions(predictions, metrics, protocol):
    chosen = (predictions["task"] == "malignancy") & (predictions["protocol"] == protocol)
    mine = predictions[chosen].assign(malignant=lambda f: f["tumor_class"] == "malignant")
    compared = 0
    pool = [] if protocol == "accession" else ["fold"]  # hold-outs are scored fold by fold
    for (notebook, model), frame in mine.groupby(["notebook", "model"]):
        for level in ("image", "slide", "accession"):
            runs = [part for _, part in frame.groupby(["seed", *pool])]
            hand = pd.DataFrame([by_hand(run, level) for run in runs]).mean()
            rows = metrics[
                (metrics[["notebook", "model", "task", "protocol", "magnification", "level"]]
                 == [notebook, model, "malignancy", protocol, "all", level]).all(axis=1)
            ]  # fmt: skip
            for row in rows[rows["metric"].isin(hand.index)].itertuples():
                assert row.value == pytest.approx(hand[row.metric], rel=0, abs=1e-9), row
                compared += 1
    assert compared >= 30


def test_every_table_carries_the_fingerprint_of_the_images(smoke_run):
    images = json.loads((smoke_run.results / "data.json").read_text())["images"]
    assert re.fullmatch("[0-9a-f]{12}", images)
    for path in smoke_run.results.rglob("[!.]*.*"):
        if path.suffix == ".json":
            found = {json.loads(path.read_text())["images"]}
        elif path.suffix == ".npz":
            found = {str(np.load(path)["images"])}
        else:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else read(path)
            found = set(table["images"].astype(str))
        assert found <= {images}, path


def test_summaries_and_run_json_are_complete(smoke_run):
    record = json.loads((smoke_run.folder / "run.json").read_text())
    assert list(record["notebooks"]) == NAMES
    assert record["profile"] == "smoke"
    assert record["data"]["kind"] == "phantom"
    assert str(ROOT) not in json.dumps(record)
    for name in NAMES:
        summary = json.loads((smoke_run.results / f"summaries/{name}.json").read_text())
        assert summary["question"].endswith("?")
        assert any(letter.isdigit() for letter in summary["finding"])
        entry = record["notebooks"][name]
        assert entry["stale"] == ""
        assert entry["backend"].startswith("TensorFlow ")
        assert entry["keras"]
        assert {"requirements.lock", "helpers/splits.py", "data/folds.csv"} < set(entry["key"])
        assert entry["results"]
        assert (smoke_run.folder / "executed" / f"{name}.ipynb").exists()


def test_the_template_runs_alone_with_papermill(smoke_run, tmp_path):
    results = Path(shutil.copytree(smoke_run.results, tmp_path / "results"))
    done = papermill("template", results, tmp_path / "out.ipynb", "-p", "N_BOOT", "50")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (results / "summaries/template.json").exists()
    assert "template" in set(read(results / "metrics.csv")["notebook"])


def test_a_training_run_again_with_papermill_gives_the_same_metrics(
    smoke_run, tmp_path, monkeypatch
):
    name = "03_baseline_cnn"
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))  # nothing is taken over
    results = Path(shutil.copytree(smoke_run.results, tmp_path / "results"))
    for file in (f"summaries/{name}.json", f"predictions/{name}.parquet"):
        (results / file).unlink()
    profile = f"notebooks/params/smoke/{name}.yaml"
    done = papermill(name, results, tmp_path / "out.ipynb", "-f", profile)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (results / f"summaries/{name}.json").exists()
    first, again = (
        (folder / "metrics.csv").read_bytes() for folder in (smoke_run.results, results)
    )
    same = first == again  # a diff of these tables would take minutes
    assert same, f"{smoke_run.results} and {results} differ"


def test_a_notebook_without_its_inputs_says_what_to_run(tmp_path):
    done = papermill("template", tmp_path / "empty", tmp_path / "out.ipynb")
    assert done.returncode != 0
    assert "run 01_eda first" in done.stderr


def test_papermill_with_a_parameter_that_a_notebook_lacks_is_refused(smoke_run, tmp_path):
    done = papermill(
        "05_magnification", smoke_run.results, tmp_path / "out.ipynb", "-p", "SEEDD", "1"
    )
    assert done.returncode != 0
    assert "SEEDD" in done.stderr
    assert "MIN_ACCESSIONS" in done.stderr  # what it has
