"""The hand-over between notebooks: fixed columns, atomic, bound to the images."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import data, results


@pytest.fixture
def run(tmp_path):
    return a_run(tmp_path, "03_baseline_cnn")


def a_run(folder, notebook, images="0123456789ab"):
    """A run as data.open_run returns it; data.json says what images the folder is about."""
    index = pd.DataFrame({name: ["x", "y", "z"] for name in results.IMAGE_FACTS})
    run = data.Run(folder, notebook, folder, index, "sample", "Three images", images)
    if not (folder / "data.json").exists():
        results.write_json({"images": images}, folder / "data.json")
    return run


def metric_rows(value):
    row = dict.fromkeys(results.METRIC_COLUMNS[1:-1], "x")
    row |= {"magnification": "all", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
    return pd.DataFrame([row | {"n_images": 4, "n_groups": 2}])


def predicted(run, p):
    fold = SimpleNamespace(protocol="accession", number=2)
    return results.predictions(run.index, [2, 0], p, fold=fold, model="probe", seed=1)


def test_metrics_of_one_notebook_are_replaced_and_others_kept(tmp_path):
    for notebook, value in (("04_b", 0.5), ("03_a", 0.6), ("04_b", 0.7)):
        results.save_metrics(a_run(tmp_path, notebook), metric_rows(value))
    table = results.read_table(tmp_path, "metrics.csv")
    assert table.columns.tolist() == results.METRIC_COLUMNS
    assert table["notebook"].tolist() == ["03_a", "04_b"]
    assert table["value"].tolist() == [0.6, 0.7]
    assert table["leaky"].tolist() == ["", ""]


def test_magnifications_of_metrics_are_text_and_missing_intervals_are_numbers(run):
    rows = metric_rows(0.5).assign(magnification=40, ci_low=np.nan, ci_high=np.nan, leaky="leaky")
    results.save_metrics(run, rows)
    (row,) = results.read_table(run, "metrics.csv").to_dict("records")
    assert (row["magnification"], row["leaky"]) == ("40", "leaky")
    assert np.isnan(row["ci_low"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_undefined_metric_is_refused(run, value):
    with pytest.raises(ValueError, match="finite"):
        results.save_metrics(run, metric_rows(value))
    assert not (run.results / "metrics.csv").exists()


def test_missing_column_is_named(run):
    with pytest.raises(ValueError, match="metrics.csv lacks the columns level"):
        results.save_metrics(run, metric_rows(0.5).drop(columns="level"))


def test_predictions_repeat_the_facts_of_the_rows(run):
    frame = predicted(run, np.float32([0.25, 0.75]))
    assert frame.columns.tolist() == results.PREDICTION_COLUMNS
    assert frame["image_id"].tolist() == ["z", "x"]
    assert frame["p_malignant"].tolist() == [0.25, 0.75]
    assert set(frame["task"]) == {"malignancy"}
    assert frame[["protocol", "fold", "seed", "model"]].iloc[0].tolist() == [
        "accession", 2, 1, "probe"
    ]  # fmt: skip


def test_predictions_of_types_add_up_to_malignancy(run):
    assert [f"p_{kind}" for kind in data.TUMOR_TYPES] == results.P_TYPES
    p = np.array([[0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], [1, 0, 0, 0, 0, 0, 0, 0]])
    frame = predicted(run, p)
    assert frame.columns.tolist() == results.PREDICTION_COLUMNS + results.P_TYPES
    assert frame["p_malignant"].tolist() == pytest.approx([0.6, 0])
    assert np.array_equal(frame[results.P_TYPES], p)
    assert set(frame["task"]) == {"tumor_type"}
    with pytest.raises(ValueError, match="shape"):
        predicted(run, p[:1])


@pytest.mark.parametrize("part", ["test", "val"])
def test_predictions_are_written_by_part_and_checked(run, part):
    frame = predicted(run, [0.25, 0.75])
    results.save_predictions(run, frame, part)
    name = {"test": "predictions", "val": "validation"}[part]
    read = results.read_table(run.results, f"{name}/03_baseline_cnn.parquet")
    pd.testing.assert_frame_equal(read, frame)
    with pytest.raises(ValueError, match="p_malignant"):
        results.save_predictions(run, frame.assign(p_malignant=1.2), part)


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("splits.csv", "02_patient_split"),
        ("predictions/04_transfer_learning.parquet", "04_transfer_learning"),
        ("models/04_heads.npz", "04_transfer_learning"),
        ("data.json", "01_eda"),
    ],
)
def test_a_missing_table_names_the_notebook_to_run(tmp_path, name, writer):
    with pytest.raises(FileNotFoundError, match=f"run {writer} first"):
        results.read_table(tmp_path, name)


def write_all(run):
    """Write one of each kind of file as a notebook does; return their names and how to read."""
    results.save_table(run, "splits.csv", pd.DataFrame({"a": [1]}))
    results.save_predictions(run, predicted(run, [0.25, 0.75]))
    results.save_metrics(run, metric_rows(0.5))
    results.save_arrays(run, "models/03_weights.npz", w=np.arange(3))
    results.save_summary(run, "Why?", "Because.")
    return {
        "splits.csv": results.read_table,
        "predictions/03_baseline_cnn.parquet": results.read_table,
        "metrics.csv": results.read_table,
        "models/03_weights.npz": results.read_arrays,
        "summaries/03_baseline_cnn.json": results.read_json,
    }


def test_every_file_is_bound_to_the_images_it_was_computed_from(run, tmp_path):
    files = write_all(run)
    for name, read in files.items():
        for where in (run, run.results):
            assert "images" not in getattr(read(where, name), "columns", [])
    other = run._replace(images="ffffffffffff")
    for name, read in files.items():
        writer = "02_patient_split" if name == "splits.csv" else "03_baseline_cnn"
        with pytest.raises(ValueError, match=f"{name} was computed on other images: run {writer}"):
            read(other, name)
    results.write_json({"images": other.images}, tmp_path / "data.json")
    for name, read in files.items():
        with pytest.raises(ValueError, match="was computed on other images"):
            read(tmp_path, name)
    assert set(results.of_other_images(tmp_path, other.images)) == set(files)
    assert set(results.of_other_images(tmp_path, run.images)) == {"data.json"}


def test_a_file_without_a_fingerprint_is_not_read(run):
    results.write_json({"finding": "?"}, run.results / "summaries" / "03_baseline_cnn.json")
    (run.results / "splits.csv").write_text("a\n1\n")
    np.savez(run.results / "03_x.npz", w=np.zeros(2))
    for name in ("summaries/03_baseline_cnn.json", "splits.csv", "03_x.npz"):
        with pytest.raises(ValueError, match=rf"{name} was computed on other images: run 0"):
            results.read_table(run, name)


def test_a_results_folder_of_an_older_version_is_not_read(tmp_path):
    (tmp_path / "data.json").write_text('{"fingerprint": "0123456789ab"}')
    (tmp_path / "index.csv").write_text("image_id\nx\n")
    with pytest.raises(ValueError, match="run 01_eda again"):
        results.read_table(tmp_path, "index.csv")
    with pytest.raises(ValueError, match="run 01_eda again"):
        data.open_run(tmp_path, "02_patient_split")


def test_metrics_of_other_images_give_way_and_are_never_read(tmp_path):
    results.save_metrics(a_run(tmp_path, "04_b", "ffffffffffff"), metric_rows(0.5))
    results.write_json({"images": "0123456789ab"}, tmp_path / "data.json")
    with pytest.raises(
        ValueError, match=r"metrics.csv was computed on other images: run 04_b again"
    ):
        results.read_table(tmp_path, "metrics.csv")
    results.save_metrics(a_run(tmp_path, "03_a"), metric_rows(0.6))
    assert results.read_table(tmp_path, "metrics.csv")["notebook"].tolist() == ["03_a"]


def test_files_that_no_notebook_wrote_do_not_matter(tmp_path):
    (tmp_path / "notes.json").write_text("[1, 2")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder.csv").mkdir()
    assert results.of_other_images(tmp_path, "0123456789ab") == {}
    assert results.of_other_images(tmp_path / "none", "0123456789ab") == {}


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = results.write_json({"images": 1}, tmp_path / "x.json")

    def fail(file):
        file.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        results.write_atomic(path, fail)
    assert json.loads(path.read_text()) == {"images": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.filterwarnings("error")
def test_floats_survive_csv_exactly(run):
    rng = np.random.default_rng(0)
    numbers = rng.random(5000) * 10.0 ** rng.integers(-300, 300, 5000)
    frame = pd.DataFrame({"value": numbers, "ci_low": numbers, "seconds": numbers[::-1]})
    frame.loc[0, "ci_low"] = np.nan
    results.save_table(run, "x.csv", frame)
    pd.testing.assert_frame_equal(results.read_table(run, "x.csv"), frame, check_exact=True)


def test_text_survives_csv(run):
    frame = pd.DataFrame({"a": ["NA", "", "14-22549"], "b": ["1", "", "x"], "n": [1, 2, 3]})
    frame["duplicate_of"] = ""
    results.save_table(run, "x.csv", frame)
    pd.testing.assert_frame_equal(results.read_table(run, "x.csv"), frame)


def test_a_summary_is_plain_json(run):
    headline = {"label": "AUC", "value": np.float32(0.5), "ci_low": np.nan, "ci_high": np.nan}
    results.save_summary(run, "Why?", "Because.", headline)
    path = run.results / "summaries" / f"{run.notebook}.json"
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["headline"] == {"label": "AUC", "value": 0.5, "ci_low": None, "ci_high": None}
    assert content["images"] == run.images
    assert path == run.results / "summaries" / "03_baseline_cnn.json"


def test_helpers_import_no_backend():
    sources = [path.read_text() for path in (results.ROOT / "helpers").glob("*.py")]
    found = re.findall(
        r"^(?:import|from) (tensorflow|jax|torch|runner|phantom)", "\n".join(sources), re.M
    )
    assert found == []
