"""Figures and tables: what they say, that marks can be told apart, that nothing is lost."""

import base64
import io
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from helpers import figures, plots

mpl.use("Agg")


@pytest.fixture(autouse=True)
def style():
    plots.style()
    plots.set_badge("Phantom: 3 synthetic images")
    yield
    plots.set_badge("")
    mpl.pyplot.close("all")


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: a list of (content, metadata)."""
    seen = []
    monkeypatch.setattr(plots, "display", lambda content, **k: seen.append((content, k)))
    return seen


def words(fig) -> list[str]:
    """All visible text of a figure."""
    fig.canvas.draw()
    return [t.get_text() for t in fig.findobj(mpl.text.Text) if t.get_visible() and t.get_text()]


def test_a_figure_carries_alt_text_caption_and_badge(shown):
    fig, ax = mpl.pyplot.subplots()
    plots.show(fig, "A line", "Seen.", key=True)
    content, options = shown[-1]
    assert options["metadata"]["image/svg+xml"] == {
        "alt": "A line", "caption": "Seen. Phantom: 3 synthetic images.", "key": True,
        "tissue": False,
    }  # fmt: skip
    drawn = content["image/svg+xml"]
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert not mpl.pyplot.get_fignums()
    fig, ax = mpl.pyplot.subplots()  # the same figure again is the same file
    plots.show(fig, "A line", "Seen.")
    assert shown[-1][0]["image/svg+xml"] == drawn


def test_thousands_of_points_do_not_make_a_heavy_page(shown):
    for many in (100, 5000):
        fig, ax = mpl.pyplot.subplots()
        ax.scatter(*np.random.default_rng(0).random((2, many)))
        plots.show(fig, "Points", "Seen.")
        drawn = shown[-1][0]["image/svg+xml"]
        assert ("<image" in drawn) == (many > 1000)
        assert len(drawn) < 400_000


def test_sheets_are_jpeg_and_marked_as_tissue(shown):
    fig = figures.sheet(np.zeros((2, 20, 30, 3), "uint8"), ["a", "b"])
    plots.show(fig, "Sheet", "Two.", jpeg=True, tissue=True)
    content, options = shown[-1]
    Image.open(io.BytesIO(base64.b64decode(content["image/jpeg"]))).verify()
    assert options["metadata"]["image/jpeg"]["tissue"] is True


def test_a_badge_of_its_own_replaces_the_runs(shown):
    plots.table(pd.DataFrame({"n": [1]}), "Drawn.", badge="Simulation, no images")
    assert "<caption>Drawn. Simulation, no images.</caption>" in shown[-1][0].data


def test_nothing_is_shown_without_a_badge(shown):
    plots.set_badge("")
    with pytest.raises(RuntimeError, match="open the run first"):
        plots.table(pd.DataFrame({"n": [1]}), "Made.")
    with pytest.raises(RuntimeError, match="open the run first"):
        plots.show(mpl.pyplot.figure(), "A line", "Seen.")
    assert not shown


def test_a_table_escapes_its_caption_and_shows_a_gap_as_a_dash(shown):
    frame = pd.DataFrame({"auc_low": [0.126, np.nan, -0.001], "n": [1, 2, 3]})
    plots.table(frame, "AUC < 1.")
    text = shown[-1][0].data
    assert "<caption>AUC &lt; 1. Phantom: 3 synthetic images.</caption>" in text
    assert "<th>AUC low</th>" in text
    assert "<td>0.13</td>" in text
    assert "<td>–</td>" in text
    assert "-0.00" not in text
    assert "<td>3</td>" in text


def test_a_value_stands_with_its_interval_and_what_is_alike_in_the_caption(shown):
    frame = pd.DataFrame(
        {"level": ["accession"] * 2, "model": ["a", "b"], "value": [0.71, 0.5],
         "ci_low": [0.6, np.nan], "ci_high": [0.8, np.nan], "n_images": [4, 5]}
    )  # fmt: skip
    plots.table(frame, "Scores.")
    text = shown[-1][0].data
    assert "<caption>Scores. Level: patient. Phantom" in text
    assert "<th>level</th>" not in text
    assert "ci" not in text.split("<thead>")[1]
    assert "<td>0.71 (0.60 to 0.80)</td>" in text
    assert "<td>0.50</td>" in text
    assert "<th>images</th>" in text
    plots.table(frame.iloc[:0], "None.")


def test_models_differ_in_shape_where_prints_in_grey_lose_the_colour():
    looks = plots.look(plots.PALETTE)
    assert len({one["marker"] for one in looks.values()}) == len(plots.PALETTE)
    assert len({one["color"] for one in looks.values()}) == len(plots.PALETTE)
    white = np.array([0.2126, 0.7152, 0.0722])
    assert all(white @ to_rgb(one["color"]) < 0.7 for one in looks.values())  # seen on white


def test_colors_stay_apart_for_red_green_blind_readers():
    deuteranopia = np.array([  # Machado et al. 2009, severity 1, for linear RGB
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ])  # fmt: skip
    for pair in [("baseline_cnn", "fine_tuned"), ("probe", "fine_tuned"), ("colour", "probe")]:
        linear = [np.array(to_rgb(plots.PALETTE[name])) ** 2.2 for name in pair]
        first, second = (np.clip(deuteranopia @ rgb, 0, 1) ** (1 / 2.2) for rgb in linear)
        assert np.abs(first - second).max() > 0.2, pair
    first, second = (np.array(to_rgb(color)) ** 2.2 for color in plots.CLASS_COLORS.values())
    assert np.abs(deuteranopia @ (first - second)).max() > 0.3


def test_a_variant_has_its_models_color_and_a_class_has_its_own():
    looks = plots.look(["probe_calibrated", "probe_views", "truly benign", "fused", "stacked"])
    assert looks["probe_calibrated"]["color"] == plots.PALETTE["probe"]
    assert looks["probe_views"]["color"] == plots.PALETTE["probe_views"]
    assert looks["truly benign"]["color"] == plots.CLASS_COLORS["benign"]
    others = {looks["fused"]["color"], looks["stacked"]["color"]}
    assert len(others) == 2
    assert not others & {plots.PALETTE["probe"], plots.PALETTE["probe_views"]}


def test_more_names_than_colors_still_get_a_look():
    assert len(plots.look([f"model {i}" for i in range(20)])) == 20


ROWS = pd.DataFrame([
    {"model": model, "level": level, "protocol": protocol, "value": value, "ci_low": value - 0.1,
     "ci_high": value + 0.05}
    for protocol in ("accession", "image (leaky)")
    for model, value in {"colour": 0.6, "probe": 0.8}.items()
    for level in ("image", "accession")
])  # fmt: skip


def test_intervals_print_their_numbers_and_names():
    text = words(figures.intervals(ROWS, marks="level", panels="protocol", reference=0.5))
    assert text.count("0.80 (0.70 to 0.85)") == 4
    assert {"patient", "image (leaky)", "colour", "probe", "AUC (95% interval)"} <= set(text)


def test_a_missing_interval_has_no_whisker_and_no_number():
    row = ROWS.iloc[:1].assign(ci_low=np.nan, ci_high=np.nan)
    text = words(figures.intervals(row))
    assert "0.60" in text
    assert not [word for word in text if "nan" in word]


def test_a_small_negative_difference_is_no_minus_zero():
    row = ROWS.iloc[:1].assign(value=-0.001, ci_low=-0.2, ci_high=0.1)
    assert "0.00 (\N{MINUS SIGN}0.20 to 0.10)" in words(figures.intervals(row))


def test_intervals_of_nothing_say_so():
    fig = figures.intervals(pd.DataFrame(columns=["model", "value", "ci_low", "ci_high"]))
    assert "No score is defined" in fig.axes[0].texts[0].get_text()


def test_a_heat_map_writes_its_text_and_says_what_was_not_studied():
    value = pd.DataFrame([[0.9, np.nan]], index=["40X"], columns=["40X", "100X"])
    names = {"xlabel": "tested at", "ylabel": "trained at", "label": "AUC"}
    assert {"0.90", "not\nstudied", "AUC"} <= set(words(figures.heat_map(value, **names)))
    text = pd.DataFrame([["0.90\n0.80 to 0.95", ""]])
    assert "0.90\n0.80 to 0.95" in words(figures.heat_map(value, text, **names))


def test_an_empty_sheet_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        figures.sheet([], [])


def test_curves_are_drawn_from_one_point_and_band_what_has_an_interval():
    risk = pd.DataFrame({"model": ["probe", "colour"], "coverage": 1.0, "risk": [0.2, 0.3],
                         "ci_low": [0.1, np.nan], "ci_high": [0.3, np.nan]})  # fmt: skip
    fig = figures.curves(risk, "coverage", "risk", xlabel="share decided", ylabel="error rate")
    assert {"probe", "colour", "share decided", "error rate"} <= set(words(fig))
