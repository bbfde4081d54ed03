"""Names, index and verification: each kind of bad file is named with its reason."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers import data
from helpers.data import images, verify
from helpers.data.counts import compare
from helpers.results import ROOT, write_json, write_table

NAME = "SOB_B_A-14-22549AB-40-001"
DC, LC = "SOB_M_DC-14-13412-100-001", "SOB_M_LC-14-13412-100-001"


def pixels(seed=0, width=700, height=460):
    """Smooth noise that compresses well: uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height)))


def write(folder, name, seed=0, **size):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, **size)).save(folder / f"{name}.png")
    return folder / f"{name}.png"


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        (NAME, ("benign", "A", "A-14-22549AB", "14-22549", 40, 1)),
        ("SOB_M_PC-15-190EF-400-021", ("malignant", "PC", "PC-15-190EF", "15-190", 400, 21)),
        ("SOB_M_DC-14-2523-100-010", ("malignant", "DC", "DC-14-2523", "14-2523", 100, 10)),
    ],
)
def test_a_name_is_read(stem, expected):
    row = data.parse_name(stem)
    keys = ("tumor_class", "tumor_type", "slide", "accession", "magnification", "sequence")
    assert tuple(row[key] for key in keys) == expected
    assert row["image_id"] == stem


@pytest.mark.parametrize(
    "stem",
    [
        "SOB_M_A-14-22549AB-40-001",  # adenosis is benign
        "SOB_B_DC-14-2523-40-001",
        "SOB_B_A-14-22549AB-50-001",
        "SOB_B_A-14-22549AB-40-1",
        "SOB_B_A-14-22549AB-40-001 (1)",
        "SOB_B_A-14-22549ab-40-001",
        "SOB_B_A-14-22549AB-40-001\n",
        "SOB_B_A-14-22549AB-40-٠٠١",  # digits, but not ASCII
        "IMG_0001",
        "",
    ],
)
def test_other_names_are_refused(stem):
    with pytest.raises(ValueError, match="not a BreakHis name"):
        data.parse_name(stem)


def test_the_slide_table_adds_up():
    slides = data.slide_table()
    columns = [f"n_{m}x" for m in data.MAGNIFICATIONS]
    assert slides[columns].sum().tolist() == [1995, 2081, 2013, 1820]
    assert slides[columns].sum().sum() == verify.N_IMAGES
    assert (len(slides), slides["accession"].nunique()) == (82, 70)


def test_index_of_a_flat_folder_with_odd_names(tmp_path):
    folder = tmp_path / "données é 日本" / "my folder"
    write(folder / "train" / "benign", NAME, seed=1, height=456)
    write(folder, DC, seed=2)
    index, problems = data.build_index(folder)
    assert problems.empty
    assert list(index.columns) == data.INDEX_COLUMNS
    row = index[index["image_id"] == NAME].iloc[0]
    assert row["path"] == f"train/benign/{NAME}.png"
    assert (row["width_px"], row["height_px"]) == (700, 456)
    assert (index["duplicate_of"] == "").all()
    assert data.describe(folder, index)["kind"] == "sample"


def test_duplicates_are_found_by_pixels_not_bytes(tmp_path):
    first = write(tmp_path, DC)
    Image.open(first).save(tmp_path / f"{LC}.png", compress_level=1)
    assert first.read_bytes() != (tmp_path / f"{LC}.png").read_bytes()
    index, _ = data.build_index(tmp_path)
    assert dict(zip(index["image_id"], index["duplicate_of"], strict=True)) == {DC: "", LC: DC}
    assert verify.duplicates(index).to_numpy().tolist() == [[LC, DC, "tumour type"]]


