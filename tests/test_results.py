"""The hand-over between notebooks and the check of their parameters."""

import numpy as np
import pandas as pd
import pytest

from helpers import parameters, results


def metric_rows(notebook: str, value: float) -> pd.DataFrame:
    row = dict.fromkeys(results.METRIC_COLUMNS, "")
    row |= {"notebook": notebook, "model": "probe", "magnification": "all", "value": value}
    row |= {"ci_low": value - 0.1, "ci_high": value + 0.1, "n_images": 4, "n_groups": 2}
    return pd.DataFrame([row])


def test_metrics_of_one_notebook_are_replaced_and_others_kept(tmp_path):
    results.save_metrics(tmp_path, "04_b", metric_rows("04_b", 0.5))
    results.save_metrics(tmp_path, "03_a", metric_rows("03_a", 0.6))
    results.save_metrics(tmp_path, "04_b", metric_rows("04_b", 0.7))
    table = results.read_table(tmp_path, "metrics.csv")
    assert table["notebook"].tolist() == ["03_a", "04_b"]
    assert table["value"].tolist() == [0.6, 0.7]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_undefined_metric_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="finite"):
        results.save_metrics(tmp_path, "03_a", metric_rows("03_a", value))
    assert not (tmp_path / "metrics.csv").exists()


def test_missing_column_is_named(tmp_path):
    with pytest.raises(ValueError, match="lacks the columns level"):
        results.save_metrics(tmp_path, "03_a", metric_rows("03_a", 0.5).drop(columns="level"))


def test_prediction_outside_zero_to_one_is_refused(tmp_path):
    row = dict.fromkeys(results.PREDICTION_COLUMNS, "x") | {"p_malignant": 1.2}
    with pytest.raises(ValueError, match="p_malignant"):
        results.save_predictions(tmp_path, "03_a", pd.DataFrame([row]))


@pytest.mark.parametrize(
    ("name", "writer"),
    [("splits.csv", "02_patient_split"), ("predictions/04_transfer_learning.parquet", "04_tr")],
)
def test_missing_table_names_the_notebook_to_run(tmp_path, name, writer):
    with pytest.raises(FileNotFoundError, match=f"run {writer}"):
        results.read_table(tmp_path, name)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = results.write_json({"a": 1}, tmp_path / "x.json")

    def fail(file):
        file.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        results.write_atomic(path, fail)
    assert results.read_json(tmp_path, "x.json") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.filterwarnings("error")
def test_floats_survive_csv_exactly(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.random(5000) * 10.0 ** rng.integers(-300, 300, 5000)
    frame = pd.DataFrame({"value": numbers, "ci_low": numbers, "seconds": numbers[::-1]})
    frame.loc[0, "ci_low"] = np.nan
    results.write_table(frame, tmp_path / "metrics.csv")
    read = results.read_table(tmp_path, "metrics.csv")
    pd.testing.assert_frame_equal(read, frame, check_exact=True)


def test_parameter_check_passes_right_values():
    parameters.check("EPOCHS", 3, int, minimum=1)
    parameters.check("RATE", 1, float, maximum=1)
    parameters.check("MAGNIFICATIONS", [40, 100], list, allowed=(40, 100, 200, 400))


@pytest.mark.parametrize(
    ("value", "kind", "limits", "message"),
    [
        ("three", int, {}, "type int"),
        (True, int, {}, "type int"),
        (40, list, {}, "type list"),
        ([50], list, {"allowed": (40, 100)}, "50 is not allowed. Choose from 40, 100"),
        ([], list, {"filled": True}, "at least one value is needed"),
        (0, int, {"minimum": 1}, "least allowed value is 1"),
        (2.0, float, {"maximum": 1}, "largest allowed value is 1"),
    ],
)
def test_parameter_check_names_the_fault(value, kind, limits, message):
    with pytest.raises(ValueError, match=message) as error:
        parameters.check("NAME", value, kind, **limits)
    assert "NAME" in str(error.value)
