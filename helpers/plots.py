"""Figures and tables: one style, one colour a model, alt text and a caption for each figure."""

import base64
import html
import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Markdown, display

# Okabe and Ito (2008), then Tol (2021): safe for colour-blind readers. One model has one colour in
# all notebooks.
PALETTE = {
    "majority": "#999999",
    "colour": "#E69F00",
    "baseline_cnn": "#D55E00",
    "probe": "#0072B2",
    "probe_views": "#56B4E9",
    "fine_tuned": "#009E73",
    "stain_augmented": "#CC79A7",
    "ensemble": "#000000",
    "probe_chosen": "#332288",
    "stain_normalised": "#882255",
    "balanced": "#999933",
    "selected": "#661100",
    "probe_crops": "#44AA99",
    "stain_chosen": "#AA4499",
    "test_views": "#6699CC",
}
CLASS_COLORS = {"benign": "#0072B2", "malignant": "#D55E00"}
INK, REFERENCE = "#222222", "#666666"
SHAPES = dict(zip(PALETTE, "Xv^osDPh<>p*d8H", strict=True))
OTHER_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OTHER_SHAPES = "oDs^vPX"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))


def style() -> None:
    """Set matplotlib's defaults for the series: readable at column width, no chart junk."""
    plt.style.use("default")
    mpl.rcParams.update({
        "figure.figsize": (7.5, 4.2), "figure.dpi": 110, "figure.constrained_layout.use": True,
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4",
        "axes.prop_cycle": mpl.cycler(color=OTHER_COLORS),
        "legend.frameon": False, "savefig.facecolor": "white",
    })  # fmt: skip


def look(names) -> dict[str, dict]:
    """Return colour, marker and line style for each of ``names``.

    A model has its own look, its variants (``probe_calibrated``) have its colour, and names that
    end in a class ("truly benign") have that of the class. Other names take what is free.

    >>> look(["probe"])["probe"]["color"]
    '#0072B2'
    """
    names = list(dict.fromkeys(map(str, names)))
    own = {name: _own_look(name) for name in names}
    taken = {given[0] for given in own.values() if given}
    free = [pair for pair in zip(OTHER_COLORS, OTHER_SHAPES, strict=True) if pair[0] not in taken]
    unnamed = [name for name in names if own[name] is None]
    for position, name in enumerate(unnamed):
        own[name] = free[position % len(free)] if free else (INK, "o")
    return {
        name: {"color": own[name][0], "marker": own[name][1], "ls": LINES[position % len(LINES)]}
        for position, name in enumerate(names)
    }


def _own_look(name: str) -> tuple[str, str] | None:
    """Return the colour and marker that belong to a model, its variant or a class; None if none."""
    for model in sorted(PALETTE, key=len, reverse=True):
        if name == model or name.startswith(f"{model}_"):
            return PALETTE[model], SHAPES[model]
    for kind, marker in zip(CLASS_COLORS, "os", strict=True):
        if name.split()[-1:] == [kind]:
            return CLASS_COLORS[kind], marker
    return None


def spell(name) -> str:
    """Return a model's or column's name as words: ``baseline_cnn`` is "baseline cnn"."""
    return str(name).replace("_", " ")


def legend_below(fig, ax, columns: int = 4) -> None:
    """Put the legend of ``ax`` under the figure, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def show(fig, alt: str, caption: str, badge: str, *, key: bool = False, jpeg: bool = False) -> None:
    """Display ``fig`` with alt text and a caption that names the data, then close it.

    ``alt`` says what a reader who cannot see the figure should know. ``badge`` is the statement of
    the data (phantom, sample or whole database). ``key`` marks the notebook's key figure, shown on
    the index page. ``jpeg`` suits sheets of photographs.
    """
    kind = "jpeg" if jpeg else "png"
    buffer = io.BytesIO()
    options = {"pil_kwargs": {"quality": 82}} if jpeg else {}
    fig.savefig(buffer, format=kind, **options)
    plt.close(fig)
    mime = f"image/{kind}"
    content = {mime: base64.b64encode(buffer.getvalue()).decode(), "text/plain": alt}
    details = {"alt": alt, "caption": f"{caption} {badge}.", "key": key}
    display(content, raw=True, metadata={mime: details})


def table(frame: pd.DataFrame, caption: str, badge: str, *, digits: int = 3) -> None:
    """Display ``frame`` as an HTML table with a caption that names the data.

    Numbers have ``digits`` decimals; missing values show as a dash, underscores in heads as spaces.
    """
    body = (
        frame.rename(columns=spell)
        .rename_axis(columns=None)
        .to_html(
            index=False, border=0, na_rep="–", float_format=lambda value: f"{value:.{digits}f}"
        )
    )
    head = f"<caption>{html.escape(f'{caption} {badge}.')}</caption>"
    body = body.replace("<thead>", head + "<thead>", 1)
    display(HTML(f'<div class="table-scroll">{body}</div>'))


def text(markdown: str) -> None:
    """Display Markdown rendered by code: findings whose numbers come from the tables."""
    display(Markdown(markdown))
