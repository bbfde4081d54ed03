"""Names, index, verdict and runs: each kind of trouble is named with what to do."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers import data, images, plots, results
from helpers.results import ROOT

NAME = "SOB_B_A-14-22549AB-40-001"
DC, LC = "SOB_M_DC-14-13412-100-001", "SOB_M_LC-14-13412-100-001"
SAMPLE = ROOT.parent / "shared" / "breakhis"


def pixels(seed=0, width=700, height=460):
    """Smooth noise: uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BOX))


def write(folder, name, seed=0, level=1, mode="RGB", **size):
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(seed, **size)).convert(mode)
    image.save(folder / f"{name}.png", compress_level=level)
    return folder / f"{name}.png"


@pytest.fixture
def publish(monkeypatch):
    """A function that makes files the originals of a database of their own."""

    def be_originals(*files):
        codes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        places = [f"histology_slides/{number}/{file.name}" for number, file in enumerate(files)]
        monkeypatch.setattr(data, "manifest", lambda: dict(zip(codes, places, strict=True)))
        return files

    return be_originals


def kinds(folder):
    """Path and kind of each file that is no plain original."""
    return {row["path"]: row["kind"] for row in data.verify(folder)["files"]}


# Names and published facts


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


def test_the_tables_of_the_database_agree():
    slides = data.slide_table()
    counts = slides[[f"n_{m}x" for m in data.MAGNIFICATIONS]].sum()
    assert counts.tolist() == [1995, 2081, 2013, 1820]
    assert (len(slides), slides["accession"].nunique()) == (82, 70)
    listed = pd.DataFrame(data.parse_name(Path(path).stem) for path in data.manifest().values())
    found = data.compare(listed)
    assert listed["image_id"].nunique() == found["published"].sum() == 7909
    assert (found["found"] == found["published"]).all()


def test_the_manifest_is_in_the_form_that_sha256sum_reads():
    text = (ROOT / "data" / "SHA256SUMS").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    official = r"[0-9a-f]{64}  histology_slides/breast/(benign|malignant)/SOB/\w+/SOB_\w+-\d+X?"
    official = (
        r"[0-9a-f]{64}  histology_slides/breast/\w+/SOB/\w+/SOB_[BM]_\w+-\w+/\d+X/SOB_.+\.png"
    )
    assert len(lines) == 7909
    assert all(re.fullmatch(official, line) for line in lines)


def test_the_twins_are_all_images_of_the_slide_that_is_filed_twice():
    names = {Path(path).stem for path in data.manifest().values()}
    twins = pd.read_csv(ROOT / "data" / "twins.csv")
    for column, kind in (("dc", "DC"), ("lc", "LC")):
        assert set(twins[column]) == {name for name in names if f"_{kind}-14-13412-" in name}
        assert twins[column].is_unique
    facts = [pd.DataFrame(map(data.parse_name, twins[column])) for column in ("dc", "lc")]
    assert (facts[0]["magnification"] == facts[1]["magnification"]).all()
    assert (facts[0]["sequence"] - facts[1]["sequence"]).isin([0, 1]).all()


# The index


def test_index_of_a_flat_folder_with_odd_names(tmp_path):
    folder = tmp_path / "données é 日本" / "my folder"
    write(folder / "train" / "benign", NAME, seed=1, height=456)
    write(folder, DC, seed=2)
    index, problems = data.build_index(folder)
    assert list(index.columns) == data.INDEX_COLUMNS
    row = index[index["image_id"] == NAME].iloc[0]
    assert row["path"] == f"train/benign/{NAME}.png"
    assert (row["width_px"], row["height_px"]) == (700, 456)
    assert (index["duplicate_of"] == "").all()
    assert data.describe(folder, index)["kind"] == "sample"
    assert set(problems["kind"]) == {"note"}  # none of them is an original


