"""The bootstrap over accessions: resamples, sums over them, and 95% intervals.

The same number of groups and the same seed give the same resamples, whatever is computed on them.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd


def resamples(n_groups, n_boot, seed):
    """Multiplicities float64 (1 + n_boot, n_groups): row 0 is the data, the rest are resamples."""
    drawn = np.random.default_rng(seed).multinomial(
        n_groups, np.full(n_groups, 1 / n_groups), size=n_boot
    )
    return np.vstack([np.ones(n_groups), drawn])


def interval(values):
    """(low, high) 95% percentile interval of resampled values (row 0, the data, is left out)."""
    resampled = values[1:][~np.isnan(values[1:])]
    return tuple(np.percentile(resampled, [2.5, 97.5])) if len(resampled) else (np.nan, np.nan)


def group_sums(columns: Iterable[np.ndarray], groups, n_boot: int, seed: int) -> np.ndarray:
    """Return sums of columns over resampled groups: (1 + n_boot, n_columns); row 0 is the data."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(codes, np.asarray(c, float), len(names)) for c in columns], 1)
    return resamples(len(names), n_boot, seed) @ sums


def ratio_intervals(above, below):
    """(low, high) float64 (k,) of the ratio of resampled sums; NaN where it is never defined."""
    ratio = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return np.array([interval(column) for column in ratio.T]).T


def row_of(values: np.ndarray, groups) -> dict:
    """Return value and interval as a dict; no interval where there are fewer than two groups."""
    n_groups, drawn = pd.Series(groups).nunique(), values[1:][np.isfinite(values[1:])]
    known = n_groups > 1 and len(drawn) > 0
    low, high = np.percentile(drawn, [2.5, 97.5]) if known else (np.nan, np.nan)
    counts = {"n_images": len(groups), "n_groups": n_groups}
    return {"value": values[0], "ci_low": low, "ci_high": high} | counts


def mean_interval(values, groups, n_boot: int = 2000, seed: int = 0) -> dict:
    """Return the mean of ``values`` (n,) with its interval: value, ci_low, ci_high, n's."""
    total, count = group_sums([values, np.ones(len(values))], groups, n_boot, seed).T
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return row_of(mean, groups)


def mean_intervals(values: dict, groups, name: str, **boot) -> pd.DataFrame:
    """Return :func:`mean_interval` of several ``values``, a row each; their keys under ``name``."""
    return pd.DataFrame([
        {name: key} | mean_interval(part, groups, **boot) for key, part in values.items()
    ])  # fmt: skip
