"""The phantom: layout, determinism, zoom, true nuclei, and what its two strengths do."""

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

import phantom
from phantom import tissue, tissue_stain

SMALL = {"images_per_slide": 1, "size": (64, 96), "magnifications": [40, 400]}
SLIDES = pd.read_csv(phantom.ROOT / "data" / "slides.csv", dtype=str)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return phantom.make_phantom(tmp_path_factory.mktemp("phantom") / "p", **SMALL, workers=2)


def digests(folder):
    files = sorted(folder.rglob("*.png"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def patient(**changes):
    """A patient without any trait of its own."""
    average = tissue_stain.draw_patient(np.random.default_rng(0))
    numbers = {name: 0 * value for name, value in average._asdict().items() if name != "kind"}
    return average._replace(**numbers | {"typical": 0.5, "kind": "A"} | changes)


def draw(kind, magnification, size=(115, 175), seed=0, who=None, signal=1.0, signature=0.0):
    who = patient() if who is None else who
    rng = np.random.default_rng(seed)
    return tissue.draw_image(kind, magnification, size, who, rng, signal, signature)


def test_layout_is_the_official_one_with_all_slides(made):
    grammar = re.compile(r"SOB_[BM]_(A|F|PT|TA|DC|LC|MC|PC)-\d\d-\w+-(40|400)-001\.png")
    files = sorted(made.rglob("*.png"))
    assert len(files) == 82 * 2
    assert all(grammar.fullmatch(f.name) for f in files)
    slides = {f.name.split("_", 2)[2].rsplit("-", 2)[0] for f in files}
    assert slides == set(SLIDES["slide"])
    below = "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X"
    assert (made / below / "SOB_B_A-14-22549AB-40-001.png").is_file()
    assert Image.open(files[0]).size == (96, 64)


def test_same_bytes_whatever_the_number_of_processes(made, tmp_path):
    again = phantom.make_phantom(tmp_path / "q", **SMALL, workers=1)
    assert digests(again) == digests(made)


def test_all_images_differ_also_those_of_the_accession_filed_twice(made):
    found = digests(made)
    assert len(set(found.values())) == len(found)


def test_another_seed_is_another_phantom():
    first, second = (
        phantom._stream(seed, "image", "SOB_B_A-14-22549AB-40-001").random(4) for seed in (0, 1)
    )
    assert not np.allclose(first, second)


def test_done_again_only_if_the_parameters_differ(tmp_path):
    small = SMALL | {"magnifications": [400]}
    folder = phantom.make_phantom(tmp_path / "p", **small)
    stamp = (folder / "phantom.json").stat().st_mtime_ns
    before = digests(folder)
    phantom.make_phantom(folder, **small)
    assert (folder / "phantom.json").stat().st_mtime_ns == stamp
    phantom.make_phantom(folder, **small, seed=1)
    assert json.loads((folder / "phantom.json").read_text())["seed"] == 1
    assert not set(digests(folder).values()) & set(before.values())


def test_a_failure_leaves_the_old_phantom_and_no_rubbish(made, monkeypatch):
    before = digests(made)
    monkeypatch.setattr(phantom, "_draw_all", _half_drawn)
    with pytest.raises(KeyboardInterrupt):
        phantom.make_phantom(made, **SMALL, seed=7)
    assert digests(made) == before
    assert not [f for f in made.parent.iterdir() if f.name.endswith(".partial")]


def _half_drawn(folder, parameters, workers):
    folder.mkdir()
    (folder / "a.png").write_bytes(b"half")
    raise KeyboardInterrupt


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="no phantom"):
        phantom.make_phantom(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"images_per_slide": 0}, "1 to 999"),
        ({"size": (230,)}, "height"),
        ({"signal": 1.5}, "0 to 1"),
        ({"signature": -0.1}, "0 to 1"),
    ],
)
def test_wrong_parameters_name_what_is_allowed(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        phantom.make_phantom(tmp_path / "p", **wrong)
    assert not (tmp_path / "p").exists()


def test_folder_is_a_function_of_the_parameters():
    assert phantom.phantom_folder() == phantom.phantom_folder(images_per_slide=3, seed=0)
    assert phantom.phantom_folder(seed=1) != phantom.phantom_folder()
    assert phantom.phantom_folder(size=[230, 350]) == phantom.phantom_folder(size=(230, 350))


def test_true_nuclei_are_the_dark_blue_ones(made):
    darker = 0
    files = sorted(made.rglob("*-400-001.png"))[::8]
    for file in files:
        mask = phantom.nuclei_mask(made, file.stem)
        assert mask.shape == (64, 96)
        assert mask.dtype == bool
        red = np.asarray(Image.open(file))[..., 0].astype(float)
        darker += mask.any() and red[mask].mean() < red[~mask].mean() - 10
    assert darker >= 0.9 * len(files)


def test_masks_are_refused_for_what_is_no_phantom(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="no phantom"):
        phantom.nuclei_mask(tmp_path, "SOB_B_A-14-22549AB-40-001")
    with pytest.raises(ValueError, match="not an image"):
        phantom.nuclei_mask(made, "SOB_B_A-14-22549AB-40-999")


@pytest.mark.parametrize(
    ("signal", "least", "most"), [(0.0, 0.5, 0.5), (0.9, 0.93, 0.995), (1, 1, 1)]
)
def test_the_oracle_is_as_good_as_the_signal_allows(tmp_path, signal, least, most):
    given = phantom._parameters(1, (64, 96), 0, signal, 1.0, [40])
    (tmp_path / "phantom.json").write_text(json.dumps(given))
    told = phantom.oracle(tmp_path)
    facts = [
        (name.split("-")[-4] + name.split("-")[-3], name[4] == "M", p) for name, p in told.items()
    ]
    patients = pd.DataFrame(facts, columns=["patient", "malignant", "p"]).groupby("patient").mean()
    assert told.between(0, 1).all()
    assert least <= roc_auc_score(patients["malignant"], patients["p"]) <= most


def test_the_oracle_is_asked_of_a_phantom_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="no phantom"):
        phantom.oracle(tmp_path)