def test_duplicates_are_found_by_pixels_not_bytes(tmp_path):
    first, second = write(tmp_path, DC), write(tmp_path, LC, level=9)
    assert first.read_bytes() != second.read_bytes()
    index, _ = data.build_index(tmp_path)
    assert dict(zip(index["image_id"], index["duplicate_of"], strict=True)) == {DC: "", LC: DC}
    assert data.duplicates(index).to_numpy().tolist() == [[LC, DC, "tumour type"]]


def spoil(folder):
    """Write one of each bad file, and return {path: what its reason must say}."""
    good = write(folder, NAME).read_bytes()
    stem = NAME[:-3]
    for number, mode in {"002": "L", "004": "P"}.items():
        write(folder, f"{stem}{number}", mode=mode)
    clear = Image.fromarray(pixels()).convert("RGBA")
    clear.putalpha(254)
    clear.save(folder / f"{stem}003.png", compress_level=1)
    Image.fromarray(np.zeros((460, 700), np.uint16)).save(folder / f"{stem}005.png")
    (folder / f"{stem}006.png").write_bytes(b"")
    (folder / f"{stem}007.png").write_bytes(good[: len(good) // 2])
    (folder / f"{stem}008.png").write_bytes(good[:-12])  # all pixels, but no end
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    (folder / f"{stem}009.png").write_bytes(flipped)
    Image.fromarray(pixels()).save(folder / f"{stem}010.png", format="JPEG")
    write(folder, f"{stem}011", width=640)
    deep = bytearray(good)
    deep[24] = 16  # a header that says 16 bits, as in 48-bit RGB
    deep[29:33] = zlib.crc32(deep[12:29]).to_bytes(4)
    (folder / f"{stem}012.png").write_bytes(deep)
    os.symlink(folder / "nowhere.png", folder / f"{stem}013.png")
    write(folder, "holiday")
    write(folder, "SOB_B_A-14-99999-40-001")
    Image.fromarray(pixels()).save(folder / f"{stem}014.tif")
    (folder / f"{stem}015.png").mkdir()
    return {
        "002": "8-bit grey, not", "003": "transparent", "004": "8-bit palette, not",
        "005": "16-bit grey, not", "006": "empty", "007": "truncated", "008": "truncated",
        "009": "damaged", "010": "a JPEG copy", "011": "640x460 px, not",
        "012": "16-bit RGB, not", "013": "cannot be read", "holiday": "nor a BreakHis name",
        "SOB_B_A-14-99999-40-001": "no such image", "014": "not a PNG",
    }  # fmt: skip


def test_each_bad_file_is_named_with_its_reason(tmp_path):
    expected = spoil(tmp_path)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["image_id"].tolist() == [NAME]
    bad = problems[problems["kind"] != "note"]
    assert len(bad) == len(expected)
    for key, reason in expected.items():
        (row,) = bad[bad["path"].str.contains(f"{key}.", regex=False)].itertuples()
        assert reason in row.reason
    badge = data.describe(tmp_path, index, len(expected))["badge"]
    assert badge.endswith("1 patients, 15 bad files left out")


def test_the_list_of_problems_is_short_and_names_the_cure_for_make(tmp_path):
    write(tmp_path, NAME)
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="30 files below") as error:
        data.build_index(tmp_path)
    said = str(error.value)
    assert said.count("empty file") == 1
    assert "0.png and 29 more: empty file" in said
    assert 'make run ARGS="-p ON_BAD=drop"' in said
    assert len(said.splitlines()) == 3


def test_rgba_without_transparency_is_taken_with_a_note(tmp_path):
    write(tmp_path, NAME, seed=1, mode="RGBA")
    index, problems = data.build_index(tmp_path)
    assert index["pixel_sha256"].tolist() == [images.pixel_hash(pixels(1))]
    assert problems[["kind", "reason"]].to_numpy().tolist() == [
        ["note", "RGBA with full alpha, taken as RGB"]
    ]


def test_copies_that_are_not_the_database_s_pixels_are_not_advised_to_be_dropped(tmp_path):
    name = f"{NAME}_png.rf.0123456789abcdef"
    Image.fromarray(pixels()).save(tmp_path / f"{name}.jpg")
    write(tmp_path, f"{name}x", width=640, height=640)
    for on_bad in ("stop", "drop"):
        with pytest.raises(ValueError, match="No usable BreakHis image") as error:
            data.build_index(tmp_path, on_bad)
        assert "a JPEG copy, whose pixels are not the database's: it cannot be used" in str(
            error.value
        )
        assert "a copy, not the original: it cannot be used" in str(error.value)
        assert "drop" not in str(error.value)


def test_an_image_that_the_database_does_not_have_is_foreign(tmp_path):
    write(tmp_path, NAME)
    write(tmp_path, f"{NAME[:-3]}099")
    _, problems = data.build_index(tmp_path, "drop")
    assert "foreign" in set(problems["kind"])
    with pytest.raises(ValueError, match="no such image of this name"):
        data.build_index(tmp_path)


def test_empty_folders_and_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="No usable BreakHis image"):
        data.build_index(tmp_path)
    with pytest.raises(ValueError, match="allowed are 'stop' and 'drop'"):
        data.build_index(tmp_path, "ignore")


