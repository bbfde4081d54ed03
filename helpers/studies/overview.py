"""Tables and figures of notebook 01: counts, quality, stain, and where the variance lies."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.charts import image_sheet, legend_below, spell
from helpers.data.names import MAGNIFICATIONS, TUMOR_TYPES, TYPE_NAMES
from helpers.plots import CLASS_COLORS

QUANTITIES = {
    "focus": "focus (log scale)",
    "brightness": "brightness, 0 to 255",
    "background": "background, share of pixels",
}
PARTS = {  # colour and hatch of a part of the variance
    "between classes": ("#D55E00", "//"),
    "between accessions": ("#0072B2", ""),
    "between slides": ("#56B4E9", "\\\\"),
    "within slides": ("#BBBBBB", "."),
}


def count_grid(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the 8 by 4 table of image counts from ``counts.compare``, with its sums, as text.

    A cell that differs from the published count reads "found of published (difference)".
    """
    sums = {"tumor_type": "all", "magnification": "all"}
    levels = [counts, counts.assign(tumor_type="all"), counts.assign(magnification="all")]
    every = pd.concat([*levels, counts.assign(**sums)]).astype({"magnification": str})
    cells = every.groupby(["tumor_type", "magnification"])[["found", "published"]].sum()
    rows = []
    for kind in (*TUMOR_TYPES, "all"):
        row = {"type": f"{TYPE_NAMES[kind]} ({kind})" if kind in TYPE_NAMES else "all types"}
        for magnification in (*MAGNIFICATIONS, "all"):
            name = f"{magnification}X" if magnification != "all" else "all"
            row[name] = _cell(*cells.loc[(kind, str(magnification))])
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(found: int, published: int) -> str:
    difference = f" of {published:,} ({found - published:+,})"
    return f"{found:,}{difference if found != published else ''}"


def type_counts(index: pd.DataFrame) -> pd.DataFrame:
    """Return slides, accessions and images of each type, and of its largest accession."""
    types = index.groupby("tumor_type")
    table = types.agg(
        slides=("slide", "nunique"),
        accessions=("accession", "nunique"),
        images=("image_id", "size"),
    )
    sizes = index.groupby(["tumor_type", "accession"]).size()
    table["images of the largest accession"] = sizes.groupby("tumor_type").max()
    table = table.reindex([kind for kind in TUMOR_TYPES if kind in table.index])
    table.insert(0, "type", [TYPE_NAMES[kind] for kind in table.index])
    return table


