"""Image statistics against values worked out by hand, and the tables of notebook 01."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.counts import compare
from helpers.studies import overview, quality


def table_of(n, **columns):
    base = {"image_id": [f"i{k}" for k in range(n)], "slide": "S", "accession": "a",
            "tumor_class": "benign", "magnification": 40}  # fmt: skip
    return pd.DataFrame(base | columns, index=range(n))


def test_optical_density_of_plain_pictures():
    images = np.full((2, 8, 8, 3), 255, np.uint8)
    images[1] = [127, 63, 31]  # (value + 1) / 256 = 1/2, 1/4, 1/8
    found = quality.image_statistics(images, table_of(2))
    density = found[["od_red", "od_green", "od_blue"]].to_numpy()
    assert np.allclose(density[0], 0)
    assert np.allclose(density[1], np.log10([2, 4, 8]), atol=1e-6)
    assert found["background"].tolist() == [1, 0]
    assert found["brightness"][0] == pytest.approx(255)
    assert found["focus"].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_background_is_judged_by_the_slides_own_white():
    images = np.full((2, 10, 10, 3), 200, np.uint8)  # grey glass, not 255
    images[1, :, :6] = [150, 90, 150]
    found = quality.image_statistics(images, table_of(2))
    assert found["background"].tolist() == pytest.approx([1, 0.4])


def test_laplacian_of_a_single_dot():
    grey = np.zeros((5, 5))
    grey[2, 2] = 9  # inner 3 by 3: -36 in the centre, 9 at four sides, 0 at four corners
    assert quality.laplacian_variance(grey) == pytest.approx((36**2 + 4 * 81) / 9)


def test_blur_lowers_the_focus():
    sharp = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(float)
    blurred = (sharp[:-1] + sharp[1:]) / 2
    assert quality.laplacian_variance(blurred) < quality.laplacian_variance(sharp) / 2


def test_unmixing_gives_back_the_amounts():
    stains = quality.STAINS / np.linalg.norm(quality.STAINS, axis=1, keepdims=True)
    amounts = np.array([[0.5, 0.0], [0.0, 0.3], [0.2, 0.7]])
    assert np.allclose(quality.unmix(amounts @ stains), amounts)


def test_variance_parts_by_hand():
    # Class means -1 and 1, accessions +-2 around them, slides +-3, images +-1: squares 1, 4, 9, 1.
    rows = [
        (c - 0.0 + 2 * a + 3 * s + e, c, f"{c}{a}", f"{c}{a}{s}")
        for c in (-1, 1) for a in (-1, 1) for s in (-1, 1) for e in (-1, 1)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["value", "tumor_class", "accession", "slide"])
    parts = quality.variance_parts(table["value"].to_numpy(), table.assign(magnification=40))
    names = ["between classes", "between accessions", "between slides", "within slides"]
    assert [parts[name] for name in names] == pytest.approx([1 / 15, 4 / 15, 9 / 15, 1 / 15])
    assert parts["accessions by chance"] == pytest.approx(2 / 15)


def test_magnification_is_taken_out_of_the_variance():
    table = table_of(
        4, accession=["a", "b"] * 2, slide=["A", "B"] * 2, magnification=[40, 40, 100, 100]
    )
    parts = quality.variance_parts(np.array([0.0, 1.0, 500.0, 501.0]), table)
    assert parts["between accessions"] == pytest.approx(1)


def test_counts_are_marked_where_they_differ():
    index = pd.DataFrame({"slide": ["A-14-22549AB"] * 29, "magnification": 40})
    grid = overview.count_grid(compare(index)).set_index("type")
    assert grid.loc["adenosis (A)", "40X"] == "29 of 114 (-85)"
    assert grid.loc["all types", "all"] == "29 of 7,909 (-7,880)"
    assert overview._cell(7, 7) == "7"


def test_missing_slides_are_told_from_partial_ones():
    index = pd.DataFrame({"slide": ["A-14-22549AB"] * 59, "magnification": [40] * 29 + [100] * 30})
    table, absent = overview.missing_grid(compare(index))
    assert table.to_dict("records") == [
        {"slide": "A-14-22549AB", "40X": "–", "100X": "–", "200X": "0 of 32", "400X": "0 of 30"}
    ]
    assert len(absent) == 81


def test_published_counts_agree_with_themselves():
    counts = compare(pd.DataFrame({"slide": [], "magnification": []}))
    whole = overview.count_grid(counts.assign(found=counts["published"])).set_index("type")
    assert whole.loc["all types"].tolist() == ["1,995", "2,081", "2,013", "1,820", "7,909"]
    assert whole.loc["ductal carcinoma (DC)"].tolist() == ["864", "903", "896", "788", "3,451"]


def test_sister_slides():
    slides = pd.DataFrame({"accession": ["a", "a", "b"], "haematoxylin": [0.0, 3.0, 0.0],
                           "eosin": [0.0, 4.0, 12.0]})  # fmt: skip
    near, far = overview.sister_distance(slides)
    assert (near, far) == pytest.approx((5, np.sqrt(9 + 64)))
    assert np.isnan(overview.sister_distance(slides.assign(accession=list("abc")))[0])
