"""Whether errors go with properties of the images: rank correlations with their intervals.

All intervals are 95%, from a bootstrap over accessions.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from helpers.bootstrap import group_sums, row_of


def association(measure, error, groups, n_boot: int = 2000, seed: int = 0) -> dict:
    """Return the rank correlation (Spearman) of a measure and the error, with its interval.

    Ranks are those of the whole data; resampling weighs the patients. A measure that never varies
    has no correlation (NaN).
    """
    x, y = (rankdata(values) - (len(error) + 1) / 2 for values in (measure, error))
    ones = np.ones(len(x))
    n, sx, sy, sxx, syy, sxy = group_sums([ones, x, y, x * x, y * y, x * y], groups, n_boot, seed).T
    spread = np.sqrt((sxx - sx**2 / n) * (syy - sy**2 / n))
    dot = sxy - sx * sy / n
    value = np.divide(dot, spread, out=np.full(len(n), np.nan), where=spread > 1e-9)
    return row_of(value, groups)


def associations(frame: pd.DataFrame, measures: list[str], n_boot: int = 2000, seed: int = 0):
    """Return :func:`association` of the error with each measure, within each true class.

    Within a class, because a measure that differs between classes would otherwise stand for it.
    truth spells the class out.
    """
    rows = [
        {"measure": name, "tumor_class": kind, "truth": f"truly {kind}"}
        | association(part[name], part["error"], part["accession"].to_numpy(), n_boot, seed)
        for name in measures
        for kind, part in frame.groupby("tumor_class")
        if len(set(part["accession"])) > 1
    ]
    return pd.DataFrame(rows).dropna(subset="value")


def excluding_zero(links: pd.DataFrame) -> str:
    """Return one sentence on which of ``associations`` have an interval that excludes 0."""
    far = links[(links["ci_low"] > 0) | (links["ci_high"] < 0)]
    names = "; ".join(f"{r.measure}, {r.tumor_class} ({r.value:+.2f})" for r in far.itertuples())
    return (
        f"Correlations whose interval excludes 0: {len(far)} of {len(links)}"
        f"{' (' + names + ')' if names else ''}. Chance alone would give {0.05 * len(links):.1f}."
    )