def missing_grid(counts: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the slides that are there in part, and the names of those that are not there at all.

    The table has "found of published" images at each magnification; a dash where none is missing.
    """
    slides = counts.groupby("slide")[["found", "published"]].sum()
    some = (slides["found"] > 0) & (slides["found"] < slides["published"])
    rows = []
    for slide in slides.index[some]:
        part = counts[counts["slide"] == slide].set_index("magnification")
        cells = {f"{m}X": f"{part['found'][m]} of {part['published'][m]}" for m in MAGNIFICATIONS}
        short = (part["found"] < part["published"]).to_dict()
        rows.append(
            {"slide": slide} | {k: v if short[int(k[:-1])] else "–" for k, v in cells.items()}
        )
    columns = ["slide", *(f"{m}X" for m in MAGNIFICATIONS)]
    return pd.DataFrame(rows, columns=columns), list(slides.index[slides["found"] == 0])


def several_slides(index: pd.DataFrame) -> pd.DataFrame:
    """Return the accessions that have more than one slide, and the slides' names."""
    names = index.groupby("accession")["slide"].agg(lambda slides: sorted(set(slides)))
    names = names[names.map(len) > 1]
    table = pd.DataFrame({"slides": names.map(len), "names": names.map(", ".join)})
    return table.reset_index()


def type_sheet(images: np.ndarray, index: pd.DataFrame, rng: np.random.Generator) -> Figure:
    """Return a sheet with one image, drawn at random, of each type at each magnification."""
    groups = index.reset_index(drop=True).groupby(["tumor_type", "magnification"]).groups
    kinds = [kind for kind in TUMOR_TYPES if kind in set(index["tumor_type"])]
    pictures, titles = [], []
    for kind in kinds:
        for magnification in MAGNIFICATIONS:
            rows = groups.get((kind, magnification), [])
            grey = np.full(images.shape[1:], 235, np.uint8)
            pictures.append(images[rng.choice(rows)] if len(rows) else grey)
            titles.append(f"{magnification}X" if len(rows) else f"{magnification}X: none here")
    return image_sheet(pictures, titles, row_titles=[TYPE_NAMES[kind] for kind in kinds])


def quality_figure(table: pd.DataFrame) -> Figure:
    """Return box plots of focus, brightness and background by magnification and class."""
    present = [m for m in MAGNIFICATIONS if m in set(table["magnification"])]
    fig, axes = plt.subplots(1, 3, figsize=(8.6, 3.6))
    for ax, (name, label) in zip(axes, QUANTITIES.items(), strict=True):
        for shift, (kind, color) in zip((-0.2, 0.2), CLASS_COLORS.items(), strict=True):
            part = table[table["tumor_class"] == kind]
            values = [part.loc[part["magnification"] == m, name] for m in present]
            boxes = ax.boxplot(
                values,
                positions=np.arange(len(present)) + shift,
                widths=0.32,
                patch_artist=True,
                flierprops={"markersize": 2},
            )
            plt.setp(boxes["boxes"], facecolor=color, alpha=0.6)
            plt.setp(boxes["medians"], color="black")
            ax.fill_between([], [], color=color, alpha=0.6, label=kind)
        ticks = [f"{m}X" for m in present]
        ax.set(xticks=range(len(present)), xticklabels=ticks, ylabel=label)
    axes[0].set_yscale("log")
    legend_below(fig, axes[0])
    return fig


def slide_stain(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean haematoxylin and eosin of each slide, with its accession and class."""
    keys = ["slide", "accession", "tumor_class"]
    return table.groupby(keys)[["haematoxylin", "eosin"]].mean().reset_index()


def stain_figure(slides: pd.DataFrame) -> Figure:
    """Return the stain of each slide as a point; lines join the slides of one accession."""
    fig, ax = plt.subplots(figsize=(6.5, 4.4))
    for _, sisters in slides.groupby("accession"):
        ax.plot(sisters["haematoxylin"], sisters["eosin"], color="#999999", lw=1, zorder=1)
    for (kind, color), marker in zip(CLASS_COLORS.items(), "os", strict=True):
        part = slides[slides["tumor_class"] == kind]
        style = {"color": color, "marker": marker, "edgecolor": "white"}
        ax.scatter(part["haematoxylin"], part["eosin"], s=46, label=kind, zorder=2, **style)
    ax.set(xlabel="haematoxylin, mean optical density", ylabel="eosin, mean optical density")
    ax.legend()
    return fig


def sister_distance(slides: pd.DataFrame) -> tuple[float, float]:
    """Return the median distance in stain between sister slides, and between any two slides.

    The first is NaN where no accession has two slides.
    """
    points = slides[["haematoxylin", "eosin"]].to_numpy()
    accession = slides["accession"].to_numpy()
    pairs = list(combinations(range(len(slides)), 2))
    distance = {(a, b): np.linalg.norm(points[a] - points[b]) for a, b in pairs}
    sisters = [distance[a, b] for a, b in pairs if accession[a] == accession[b]]
    return float(np.median(sisters or [np.nan])), float(np.median(list(distance.values())))


def variance_figure(parts: pd.DataFrame) -> Figure:
    """Return stacked bars of ``quality.variance_parts``, a row a quantity.

    A black line marks where the blue part would end if images belonged to accessions at random.
    """
    fig, ax = plt.subplots(figsize=(7.5, 3.6))
    rows = [spell(name) for name in parts["quantity"]]
    left = np.zeros(len(parts))
    for name, (color, hatch) in PARTS.items():
        style = {"color": color, "hatch": hatch, "edgecolor": "white", "label": name}
        ax.barh(rows, parts[name], left=left, **style)
        left += parts[name].to_numpy()
    chance = parts["between classes"] + parts["accessions by chance"]
    ax.scatter(chance, rows, marker="|", s=300, color="black", label="accessions by chance")
    ax.set(xlabel="share of the variance", xlim=(0, 1))
    ax.invert_yaxis()
    legend_below(fig, ax, columns=3)
    return fig