def test_some_fields_show_other_tissue_than_that_of_their_patient(monkeypatch):
    given, seen = {"seed": 0, "size": (32, 48), "signal": 1.0, "signature": 1.0}, []

    def draw_image(kind, magnification, size, patient, *_):
        seen.append(patient.typical)
        return None, None

    monkeypatch.setattr(tissue, "draw_image", draw_image)
    for number in range(400):
        phantom._draw(phantom.Picture(f"{number}", "", "F", "14-9133", 40), given)
    assert np.mean(np.array(seen) < 1) == pytest.approx(phantom.FIELDS, abs=0.06)


def test_higher_magnification_zooms_in():
    """A nucleus covers some hundred times as many px at 400X as at 40X, and fewer are seen."""
    few, many = (_nuclei_of(draw("DC", m, seed=3)[1]) for m in (400, 40))
    assert np.median(few) > 15 * np.median(many)
    assert len(many) > 3 * len(few)


def _nuclei_of(mask):
    parts, n = label(mask)
    return np.bincount(parts.ravel())[1 : n + 1]


def test_without_signal_the_label_changes_nothing():
    atypical = patient(kind="MC", typical=0.0)
    images = [draw(kind, 100, who=atypical, signal=0.0)[0] for kind in tissue_stain.TYPES]
    assert all(np.array_equal(images[0], image) for image in images)


def test_with_signal_the_label_changes_the_picture():
    benign, malignant = (draw(kind, 100, signal=1.0)[0] for kind in ("TA", "DC"))
    assert not np.array_equal(benign, malignant)


def test_malignant_nuclei_are_larger_and_more_varied():
    areas = {}
    for kind in ("TA", "DC"):
        masks = [draw(kind, 400, size=(230, 350), seed=seed)[1] for seed in range(4)]
        areas[kind] = np.concatenate([_nuclei_of(mask) for mask in masks])
    assert np.median(areas["DC"]) > 1.3 * np.median(areas["TA"])
    spread = {kind: np.subtract(*np.percentile(a, [75, 25])) for kind, a in areas.items()}
    assert spread["DC"] > 1.3 * spread["TA"]


def test_signature_changes_the_stain_and_nothing_else():
    """The same tissue in the stains of two accessions: equal nuclei, other colours."""
    red, blue = (
        patient(eosin=np.array([z, 0, -z]), strength=np.array([z, -z]), background=z * np.ones(3))
        for z in (-1.5, 1.5)
    )
    first, nuclei = draw("F", 100, who=red, signature=1.0)
    second, same = draw("F", 100, who=blue, signature=1.0)
    assert np.array_equal(nuclei, same)
    assert np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))).max() > 5
    assert np.array_equal(draw("F", 100, who=red)[0], draw("F", 100, who=blue)[0])


def test_sister_slides_share_a_signature_whatever_their_type():
    """Accession 14-13412 is filed under two types; the patient follows from the accession."""
    rows = SLIDES[SLIDES["accession"] == "14-13412"]
    assert set(rows["tumor_type"]) == {"DC", "LC"}
    draws = [phantom._patient(0, name) for name in rows.accession]
    assert str(draws[0]) == str(draws[1])


@pytest.mark.parametrize("kind", tissue_stain.TYPES)
@pytest.mark.parametrize("magnification", [40, 100, 200, 400])
def test_every_type_looks_like_a_stained_section(kind, magnification):
    """Pink to purple (green is the darkest channel), neither empty nor black."""
    image = draw(kind, magnification, who=patient(kind=kind))[0].astype(float)
    red, green, blue = image.mean(axis=(0, 1))
    assert green < min(red, blue)
    assert 90 < image.mean() < 245
    assert image.std() > 10
