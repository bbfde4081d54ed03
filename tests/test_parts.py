"""Results computed in parts: put together in any order, and refused where they do not fit."""

import pandas as pd
import pytest

from helpers.results import write_table
from helpers.studies import parts

NAME = "predictions/05_magnification.parquet"


def rows(model="probe_40x", fold=1, p=0.25, images=("b", "a")) -> pd.DataFrame:
    return pd.DataFrame(
        [(image, "malignancy", "accession", fold, 0, model, p) for image in images],
        columns=["image_id", "task", "protocol", "fold", "seed", "model", "p_malignant"],
    )


def put(folder, frame):
    write_table(frame, folder / NAME)
    return str(folder)


def test_parts_equal_the_whole_whatever_their_order(tmp_path):
    one, two = rows(), rows("probe_all", 2)
    whole = parts.tidy(pd.concat([one, two]))
    folders = [put(tmp_path / "x", two), put(tmp_path / "y", pd.concat([one, two]))]
    for order in (folders, folders[::-1]):
        pd.testing.assert_frame_equal(parts.combine(order, NAME), whole)


def test_small_differences_between_machines_pass_and_large_ones_do_not(tmp_path):
    first = put(tmp_path / "x", rows())
    near = put(tmp_path / "y", rows(p=0.25 + 1e-5))
    far = put(tmp_path / "z", rows(p=0.5))
    assert len(parts.combine([first, near], NAME)) == 2
    with pytest.raises(ValueError, match="different predictions of probe_40x"):
        parts.combine([first, far], NAME)


def test_folder_without_the_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="05_magnification first"):
        parts.combine([str(tmp_path)], NAME)


def test_part_of_another_split_is_refused():
    split = pd.DataFrame(
        {"image_id": ["a", "b"], "protocol": "accession", "fold": 1, "role": ["test", "train"]}
    )
    parts.check_roles(rows(images=("a",)), split, "test")
    with pytest.raises(ValueError, match="1 predictions .* does not call test.* b in accession"):
        parts.check_roles(rows(), split, "test")


def test_coverage_names_missing_folds():
    split = pd.DataFrame(
        {"image_id": "a", "protocol": "accession", "fold": [1, 2, 3], "role": "test"}
    )
    found = parts.coverage(pd.concat([rows(), rows(fold=3)]), split)
    assert found.to_dict("records") == [
        {"protocol": "accession", "model": "probe_40x", "folds": 2, "missing": "2", "images": 2}
    ]


def test_runs_combine_without_fused_models_and_with_both_roles_checked(tmp_path):
    split = pd.DataFrame(
        {"image_id": ["a", "b"], "protocol": "accession", "fold": 1, "role": ["test", "val"]}
    )
    put(tmp_path, pd.concat([rows(images="a"), rows("fusion_mean", images="a")]))
    write_table(rows(images="b"), tmp_path / "validation/05_magnification.parquet")
    tested, held = parts.combine_runs([str(tmp_path)], "05_magnification", split)
    assert tested["model"].tolist() == ["probe_40x"]
    assert held["image_id"].tolist() == ["b"]
    with pytest.raises(ValueError, match="does not call test"):
        parts.combine_runs([str(tmp_path)], "05_magnification", split.assign(role="val"))
