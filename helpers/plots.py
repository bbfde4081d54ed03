"""Figures and tables on the page: one style, one colour a model, alt text, caption and badge."""

import base64
import html
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.collections import PathCollection

from helpers.scores import as_text

# Okabe and Ito (2008), Tol (2021): safe for colour-blind readers. A model keeps its colour.
PALETTE = {
    "majority": "#999999", "colour": "#E69F00", "baseline_cnn": "#D55E00", "probe": "#0072B2",
    "probe_views": "#56B4E9", "fine_tuned": "#009E73", "stain_augmented": "#CC79A7",
    "ensemble": "#000000", "probe_chosen": "#332288", "selected": "#661100",
    "test_views": "#6699CC",
}  # fmt: skip
CLASS_COLORS = {"benign": "#0072B2", "malignant": "#D55E00"}
INK, REFERENCE = "#222222", "#666666"
OTHER_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OWN_LOOKS = dict(zip(PALETTE, zip(PALETTE.values(), "Xv^osDPh<>p", strict=True), strict=True))
OTHER_LOOKS = tuple(zip(OTHER_COLORS, "oDs^vPX", strict=True))
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
KEYS = ["task", "protocol", "magnification", "level", "metric", "seed", "n_images", "n_groups"]

_badge = ""  # what the images of the open run are; set by data.start_run and data.open_run


def style() -> None:
    """Set matplotlib's defaults for the series: readable at column width, no chart junk."""
    plt.style.use("default")
    mpl.rcParams.update({
        "figure.figsize": (7.5, 4.2), "figure.dpi": 110, "figure.constrained_layout.use": True,
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4",
        "axes.prop_cycle": mpl.cycler(color=OTHER_COLORS), "legend.frameon": False,
        "svg.hashsalt": "breakhis", "savefig.facecolor": "white",
    })  # fmt: skip


def set_badge(badge: str) -> None:
    """Let every later caption end with ``badge``, the statement of what the images are."""
    global _badge
    _badge = badge


def _with_badge(caption: str, badge: str | None) -> str:
    badge = _badge if badge is None else badge
    if not badge:
        raise RuntimeError("A caption names its images: open the run first, or give badge=...")
    return f"{caption} {badge.removesuffix('.')}."


def look(names) -> dict[str, dict]:
    """Return color, marker and ls (line style) for each of ``names``, as matplotlib's keywords.

    A model has its own look, its variants (``probe_calibrated``) have its colour, and names that
    end in a class ("truly benign") have that of the class. Other names take what is free.

    >>> look(["probe"])["probe"]["color"]
    '#0072B2'
    """
    looks = {name: _own_look(name) for name in dict.fromkeys(map(str, names))}
    taken = {own[0] for own in looks.values() if own}
    free = [pair for pair in OTHER_LOOKS if pair[0] not in taken] or [(INK, "o")]
    for position, name in enumerate([name for name, own in looks.items() if not own]):
        looks[name] = free[position % len(free)]
    return {
        name: {"color": color, "marker": marker, "ls": LINES[position % len(LINES)]}
        for position, (name, (color, marker)) in enumerate(looks.items())
    }


def _own_look(name: str) -> tuple[str, str] | None:
    """Return the colour and marker that belong to a model, its variant or a class; None if none."""
    for model in sorted(PALETTE, key=len, reverse=True):
        if name == model or name.startswith(f"{model}_"):
            return OWN_LOOKS[model]
    for kind, marker in zip(CLASS_COLORS, "os", strict=True):
        if name.split()[-1:] == [kind]:
            return CLASS_COLORS[kind], marker
    return None


def spell(name) -> str:
    """Return a model's or column's name as words: baseline_cnn: baseline CNN; n_images: images."""
    words = str(name).removeprefix("n_").replace("_", " ")
    words = {"groups": "patients", "accession": "patient", "p holm": "adjusted p"}.get(words, words)
    return re.sub(r"\b(auc|cnn|ece)\b", lambda found: found[0].upper(), words)


def show(
    fig, alt: str, caption: str, *, key=False, jpeg=False, tissue=False, badge: str | None = None
) -> None:
    """Display ``fig`` with alt text and a caption that names the data, then close it.

    ``alt`` tells the result to a reader who cannot see it. ``key`` marks the notebook's key figure,
    ``tissue`` a figure that shows images, ``jpeg`` suits photographs; other figures are SVG.
    ``badge`` replaces the open run's where the data are others. RuntimeError without any badge.
    """
    details = {"alt": alt, "caption": _with_badge(caption, badge), "key": key, "tissue": tissue}
    mime, options = "image/jpeg", {"pil_kwargs": {"quality": 82}}
    if not jpeg:
        mime, options = "image/svg+xml", {"metadata": {"Date": None}, "bbox_inches": "tight"}
        fig.set_figwidth(min(fig.get_figwidth(), 6))  # inches; wider is tiny on a phone
    for points in fig.findobj(PathCollection):  # thousands of points would make a page heavy
        points.set_rasterized(len(points.get_offsets()) > 1000)
    fig.savefig(buffer := io.BytesIO(), format=mime[6:].partition("+")[0], dpi=160, **options)
    plt.close(fig)
    raw = buffer.getvalue()
    content = {mime: base64.b64encode(raw).decode() if jpeg else raw.decode(), "text/plain": alt}
    display(content, raw=True, metadata={mime: details})


def table(frame: pd.DataFrame, caption: str, *, digits: int = 2, badge: str | None = None) -> None:
    """Display ``frame`` as an HTML table with a caption that names the data, without its index.

    Numbers have ``digits`` decimals, a value its interval beside it; addresses are links. What KEYS
    say alike in all rows stands in the caption.
    """
    if {"value", "ci_low", "ci_high"} <= set(frame):
        words = [as_text(row, digits) for _, row in frame.iterrows()]
        frame = frame.assign(value=words).drop(columns=["ci_low", "ci_high"])
    for key in frame.columns.intersection(KEYS):
        if len(frame) > 1 and frame[key].eq(frame[key].iloc[0]).all():
            caption = f"{caption} {spell(key).capitalize()}: {spell(frame[key].iloc[0])}."
            frame = frame.drop(columns=key)
    written = {"model": spell, **dict.fromkeys(["p", "p_holm"], _p)}
    for key in frame.columns.intersection(list(written)):
        frame = frame.assign(**{key: frame[key].map(written[key])})
    words = frame.rename(columns=spell).rename_axis(columns=None)
    how = {"index": False, "border": 0, "na_rep": "–", "render_links": True}
    body = words.to_html(float_format=f"{{:z.{digits}f}}".format, **how)
    head = f"<caption>{html.escape(_with_badge(caption, badge))}</caption>"
    display(HTML(f'<div class="table-scroll">{body.replace("<thead>", head + "<thead>", 1)}</div>'))


def _p(p: float) -> str:
    return "> 0.99" if p > 0.99 else f"{p:.3f}"


def text(markdown: str) -> None:
    """Display Markdown rendered by code: findings whose numbers come from the tables."""
    display(Markdown(markdown))
