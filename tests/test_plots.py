"""Figures and tables: what they say, that marks can be told apart, that nothing is lost."""

import base64
import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from helpers import charts, decision_charts, matrix_charts, plots

mpl.use("Agg")


@pytest.fixture(autouse=True)
def style():
    plots.style()
    yield
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
    plots.show(fig, alt="A line", caption="Seen.", badge="Phantom: 3 synthetic images", key=True)
    (content, options), *_ = [item for item in shown if isinstance(item[0], dict)]
    details = options["metadata"]["image/png"]
    assert details["alt"] == "A line"
    assert details["caption"] == "Seen. Phantom: 3 synthetic images."
    assert details["key"] is True
    Image.open(io.BytesIO(base64.b64decode(content["image/png"]))).verify()
    assert not mpl.pyplot.get_fignums()


def test_sheets_are_jpeg(shown):
    fig = charts.image_sheet(np.zeros((2, 20, 30, 3), "uint8"), ["a", "b"])
    plots.show(fig, alt="Sheet", caption="Two.", badge="Badge", jpeg=True)
    assert any("image/jpeg" in content for content, _ in shown if isinstance(content, dict))


def test_a_table_escapes_its_caption_and_shows_a_gap_as_a_dash(shown):
    plots.table(pd.DataFrame({"auc_low": [0.12345, np.nan]}), "AUC < 1.", "Badge")
    text = shown[-1][0].data
    assert "<caption>AUC &lt; 1. Badge.</caption>" in text
    assert "<th>auc low</th>" in text
    assert "0.123" in text
    assert "–" in text


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
    text = words(charts.interval_plot(ROWS, marks="level", panels="protocol", reference=0.5))
    assert text.count("0.80 (0.70 to 0.85)") == 4
    assert {"accession", "image (leaky)", "colour", "probe", "AUC (95% interval)"} <= set(text)


def test_a_missing_interval_has_no_whisker_and_no_number():
    row = ROWS.iloc[:1].assign(ci_low=np.nan, ci_high=np.nan)
    text = words(charts.interval_plot(row))
    assert "0.60" in text
    assert not [word for word in text if "nan" in word.replace("malignant", "")]


def test_intervals_of_nothing_say_so():
    fig = charts.interval_plot(pd.DataFrame(columns=["model", "value", "ci_low", "ci_high"]))
    assert "No score is defined" in fig.axes[0].texts[0].get_text()


def test_confusion_shows_counts_and_shares_and_leaves_an_empty_class_blank():
    text = words(matrix_charts.confusion(np.array([[3, 1], [0, 0]]), ["benign", "malignant"]))
    assert {"3\n75%", "1\n25%", "benign (n=4)", "malignant (n=0)"} <= set(text)
    assert not [word for word in text if "nan" in word.replace("malignant", "")]


def test_a_heat_map_writes_intervals_and_says_what_was_not_studied():
    value = pd.DataFrame([[0.9, np.nan]], index=["40X"], columns=["40X", "100X"])
    fig = matrix_charts.heat_map(
        value, value - 0.1, value + 0.05, xlabel="x", ylabel="y", label="AUC"
    )
    assert {"0.90\n0.80 to 0.95", "not\nstudied"} <= set(words(fig))


def test_an_empty_sheet_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        charts.image_sheet([], [])


def test_curves_can_be_drawn_from_one_point():
    risk = pd.DataFrame({"coverage": [1.0], "risk": [0.2], "ci_low": [0.1], "ci_high": [0.3]})
    fig = decision_charts.risk_coverage_plot({"patients": risk}, targets=(0.05, 0.1))
    assert words(fig).count("error rates asked for") == 1
    net = pd.DataFrame({"threshold": [0.1, 0.9], "net_benefit": [0.5, 0.1], "treat_all": [0.5, -9]})
    fig = decision_charts.decision_plot({"probe": net})
    assert fig.axes[0].get_ylim()[0] > -0.2  # the far negative part is cut
    assert {"probe", "refer all", "refer none"} <= set(words(fig))


def test_reliability_has_a_panel_a_model_with_its_counts():
    bins = pd.DataFrame({"low": [0.0, 0.5], "high": [0.5, 1.0], "n": [3, 9],
                         "mean_p": [0.2, 0.8], "share": [0.3, 0.7], "ci_low": [0, 0.5],
                         "ci_high": [0.6, 0.9]})  # fmt: skip
    fig = decision_charts.reliability_plot({"probe": bins, "probe_calibrated": bins})
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == ["probe", "probe calibrated"]
    assert [bar.get_height() for bar in fig.axes[2].patches] == [3, 9]


def test_patients_are_drawn_in_the_order_given():
    patients = pd.DataFrame({"accession": ["7", "5"], "tumor_class": ["malignant", "benign"],
                             "tumor_type": ["DC", "A"], "p_malignant": [0.1, 0.6]})  # fmt: skip
    images = pd.DataFrame({"accession": ["7", "7", "6"], "p_malignant": [0.0, 0.2, 0.5]})
    ax = decision_charts.patient_plot(patients, images).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["7 (DC)", "5 (A)"]
    ticks = next(line for line in ax.lines if line.get_marker() == "|")
    np.testing.assert_array_equal(ticks.get_xydata(), [[0, 0], [0.2, 0]])
