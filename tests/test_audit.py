"""The runner's check of a run's tables: planted leaks are caught, and nothing is published."""

from pathlib import Path

import pandas as pd
import pytest
import tiny

from helpers import data, results
from runner import audit

IMAGES = "0123456789ab"

# accession -> its slides; each fold tests two accessions, validates one and trains on the rest
SLIDES = {
    "14-1": ["F-14-1A", "F-14-1B"], "14-2": ["F-14-2"], "14-3": ["DC-14-3"], "14-4": ["DC-14-4"],
    "14-5": ["DC-14-5"], "14-6": ["F-14-6"],
}  # fmt: skip
TESTED = {1: ["14-1", "14-3"], 2: ["14-2", "14-4"], 3: ["14-5", "14-6"]}
VALIDATES = {1: "14-2", 2: "14-3", 3: "14-4"}


def sound_tables():
    """(index, splits, predictions): two images a slide, three folds by accession."""
    rows = [
        {
            "image_id": f"{slide}-{k}",
            "slide": slide,
            "accession": accession,
            "pixel_sha256": f"{slide}{k}",
        }
        for accession, slides in SLIDES.items()
        for slide in slides
        for k in (1, 2)
    ]
    index = pd.DataFrame(rows)
    parts = []
    for fold, tested in TESTED.items():
        names = index["accession"]
        role = names.eq(VALIDATES[fold]).map({True: "val", False: "train"})
        role = role.mask(names.isin(tested), "test")
        parts.append(index[["image_id"]].assign(protocol="accession", fold=fold, role=role))
    splits = pd.concat(parts, ignore_index=True)
    predictions = splits[splits["role"] == "test"].drop(columns="role").assign(p_malignant=0.5)
    return index, splits, predictions


def write(folder, index, splits, predictions, part="predictions"):
    """Write the tables as a folder of results."""
    run = data.Run(folder, "03_model", folder, index, "sample", "", IMAGES)
    results.write_json({"images": IMAGES, "folder": "", "kind": "sample"}, folder / "data.json")
    results.save_table(run, "index.csv", index)
    results.save_table(run, "splits.csv", splits)
    results.save_table(run, f"{part}/03_model.parquet", predictions)
    return folder


def sister_slide(index, splits, predictions):
    there = splits["fold"].eq(1) & splits["image_id"].str.startswith("F-14-1B")
    splits.loc[there, "role"] = "train"
    tested = predictions["fold"].ne(1) | ~predictions["image_id"].str.startswith("F-14-1B")
    return index, splits, predictions[tested]


def renamed_copy(index, splits, predictions):
    index.loc[index["image_id"] == "DC-14-5-1", "pixel_sha256"] = "F-14-1A1"
    return index, splits, predictions


def two_roles(index, splits, predictions):
    row = splits[splits["fold"].eq(2) & splits["image_id"].eq("DC-14-4-2")]
    return index, pd.concat([splits, row.assign(role="train")]), predictions


def prediction_on_training(index, splits, predictions):
    row = predictions.iloc[[0]].assign(image_id="DC-14-4-1", fold=1)
    return index, splits, pd.concat([predictions, row])


def prediction_on_a_stranger(index, splits, predictions):
    return index, splits, pd.concat([predictions, predictions.iloc[[0]].assign(image_id="X-1")])


def unknown_protocol(index, splits, predictions):
    return index, splits, predictions.assign(protocol="by_eye")


LEAKS = [
    (sister_slide, "fold 1: accession 14-1 is on both sides"),
    (renamed_copy, "fold 1: pixel_sha256 F-14-1A1 is on both sides"),
    (two_roles, "DC-14-4-2 has two roles in fold 2"),
    (
        prediction_on_training,
        r"03_model: 1 rows not on test .*DC-14-4-1 \(accession, fold 1, role tr",
    ),
    (prediction_on_a_stranger, r"X-1 \(accession, fold 1, role none"),
    (unknown_protocol, r"03_model: .* \(by_eye, fold 1, role none"),
]


def test_sound_tables_pass(tmp_path):
    audit.check_tables(write(tmp_path / "results", *sound_tables()))


def test_before_the_splits_there_is_nothing_to_check(tmp_path):
    audit.check_tables(tmp_path)


@pytest.mark.parametrize(("plant", "said"), LEAKS, ids=[leak[0].__name__ for leak in LEAKS])
def test_a_planted_leak_is_caught_and_named(tmp_path, plant, said):
    folder = write(tmp_path / "results", *plant(*sound_tables()))
    with pytest.raises(ValueError, match=said):
        audit.check_tables(folder)


def with_validation(folder, plant):
    """A sound folder with scores on what each fold does not test, and what `plant` adds to them."""
    index, splits, predictions = sound_tables()
    known = splits[splits["role"] != "test"].drop(columns="role").assign(p_malignant=0.5)
    row = known.iloc[[0]].assign(**plant) if plant else known.head(0)
    write(folder, index, splits, predictions)
    return write(folder, index, splits, pd.concat([known, row]), part="validation")


def test_validation_may_hold_all_that_its_fold_does_not_test(tmp_path):
    audit.check_tables(with_validation(tmp_path / "results", {}))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        ({"image_id": "F-14-2-1", "fold": 2}, r"F-14-2-1 \(accession, fold 2, role test\)"),
        ({"image_id": "X-1", "fold": 2}, r"X-1 \(accession, fold 2, role none\)"),
        ({"image_id": "F-14-2-1", "protocol": "by_eye", "fold": 1}, r"\(by_eye, fold 1, role none"),
    ],
)
def test_validation_on_a_test_image_is_caught_and_named(tmp_path, plant, said):
    folder = with_validation(tmp_path / "results", plant)
    with pytest.raises(
        ValueError, match=f"validation/03_model: 1 rows not on train or val images, as .*{said}"
    ):
        audit.check_tables(folder)


def test_a_table_of_other_images_is_named(tmp_path):
    folder = write(tmp_path / "results", *sound_tables())
    path = folder / "predictions/03_model.parquet"
    pd.read_parquet(path).assign(images="another").to_parquet(path)
    with pytest.raises(ValueError, match="03_model.parquet was computed on other images"):
        audit.check_tables(folder)


def test_a_leak_fails_the_run_and_leaves_the_report(tmp_path, capsys):
    root = tiny.project(tmp_path / "series")
    assert tiny.run(root, "--notebooks", "03") == 0
    report = Path(root, "reports/runs/demo")
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    copying = 'import shutil\n\nshutil.copytree("planted", RESULTS, dirs_exist_ok=True)\nvalue = 1'
    tiny.write(root, "03_third", copying)
    write(root / "planted", *sister_slide(*sound_tables()))
    assert tiny.run(root, "--notebooks", "03", "--fresh") == 1
    assert "14-1" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in report.rglob("*") if p.is_file()} == before
    assert report.with_name(".demo.running").exists()  # where to look for the cause