def test_one_image_in_two_folders_is_counted_once(tmp_path):
    write(tmp_path / "fold1", NAME)
    write(tmp_path / "fold2", NAME)
    index, problems = data.build_index(tmp_path)
    assert index["path"].tolist() == [f"fold1/{NAME}.png"]
    assert problems["reason"].iloc[1] == f"a copy of fold1/{NAME}.png, counted once"


def test_one_name_on_two_images_is_an_error_unless_one_is_the_original(tmp_path, publish):
    first = write(tmp_path / "a", NAME, seed=1)
    write(tmp_path / "b", NAME, seed=2)
    other = write(tmp_path, DC)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["image_id"].tolist() == [DC]
    assert problems["reason"].str.contains("other pixels").sum() == 2
    publish(first, other)
    index, problems = data.build_index(tmp_path, on_bad="drop")
    assert index["path"].tolist() == [f"a/{NAME}.png", f"{DC}.png"]
    assert problems["reason"].tolist() == ["another file of this name holds other pixels"]


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere", NAME)
    write(tmp_path / "data" / "sub", DC)
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "data", tmp_path / "data" / "sub" / "loop")
    os.symlink("itself", tmp_path / "data" / "itself")
    index, _ = data.build_index(tmp_path / "data")
    assert index["image_id"].tolist() == [NAME, DC]


