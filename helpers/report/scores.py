"""The table of models by protocol on the index page, from metrics.csv alone."""

from pathlib import Path

from helpers.results import read_table
from helpers.splits import PROTOCOLS, label

# Which scores the index shows: task, metric, level, and what a reader calls it.
SHOWN = (
    ("malignancy", "auc", "accession", "Benign or malignant: AUC by patient"),
    ("malignancy", "recognition_rate", "slide", "Benign or malignant: recognition rate by slide"),
    ("tumor_type", "macro_f1", "accession", "Eight tumour types: macro F1 by patient"),
)


def tables(results):
    """List of dicts title, protocols (labels), rows of (model, notebook, cells).

    A cell is None or a dict with value, ci_low, ci_high, n_groups and leaky. Only scores over all
    magnifications count, or over the one magnification that the data has.
    """
    if not Path(results, "metrics.csv").exists():
        return []
    frame = read_table(Path(results).resolve(), "metrics.csv")
    frame = frame[frame["magnification"].astype(str) == "all"]
    found = [one_table(frame, *shown) for shown in SHOWN]
    return [table for table in found if table["rows"]]


def one_table(frame, task, metric, level, title):
    """One table of `SHOWN`."""
    chosen = (frame["task"] == task) & (frame["metric"] == metric) & (frame["level"] == level)
    mine = frame[chosen & frame["protocol"].isin(PROTOCOLS)]
    protocols = [protocol for protocol in PROTOCOLS if protocol in set(mine["protocol"])]
    rows = []
    for (notebook, model), group in mine.groupby(["notebook", "model"], sort=False):
        by = group.drop_duplicates("protocol").set_index("protocol").to_dict("index")
        rows.append((model, notebook, [by.get(protocol) for protocol in protocols]))
    return {"title": title, "protocols": [label(p) for p in protocols], "rows": rows}