def spoil(folder):
    """Write one of each bad file, and return {path: what its reason must say}."""
    good = write(folder, NAME).read_bytes()
    stem = NAME[:-3]
    image = Image.fromarray(pixels())
    grey16 = Image.fromarray(np.zeros((460, 700), np.uint16))
    kinds = {"002": "L", "003": "RGBA", "004": "P"}
    for number, mode in kinds.items():
        image.convert(mode).save(folder / f"{stem}{number}.png")
    grey16.save(folder / f"{stem}005.png")
    (folder / f"{stem}006.png").write_bytes(b"")
    (folder / f"{stem}007.png").write_bytes(good[: len(good) // 2])
    (folder / f"{stem}008.png").write_bytes(good[:-12])  # all pixels, but no end
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    (folder / f"{stem}009.png").write_bytes(flipped)
    image.save(folder / f"{stem}010.png", format="JPEG")
    write(folder, f"{stem}011", width=640)
    deep = bytearray(good)
    deep[24] = 16  # a header that says 16 bits, as in 48-bit RGB
    (folder / f"{stem}012.png").write_bytes(deep)
    os.symlink(folder / "nowhere.png", folder / f"{stem}013.png")
    write(folder, "holiday")
    write(folder, "SOB_B_A-14-99999-40-001")
    image.save(folder / f"{stem}014.jpg")
    (folder / f"{stem}015.png").mkdir()
    return {
        "002": "8-bit grey, not", "003": "8-bit RGBA, not", "004": "8-bit palette, not",
        "005": "16-bit grey, not", "006": "empty", "007": "truncated", "008": "truncated",
        "009": "damaged", "010": "not a PNG", "011": "640x460 px, not", "012": "16-bit RGB, not",
        "013": "cannot be read", "holiday": "not a BreakHis name",
        "SOB_B_A-14-99999-40-001": "no slide A-14-99999", "014": "not a PNG",
    }  # fmt: skip


def test_each_bad_file_is_named_with_its_reason(tmp_path):
    expected = spoil(tmp_path)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["image_id"].tolist() == [NAME]
    assert len(problems) == len(expected)
    for key, reason in expected.items():
        (row,) = problems[problems["path"].str.contains(f"{key}.", regex=False)].itertuples()
        assert reason in row.reason
    with pytest.raises(ValueError, match="ON_BAD = 'drop'") as error:
        data.build_index(tmp_path)
    assert f"{len(expected)} files" in str(error.value)
    assert "15 bad files left out" in data.describe(tmp_path, index, len(expected))["badge"]


def test_the_command_on_a_bad_folder(tmp_path):
    expected = spoil(tmp_path / "bad")
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-m", "helpers.data", tmp_path / "bad"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    for key, reason in expected.items():
        assert any(key in line and reason in line for line in done.stdout.splitlines())
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_on_a_sound_part(tmp_path, capsys):
    write(tmp_path, NAME)
    assert verify.main([str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["state"], result["n_images"], result["problems"]) == ("partial", 1, [])
    missing = {(row["slide"], row["magnification"]): row for row in result["missing"]}
    assert len(missing) == 82 * 4
    assert missing["A-14-22549AB", 40] == {
        "slide": "A-14-22549AB", "magnification": 40, "found": 1, "published": 29
    }  # fmt: skip
    assert verify.main([str(tmp_path)]) == 0
    assert "missing slides (81)" in capsys.readouterr().out


def test_more_images_than_the_database_has_is_foreign(tmp_path):
    for number in range(1, 15):  # PT-14-29315EF has 13 images at 40X
        write(tmp_path, f"SOB_B_PT-14-29315EF-40-{number:03d}", seed=number)
    result = verify.verify(tmp_path)
    assert (result["state"], result["sound"]) == ("foreign", False)
    said = "PT-14-29315EF at 40X has 14 images, the database has 13"
    assert said in verify.report(result)
    with pytest.raises(ValueError, match=said):  # one rule for all who read a folder
        data.build_index(tmp_path)
    write(tmp_path, NAME)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["image_id"].tolist() == [NAME]
    assert (len(problems), set(problems["kind"])) == (14, {"foreign"})


def whole_index():
    """An index with every published image, made of names and counts alone."""
    counts = compare(pd.DataFrame(columns=["slide", "magnification", "path"]))
    index = counts.loc[counts.index.repeat(counts["published"])].reset_index(drop=True)
    index["image_id"] = index["slide"] + "-" + index.index.astype(str)
    return index.assign(path="none.png", width_px=700, height_px=460)


def test_the_whole_database_lacks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.data.index.marked_phantom", lambda file: False)
    index = whole_index()
    assert len(index) == verify.N_IMAGES
    assert data.describe(tmp_path, index)["kind"] == "database"
    moved = index.assign(slide=index["slide"].where(index.index > 0, index["slide"].iloc[-1]))
    assert len(moved) == verify.N_IMAGES  # the total alone is no proof
    assert data.describe(tmp_path, moved)["kind"] == "sample"
    assert data.describe(tmp_path, index[1:])["kind"] == "sample"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_among_the_images_is_refused_and_hangs_nothing(tmp_path):
    write(tmp_path, NAME)
    os.mkfifo(tmp_path / f"{NAME[:-3]}002.png")
    code = f"from helpers import data; i, p = data.build_index({str(tmp_path)!r}, 'drop')"
    code += f"; print(len(i), *p['reason']); print(data.fingerprint({str(tmp_path)!r}))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "1 cannot be read: not a regular file" in done.stdout


def test_missing_and_empty_folders(tmp_path, capsys):
    with pytest.raises(SystemExit):
        verify.main([str(tmp_path / "none")])
    assert "there is no folder" in capsys.readouterr().err
    assert verify.main([str(tmp_path)]) == 1
    assert "no images" in capsys.readouterr().err
    with pytest.raises(ValueError, match="No usable BreakHis image"):
        data.build_index(tmp_path)


def test_one_image_in_two_folders_is_counted_once(tmp_path):
    write(tmp_path / "fold1", NAME)
    write(tmp_path / "fold2", NAME)
    index, problems = data.build_index(tmp_path)
    assert index["path"].tolist() == [f"fold1/{NAME}.png"]
    assert problems.to_numpy().tolist() == [
        [f"fold2/{NAME}.png", "note", f"a copy of fold1/{NAME}.png, counted once"]
    ]
    assert verify.main([str(tmp_path)]) == 0


def test_one_name_on_two_images_is_an_error(tmp_path):
    write(tmp_path / "a", NAME, seed=1)
    write(tmp_path / "b", NAME, seed=2)
    write(tmp_path, DC)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["image_id"].tolist() == [DC]
    assert problems["reason"].str.contains("different pixels").tolist() == [True, True]


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere", NAME)
    write(tmp_path / "data" / "sub", DC)
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "data", tmp_path / "data" / "sub" / "loop")
    os.symlink("itself", tmp_path / "data" / "itself")
    index, problems = data.build_index(tmp_path / "data")
    assert index["image_id"].tolist() == [NAME, DC]
    assert problems.empty


def test_an_unreadable_folder_is_a_problem(tmp_path, monkeypatch):
    write(tmp_path, NAME)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = verify.verify(tmp_path)
    assert result["state"] == "damaged"
    assert result["problems"] == [
        {"path": "closed", "kind": "bad", "reason": "cannot list: Permission denied"}
    ]


def test_a_resized_copy_says_so(tmp_path):
    for number in range(1, 11):
        write(tmp_path, f"SOB_B_A-14-22549AB-40-{number:03d}", number, width=224, height=224)
    index, _ = data.build_index(tmp_path)
    assert data.describe(tmp_path, index)["badge"].endswith("resized to 224x224 px")


@pytest.mark.parametrize("named", [True, False])
def test_the_phantom_is_never_taken_for_tissue(tmp_path, named):
    if named:
        write(tmp_path / "phantom" / "x", NAME, width=350, height=230)
        (tmp_path / "phantom" / "phantom.json").write_text("{}")
    else:
        mark = PngInfo()
        mark.add_text("Software", images.PHANTOM_MARK)
        (tmp_path / "phantom" / "x").mkdir(parents=True)
        file = tmp_path / "phantom" / "x" / f"{NAME}.png"
        Image.fromarray(pixels(0, 350, 230)).save(file, pnginfo=mark)
    index, _ = data.build_index(tmp_path / "phantom" / "x")
    facts = data.describe(tmp_path / "phantom" / "x", index)
    assert (facts["kind"], facts["badge"]) == ("phantom", "Phantom: 1 synthetic images, not tissue")
    assert verify.verify(tmp_path / "phantom")["state"] == "phantom"


def test_find_data_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.delenv("BREAKHIS_DIR", raising=False)
    made = tmp_path / "made"
    assert data.find_data("", lambda: made) == made
    assert "phantom" in capsys.readouterr().out
    (tmp_path / "data" / "BreaKHis_v1").mkdir(parents=True)
    assert data.find_data("", lambda: made) == tmp_path / "data" / "BreaKHis_v1"
    for name in ("env", "own"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("BREAKHIS_DIR", str(tmp_path / "env"))
    assert data.find_data("", lambda: made) == tmp_path / "env"
    assert data.find_data(tmp_path / "own", lambda: made) == tmp_path / "own"
    with pytest.raises(FileNotFoundError, match="DATA names"):
        data.find_data(tmp_path / "gone", lambda: made)


@pytest.fixture
def run(tmp_path):
    """A folder of two images and the results that notebook 01 would write."""
    folder = tmp_path / "images"
    write(folder, NAME, 1)
    write(folder, DC, 2)
    index, _ = data.build_index(folder)
    results = tmp_path / "results"
    write_table(index, results / "index.csv")
    write_json(data.data_facts(folder, index), results / "data.json")
    return folder, results, index


def test_open_run_gives_back_what_01_wrote(run):
    folder, results, index = run
    opened = data.open_run(results)
    assert (opened.folder, opened.kind) == (folder, "sample")
    assert opened.badge == "BreakHis sample: 2 real images of 2 slides, 2 accessions"
    pd.testing.assert_frame_equal(opened.index, index)


def test_open_run_notices_removed_changed_and_added_images(run):
    folder, results, _ = run
    os.utime(folder / f"{NAME}.png", (0, 0))  # touched, but the same bytes
    assert data.open_run(results).kind == "sample"
    write(folder, LC, 3)
    with pytest.raises(ValueError, match="run 01_eda again"):
        data.open_run(results)
    (folder / f"{LC}.png").unlink()
    write(folder, NAME, 4)
    with pytest.raises(ValueError, match="run 01_eda again"):
        data.open_run(results)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="2 of the 2 images"):
        data.open_run(results)
    with pytest.raises(FileNotFoundError, match="01_eda"):
        data.open_run(results / "other")
