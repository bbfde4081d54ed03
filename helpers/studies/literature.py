"""Published results, and a run's own numbers in the same columns."""

from itertools import product

import pandas as pd

from helpers.results import ROOT
from helpers.splits import PROTOCOLS, label

COLUMNS = {"m40": "40X", "m100": "100X", "m200": "200X", "m400": "400X"}
TESTED = ("40", "100", "200", "400", "all")


def kind_of_split(protocol: str, disjoint_by: str) -> str:
    """Name the kind of split of a published result as :func:`helpers.splits.label` names ours."""
    if disjoint_by.startswith("none"):
        return label("image")
    kind = "official" if protocol.startswith("official") else "slide"
    doubt = ", unconfirmed" if "unconfirmed" in protocol + disjoint_by else ""
    return label(kind) + doubt


def published(task: str = "malignancy") -> pd.DataFrame:
    """Return data/published.csv for one task, as text: percent of right images by magnification.

    ``split`` names the kind of split; the literature's patient level is called ``slide`` here,
    which is what it counts.
    """
    rows = pd.read_csv(ROOT / "data" / "published.csv", dtype=str).fillna("")
    rows = rows[rows["task"] == task].rename(columns=COLUMNS)
    split = [
        kind_of_split(*pair) for pair in zip(rows["protocol"], rows["disjoint_by"], strict=True)
    ]
    return rows.assign(split=split, level=rows["level"].replace("patient", "slide"))


def percent_of(papers: pd.DataFrame) -> pd.Series:
    """Return each result's one number: pooled, or the mean over its magnifications (float, %)."""
    values = papers[list(COLUMNS.values())].apply(pd.to_numeric)
    return pd.to_numeric(papers["pooled"]).fillna(values.mean(axis=1))


def percent(row) -> str:
    """Write a metric row in percent with its interval: ``85.5 (80.1 to 90.2)``."""
    value, low, high = (100 * float(row[key]) for key in ("value", "ci_low", "ci_high"))
    return f"{value:.1f}" + (f" ({low:.1f} to {high:.1f})" if low == low else "")


def own_row(metrics: pd.DataFrame, method: str, models: dict, protocol: str, level: str) -> dict:
    """Return one line of the literature's table from a run's metrics (image or slide level).

    ``models`` names the model for each of TESTED. Slide level is the recognition rate.
    """
    metric = "accuracy" if level == "image" else "recognition_rate"
    rows = metrics[(metrics["protocol"] == protocol) & (metrics["level"] == level)]
    rows = rows[rows["metric"] == metric].set_index(["model", "magnification"])
    line = {"method": method, "level": level, "split": label(protocol)}
    for tested in TESTED:
        key = (models.get(tested), tested)
        column = "pooled" if tested == "all" else f"{tested}X"
        line[column] = percent(rows.loc[key]) if key in rows.index else ""
    return line


def own_rows(metrics: pd.DataFrame, models) -> pd.DataFrame:
    """Return a line of the literature's table for each model, protocol and level."""
    wanted = product(models, PROTOCOLS, ("slide", "image"))
    rows = [
        own_row(metrics, f"This run: {model}", dict.fromkeys(TESTED, model), protocol, level)
        for model, protocol, level in wanted
    ]
    return pd.DataFrame(rows)
