"""Notebook 01 on a folder with next to nothing in it: a page, or one sentence on what to do."""

import shutil
from pathlib import Path

import nbformat
import papermill
import pytest

import phantom

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_eda.ipynb"
ONE_PATIENT = "SOB_B_A-14-22549*"  # three slides


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    parameters = {"images_per_slide": 1, "size": (64, 96), "magnifications": [40]}
    return phantom.make_phantom(tmp_path_factory.mktemp("few") / "p", **parameters)


def run(drawn, names, place):
    """Run 01 on the images of `drawn` that fit `names`; the notebook that it leaves."""
    (place / "some").mkdir()
    shutil.copy(drawn / "phantom.json", place / "some")
    for file in (file for name in names for file in drawn.rglob(f"{name}.png")):
        shutil.copy(file, place / "some")
    given = {"DATA": str(place / "some"), "RESULTS": str(place / "results"), "N_BOOT": 50}
    given |= {"IMAGE_SIZE": [64, 96]}
    out = place / "01.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, given, progress_bar=False, cwd=NOTEBOOK.parent)
    return nbformat.read(out, 4)


@pytest.mark.parametrize("names", [["SOB_B_A-14-22549AB-40-001"], [ONE_PATIENT]])
def test_one_patient_alone_is_refused_with_what_to_do(drawn, names, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as refused:
        run(drawn, names, tmp_path)
    assert "of one patient" in refused.value.evalue
    assert "Add images of other patients" in refused.value.evalue
    assert not (tmp_path / "results").exists()


def test_two_slides_of_one_class_give_a_page_that_says_what_cannot_be_studied(drawn, tmp_path):
    names = ["SOB_B_A-14-22549AB-40-001", "SOB_B_F-14-9133-40-001"]
    outputs = [o for cell in run(drawn, names, tmp_path).cells for o in cell.get("outputs", [])]
    streams = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not any("Warning" in text for text in streams), streams
    said = "\n".join(o.data.get("text/markdown", "") for o in outputs if "data" in o)
    for words in (
        "the classes cannot be compared",
        "No patient has two slides",
        "Too few patients",
    ):
        assert words in said
    assert "nan" not in said