def test_an_unreadable_folder_is_a_problem(tmp_path, monkeypatch):
    write(tmp_path, NAME)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = data.verify(tmp_path)
    assert (result["state"], kinds(tmp_path)["closed"]) == ("damaged", "damaged")
    assert "cannot list: Permission denied" in data.report(result)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_among_the_images_hangs_nothing(tmp_path):
    write(tmp_path, NAME)
    os.mkfifo(tmp_path / f"{NAME[:-3]}002.png")
    code = f"from helpers import data; i, p = data.build_index({str(tmp_path)!r}, 'drop')"
    run = [sys.executable, "-c", f"{code}; print(len(i), *p['reason'])"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be read: not a regular file" in done.stdout


def test_a_resized_copy_says_so(tmp_path):
    for number in range(1, 4):
        write(tmp_path, f"{NAME[:-3]}{number:03d}", number, width=224, height=224)
    index, _ = data.build_index(tmp_path)
    assert data.describe(tmp_path, index)["badge"].endswith("resized to 224x224 px")
    assert data.verify(tmp_path)["kinds"]["resized"] == 3
    write(tmp_path, f"{NAME[:-3]}004", 4)
    with pytest.raises(ValueError, match="224x224 px, not 700x460 or 700x456 px"):
        data.build_index(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_the_phantom_is_never_taken_for_tissue(tmp_path, named):
    folder, mark = tmp_path / "phantom" / "x", PngInfo()
    folder.mkdir(parents=True)
    if named:
        (tmp_path / "phantom" / "phantom.json").write_text("{}")
    else:
        mark.add_text("Software", images.PHANTOM_MARK)
    Image.fromarray(pixels(0, 350, 230)).save(folder / f"{NAME[:-3]}999.png", pnginfo=mark)
    index, problems = data.build_index(folder)
    assert problems.empty
    facts = data.describe(folder, index)
    assert (facts["kind"], facts["badge"]) == ("phantom", "Phantom: 1 synthetic images, not tissue")
    result = data.verify(tmp_path / "phantom")
    assert (result["state"], result["sound"], result["n_originals"]) == ("phantom", True, 0)


def test_a_phantom_image_among_originals_is_foreign(tmp_path, publish):
    mark = PngInfo()
    mark.add_text("Software", images.PHANTOM_MARK)
    publish(write(tmp_path, DC, 1), write(tmp_path, NAME, 2))
    Image.fromarray(pixels(3)).save(tmp_path / f"{NAME}.png", pnginfo=mark)
    assert kinds(tmp_path) == {f"{NAME}.png": "foreign"}


def test_the_whole_database_lacks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "is_marked", lambda file: False)
    names = [Path(path).stem for path in data.manifest().values()]
    index = pd.DataFrame(map(data.parse_name, names))
    index = index.assign(path="none.png", width_px=700, height_px=460)
    assert data.describe(tmp_path, index)["kind"] == "database"
    moved = index.assign(slide=index["slide"].where(index.index > 0, index["slide"].iloc[-1]))
    assert data.describe(tmp_path, moved)["kind"] == "sample"  # the total alone is no proof
    assert data.describe(tmp_path, index[1:])["kind"] == "sample"


# The verdict on a folder


def test_originals_are_known_in_any_layout_and_under_any_name(tmp_path, publish):
    one, two = publish(write(tmp_path / "a", NAME, 1), write(tmp_path / "a", DC, 2))
    mine = tmp_path / "mine"
    (mine / "malignant").mkdir(parents=True)
    shutil.copy(one, mine / "malignant" / "b1.png")  # a wrong label is not believed
    shutil.copy(two, mine)
    index, problems = data.build_index(mine)
    assert index.set_index("image_id")["tumor_class"].to_dict() == {
        NAME: "benign", DC: "malignant"
    }  # fmt: skip
    assert problems.to_numpy().tolist() == [["malignant/b1.png", "note", f"the original {NAME}"]]
    result = data.verify(mine)
    assert (result["state"], result["n_originals"], result["missing"]) == ("complete", 2, [])
    assert f"malignant/b1.png: the original {NAME}" in data.report(result)


def test_every_kind_of_file_is_told_apart(tmp_path, publish, capsys):
    names = [f"{NAME[:-3]}{number:03d}" for number in range(1, 9)]
    base = [write(tmp_path / "base", name, seed) for seed, name in enumerate(names)]
    publish(*base)
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(base[0], mine)
    shutil.copy(base[1], mine / "b1.png")
    write(mine, "repacked", 0, level=9)
    write(mine, names[2], 99)  # changed: other pixels under an official name
    write(mine, names[3], 3, width=350, height=230)
    Image.open(base[4]).save(mine / f"{names[4]}.jpg")
    (mine / f"{names[5]}.png").write_bytes(base[5].read_bytes()[:-50])  # cut short
    write(mine, "holiday", 66)
    shutil.copy(base[0], mine / "again.png")
    assert data.main([str(mine), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert {row["path"]: row["kind"] for row in result["files"]} == {
        "b1.png": "renamed", "again.png": "renamed", "repacked.png": "repacked",
        f"{names[2]}.png": "changed", f"{names[3]}.png": "resized", f"{names[4]}.jpg": "foreign",
        f"{names[5]}.png": "damaged", "holiday.png": "foreign",
    }  # fmt: skip
    assert (result["n_originals"], result["n_published"]) == (2, 8)
    assert result["missing"] == names[2:]
    assert result["kinds"]["original"] == 1
    assert data.main([str(mine)]) == 1
    said = capsys.readouterr().out
    assert "damaged; 2 of 8 files are the originals, byte for byte" in said
    assert f" repacked, 1:\n  repacked.png: a copy of {names[0]}.png, counted once" in said
    assert f"{names[2]} and 5 more: at 40X" in said


def test_a_name_of_another_case_on_an_original_s_pixels_is_not_believed(tmp_path, publish):
    base = tmp_path / "base"
    _, original, _ = publish(write(base, NAME, 2), write(base, DC, 1), write(base, LC, 1, level=2))
    mine = tmp_path / "mine"
    write(mine, LC, 1, level=9)  # filed twice: the same case, a name of its own
    write(mine, NAME, 1, level=9)  # another case: the pixels say what it is
    shutil.copy(original, mine)
    index, problems = data.build_index(mine)
    assert index["image_id"].tolist() == [DC, LC]
    assert problems["reason"].iloc[0] == f"a copy of {DC}.png, counted once"


def test_same_pixels_in_other_bytes_are_known_only_beside_the_original(tmp_path, publish):
    (original,) = publish(write(tmp_path / "base", NAME, 1))
    mine = write(tmp_path / "mine", NAME, 1, level=9).parent
    result = data.verify(mine)
    assert (result["state"], result["n_originals"], result["sound"]) == ("changed", 0, False)
    shutil.copy(original, mine / "again.png")
    assert kinds(mine) == {"again.png": "renamed", f"{NAME}.png": "repacked"}
    assert data.verify(mine)["sound"]


def test_restore_copies_originals_under_their_official_names(tmp_path, publish, capsys):
    one, two = publish(write(tmp_path / "a", NAME, 1), write(tmp_path / "a", DC, 2))
    places = list(data.manifest().values())
    mine, new = tmp_path / "mine", tmp_path / "new"
    mine.mkdir()
    shutil.copy(one, mine / "b1.png")
    shutil.copy(two, mine / "m1.png")
    write(mine, "holiday", 3)
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    data.main([str(mine), "--restore", str(new)])
    assert {str(file.relative_to(new)) for file in new.rglob("*.png")} == set(places)
    assert (new / places[0]).read_bytes() == one.read_bytes()
    assert {file.name: file.read_bytes() for file in mine.iterdir()} == before
    with pytest.raises(SystemExit) as stop:
        data.main([str(mine), "--restore", str(new)])
    assert stop.value.code == 2
    assert "is there already" in capsys.readouterr().err


def test_restore_leaves_nothing_half_done(tmp_path, publish, monkeypatch):
    publish(write(tmp_path / "a", NAME, 1), write(tmp_path / "a", DC, 2))

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(SystemExit):
        data.main([str(tmp_path / "a"), "--restore", str(tmp_path / "new")])
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_the_command_changes_nothing_and_needs_a_folder(tmp_path, capsys):
    spoil(tmp_path / "bad")
    before = sorted(tmp_path.rglob("*"))
    assert data.main([str(tmp_path / "bad")]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(SystemExit):
        data.main([str(tmp_path / "none")])
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert data.main([str(tmp_path / "empty")]) == 1


def table_of_copies():
    """The rows of the table in data/README.md: kind of copy, and its other columns."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.count("|") == 6]
    return {row[0].strip(): [cell.strip(" `") for cell in row[1:]] for row in rows[2:]}


def flip(file, target):
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target, compress_level=1)


COPIES = {
    "whole": lambda base, to: shutil.copytree(base[0].parent, to / "BreaKHis_v1" / "BreaKHis_v1"),
    "one magnification alone": lambda base, to: shutil.copy(base[2], to),
    "flat": lambda base, to: [shutil.copy(file, to) for file in base],
    "renamed": lambda base, to: [
        shutil.copy(file, to / f"b{number}.png") for number, file in enumerate(base, 1)
    ],
    "written again as PNG": lambda base, to: [
        Image.open(file).save(to / file.name, compress_level=9) for file in base
    ],
    "resized": lambda base, to: [
        Image.open(file).resize((224, 224)).save(to / file.name) for file in base
    ],
    "JPEG": lambda base, to: [
        Image.open(file).save(to / f"{file.stem}_png.rf.0a1b2c.jpg") for file in base
    ],
    "augmented": lambda base, to: [
        (shutil.copy(file, to), flip(file, to / f"{file.stem}_flip.png")) for file in base
    ],
    "cut short": lambda base, to: [
        (to / file.name).write_bytes(file.read_bytes()[: -60 * number])
        for number, file in enumerate(base, 0)
        if number
    ],
}


@pytest.mark.parametrize("kind", table_of_copies())
def test_the_verdict_on_each_kind_of_copy_is_that_of_the_data_card(tmp_path, publish, kind):
    names = [NAME, f"{NAME[:-3]}002", "SOB_B_A-14-22549AB-400-001"]
    base = publish(*(write(tmp_path / "base", name, seed) for seed, name in enumerate(names)))
    (tmp_path / "mine").mkdir()
    COPIES[kind](base, tmp_path / "mine")
    _, state, words, used = table_of_copies()[kind]
    result = data.verify(tmp_path / "mine")
    assert result["state"] == state
    assert words in data.report(result)
    if used == "yes":
        assert len(data.build_index(tmp_path / "mine")[0]) == result["n_originals"]
    if used == "no":
        with pytest.raises(ValueError, match="No usable BreakHis image"):
            data.build_index(tmp_path / "mine", "drop")


real = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")


@real
@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_takes_the_manifest():
    command = ["sha256sum", "-c", "--ignore-missing", "--strict", ROOT / "data" / "SHA256SUMS"]
    folder = next(SAMPLE.rglob("histology_slides")).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 442


@real
def test_another_date_turns_a_file_into_its_twin():
    """The proof in data/README.md, by its own code, for every pair of which a file is here."""
    text, known = (ROOT / "data" / "README.md").read_text(encoding="utf-8"), {}
    exec(re.search("```python\n(.*?)```", text, re.DOTALL)[1], known)
    codes = {Path(path).stem: code for code, path in data.manifest().items()}
    here = {file.stem: file.read_bytes() for file in SAMPLE.rglob("*14-13412*.png")}
    proved = 0
    for dc, lc in pd.read_csv(ROOT / "data" / "twins.csv")[["dc", "lc"]].to_numpy():
        for mine, twin, dates in ((dc, lc, known["LC"]), (lc, dc, known["DC"])):
            if mine in here:
                made = [known["created"](here[mine], date) for date in dates]
                assert codes[twin] in [hashlib.sha256(content).hexdigest() for content in made]
        proved += dc in here or lc in here
    assert proved == 26


@real
def test_the_real_sample_is_made_of_originals():
    result = data.verify(SAMPLE)
    assert (result["n_originals"], result["kinds"]["original"]) == (442, 442)
    assert (result["state"], result["files"], len(result["missing"])) == ("partial", [], 7467)
    twins = pd.DataFrame(result["duplicates"])
    assert len(twins) == 15
    assert twins["crosses"].eq("tumour type").all()
    assert twins["image_id"].str.startswith("SOB_M_LC-14-13412-100-").all()
    assert twins["duplicate_of"].str.startswith("SOB_M_DC-14-13412-100-").all()


# Finding the images


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone whose data folder is empty; no environment variable names images."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.delenv("BREAKHIS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def test_find_data_order(root, monkeypatch, capsys):
    made = root / "made"
    assert data.find_data("", lambda: made) == made
    assert "phantom" in capsys.readouterr().out
    (root / "data" / "BreaKHis_v1").mkdir()
    assert data.find_data("", lambda: made) == root / "data" / "BreaKHis_v1"
    for name in ("env", "own"):
        (root / name).mkdir()
    monkeypatch.setenv("BREAKHIS_DIR", str(root / "env"))
    assert data.find_data("", lambda: made) == root / "env"
    assert data.find_data(root / "own", lambda: made) == root / "own"
    with pytest.raises(FileNotFoundError, match="DATA names .*gone, which is no folder"):
        data.find_data(root / "gone", lambda: made)


@pytest.mark.parametrize("name", ["BreakHis_v1", "breakhis", "BreaKHis-v1", "BraeKHis_v1 (1)"])
def test_a_near_miss_in_spelling_is_never_the_phantom(root, name):
    (root / "data" / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"is not called BreaKHis_v1.*DATA or BREAKHIS_DIR"):
        data.find_data("", lambda: pytest.fail("took the phantom"))


def test_a_dangling_link_or_a_file_is_never_the_phantom(root):
    link = root / "data" / "BreaKHis_v1"
    link.symlink_to(root / "unplugged")
    with pytest.raises(FileNotFoundError, match="leads to no folder"):
        data.find_data("", lambda: pytest.fail("took the phantom"))
    link.unlink()
    link.write_text("../elsewhere")  # what a link becomes on a disk without links
    with pytest.raises(FileNotFoundError, match="leads to no folder"):
        data.find_data("", lambda: pytest.fail("took the phantom"))


def test_other_folders_and_archives_in_data_are_no_near_miss(root):
    for name in ("cache", "phantom", "checkpoints", ".BreaKHis_v1.partial"):
        (root / "data" / name).mkdir()
    (root / "data" / "BreaKHis_v1.tar.gz").touch()
    assert data.find_data("", lambda: root / "made") == root / "made"


# Runs


@pytest.fixture
def run(tmp_path):
    """A folder of two images, and what notebook 01 writes of it."""
    folder = tmp_path / "images"
    write(folder, NAME, 1)
    write(folder, DC, 2)
    return begin(folder, tmp_path / "results")


def begin(folder, where):
    index, problems = data.build_index(folder)
    run = data.start_run(where, "01_eda", folder, index, problems)
    data.save_run(run, problems)
    return run


def test_open_run_gives_back_what_01_wrote(run):
    opened = data.open_run(run.results, "02_patient_split")
    assert opened.badge == "BreakHis sample: 2 real images of 2 slides, 2 patients"
    pd.testing.assert_frame_equal(opened.index, run.index)
    assert opened._replace(notebook="01_eda", index=None) == run._replace(index=None)
    assert plots._badge == run.badge


def test_one_image_alone_is_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "images", NAME, 1)
    run = begin(tmp_path / "images", tmp_path / "results")
    opened = data.open_run(run.results, "02_patient_split")
    assert images.load_images(opened.folder, opened.index, [115, 175]).shape == (1, 115, 175, 3)
    assert (len(opened.index), len(data.duplicates(opened.index))) == (1, 0)


def test_the_fingerprint_is_of_content_not_of_layout(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.folder, elsewhere / "flat" / "train")
    assert data.fingerprint(data.build_index(elsewhere)[0]) == run.images
    assert re.fullmatch("[0-9a-f]{12}", run.images)
    assert data.fingerprint(run.index[::-1]) == run.images
    others = [run.index[:1], run.index.assign(pixel_sha256="0"), run.index.assign(image_id="x")]
    assert run.images not in map(data.fingerprint, others)


def test_removed_changed_and_added_images_are_noticed(run):
    os.utime(run.folder / f"{NAME}.png", (0, 0))  # touched, but the same bytes
    assert data.images_changed(run.results) == ""
    write(run.folder, LC, 3)
    assert "not those that 01_eda indexed" in data.images_changed(run.results)
    (run.folder / f"{LC}.png").unlink()
    assert data.images_changed(run.results) == ""
    write(run.folder, NAME, 4)
    with pytest.raises(ValueError, match=r"not those that 01_eda indexed.*run 01_eda again"):
        data.open_run(run.results, "02_patient_split")
    shutil.rmtree(run.folder)
    with pytest.raises(ValueError, match="2 of the 2 images"):
        data.open_run(run.results, "02_patient_split")
    with pytest.raises(FileNotFoundError, match="run 01_eda first"):
        data.open_run(run.results / "other", "02_patient_split")


def test_01_on_other_images_names_what_it_would_invalidate_and_stops(run, tmp_path):
    later = run._replace(notebook="03_baseline_cnn")
    results.save_summary(later, "Why?", "Because.")
    results.save_arrays(later, "models/03_weights.npz", w=np.zeros(3))
    write(tmp_path / "other", NAME, 9)
    index, problems = data.build_index(tmp_path / "other")
    with pytest.raises(ValueError, match="results of other images") as error:
        data.start_run(run.results, "01_eda", tmp_path / "other", index, problems)
    assert "models/03_weights.npz, summaries/03_baseline_cnn.json" in str(error.value)
    assert "RESULTS" in str(error.value)
    assert data.open_run(run.results, "02_patient_split").images == run.images  # nothing touched
    begin(run.folder, run.results)  # the same images again are no fault


def test_01_alone_in_its_folder_may_take_other_images(run, tmp_path):
    write(tmp_path / "other", NAME, 9)
    assert begin(tmp_path / "other", run.results).images != run.images


# The notebook that asks


def test_a_kernel_of_another_clone_is_refused(run, tmp_path, monkeypatch):
    (tmp_path / "clone" / "helpers").mkdir(parents=True)
    (tmp_path / "clone" / "helpers" / "results.py").touch()
    (tmp_path / "clone" / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "clone" / "notebooks")
    calls = [
        lambda: data.find_data(run.folder, None),
        lambda: data.start_run(run.results, "01_eda", run.folder, run.index, pd.DataFrame()),
        lambda: data.open_run(run.results, "02_patient_split"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"works in {tmp_path}/clone, but.*{ROOT}"):
            call()
    monkeypatch.chdir(ROOT / "notebooks")
    assert data.open_run(run.results, "02_patient_split")


CELL = 'RESULTS = "x"  # folder\nN_FOLDS: int = 5\nSIZES = [\n    3,\n]\nassert SIZES == [3]'


@pytest.mark.parametrize(
    ("cells", "unknown"),
    [
        (["import os", CELL, "# Parameters\nRESULTS = 'y'\nN_FOLDS = 3\n"], None),
        (["import os", CELL, "# Parameters\nN_FOLD = 3\nSIZES = [1]\n"], "N_FOLD"),
        ([CELL, "# Parameters\nEPOCHS = 3\n", CELL, "# Parameters\nN_FOLDS = 3\n"], None),
        ([CELL, "N_FOLD = 3"], None),  # typed by hand
    ],
)
def test_parameters_that_a_notebook_lacks_are_refused(run, monkeypatch, cells, unknown):
    shell = SimpleNamespace(user_ns={"In": ["", *cells]})
    monkeypatch.setattr(data, "get_ipython", lambda: shell)
    if not unknown:
        assert data.open_run(run.results, "02_patient_split")
        return
    with pytest.raises(ValueError, match=f"{unknown}. It has RESULTS, N_FOLDS, SIZES"):
        data.open_run(run.results, "02_patient_split")


def test_plain_papermill_stops_at_a_misspelt_parameter(tmp_path):
    v4 = nbformat.v4
    start = "folder = data.find_data(DATA, None)\nprint('reached')"
    cells = [v4.new_code_cell(text) for text in ("from helpers import data", 'DATA = ""', start)]
    cells[1]["metadata"]["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "01.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="DATAA. It has DATA"):
        papermill.execute_notebook(
            tmp_path / "01.ipynb", tmp_path / "out.ipynb", {"DATAA": "/real"},
            cwd=ROOT, progress_bar=False,
        )  # fmt: skip
