"""Deals accessions (or slides) into parts that are alike in class, type and number of images.

The objective, in this order of importance, summed over the parts:

1. class: squared deviation of the number of units of each class from its mean over the parts;
2. type: the same for each tumour type (a unit that holds two types counts for both);
3. images: squared relative deviation of the images of each class at each magnification.

Units are dealt out in turn within their class, which meets (1) exactly, and then exchanged in
pairs of one class for as long as that lowers the rest. The search starts several times and keeps
the best. All order comes from hashes of the unit's name and the seed: it does not depend on the
order of files, nor on a random generator that may change between versions.
"""

import hashlib

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

TYPE_WEIGHT = 1000.0  # one type out of place costs more than any imbalance of images
STARTS = 12


def hash_number(*parts):
    """A number in [0, 2**64) that depends on nothing but `parts` (their text)."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def features(slides, unit):
    """Units as rows of weighted counts, and the class of each.

    slides: DataFrame with tumor_class, tumor_type, n_40x ... n_400x and the column `unit`.
    Returns (X float64 (n_units, n_features), classes (n_units,), names): part sums of X are to be
    equal. A unit's class is its malignant one if it holds both (no accession of BreakHis does).
    """
    images = [c for c in slides.columns if c.startswith("n_")]
    by_unit = slides.groupby(unit, sort=True)
    classes = by_unit["tumor_class"].max()
    types = pd.crosstab(slides[unit], slides["tumor_type"]).clip(upper=1).loc[classes.index]
    wide = slides.pivot_table(
        index=unit, columns="tumor_class", values=images, aggfunc="sum", fill_value=0
    ).loc[classes.index]
    share = wide / wide.sum().clip(lower=1)
    columns = [types.to_numpy() * np.sqrt(TYPE_WEIGHT), share.to_numpy(dtype=float)]
    return np.hstack(columns), classes.to_numpy(), classes.index.to_numpy()


def _start(names, classes, n_parts, *key):
    """Parts (0 ...) from dealing units in hashed order, class after class, without a break."""
    order = sorted(range(len(names)), key=lambda i: (classes[i], hash_number(*key, names[i])))
    parts = np.empty(len(names), dtype=int)
    first = hash_number(*key, "first part") % n_parts
    parts[order] = (np.arange(len(names)) + first) % n_parts
    return parts


def _exchange(x, classes, parts, n_parts):
    """Best exchanges of two units of one class until none helps. Returns (parts, objective)."""
    parts, gram = parts.copy(), x @ x.T
    distance = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
    allowed = classes[:, None] == classes[None]
    for _ in range(20 * len(parts)):
        sums = np.zeros((n_parts, x.shape[1]))
        np.add.at(sums, parts, x)
        p = (x @ sums.T)[:, parts]  # p[i, j]: unit i against the part that holds unit j
        own = p.diagonal()
        change = 2 * (p.T - own[:, None] - own[None] + p) + 2 * distance
        change = np.where(allowed & (parts[:, None] != parts[None]), change, np.inf)
        i, j = np.unravel_index(np.argmin(change), change.shape)
        if change[i, j] > -1e-9:
            break
        parts[i], parts[j] = parts[j], parts[i]
    return parts, float(np.square(sums - x.sum(axis=0) / n_parts).sum())


def deal(slides, unit, n_parts, *key, starts=STARTS):
    """Deal the units of `slides` into `n_parts` balanced parts.

    slides: DataFrame of slides (columns as in data/slides.csv); unit: "accession" or "slide";
    key: seed and whatever else tells this deal from others; starts: how often the search begins
    anew. Returns Series unit -> part, from 1.
    """
    x, classes, names = features(slides, unit)
    best, lowest = None, np.inf
    for attempt in range(starts):
        start = _start(names, classes, n_parts, *key, attempt)
        parts, objective = _exchange(x, classes, start, n_parts)
        if objective < lowest - 1e-9:
            best, lowest = parts, objective
    return pd.Series(best + 1, index=pd.Index(names, name=unit), name="part")


def balance_table(slides, parts, unit="accession"):
    """How well parts are balanced: one row a part.

    parts: Series unit -> part. Columns: accessions and images by class, then, over the types, the
    number that the part lacks, and the largest relative deviation of the images of a class at a
    magnification from the mean over the parts (in per cent).
    """
    rows = slides.assign(part=slides[unit].map(parts)).dropna(subset="part")
    images = [c for c in rows.columns if c.startswith("n_")]
    rows["images"] = rows[images].sum(axis=1)
    wide = rows.pivot_table(
        index="part", columns="tumor_class", values=images, aggfunc="sum", fill_value=0
    )
    off = (wide / wide.mean().clip(lower=1e-9) - 1).abs().max(axis=1) * 100
    out = pd.DataFrame(index=wide.index.astype(int))
    for name in ("benign", "malignant"):
        mine = rows[rows["tumor_class"] == name]
        out[f"{name} accessions"] = mine.groupby("part")["accession"].nunique()
        out[f"{name} images"] = mine.groupby("part")["images"].sum()
    out["types lacking"] = (
        rows["tumor_type"].nunique() - rows.groupby("part")["tumor_type"].nunique()
    )
    out["worst image deviation (%)"] = off
    return out.fillna(0)


def plain_parts(index, n_parts, seed):
    """Series accession -> part by scikit-learn, stratified by the class of the images."""
    folds = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
    split = folds.split(index, index["tumor_class"], index["accession"])
    names = index["accession"].to_numpy()
    return pd.Series({name: k for k, (_, test) in enumerate(split, 1) for name in names[test]})


def summary(slides, deals, **labels):
    """One row on the balance of several deals (list of Series accession -> part): means over them.

    Columns: the labels, then most minus fewest accessions of each class, the types that parts lack,
    summed over the parts, and the worst deviation of images.
    """
    tables = [balance_table(slides, parts) for parts in deals]
    out = {}
    for name in ("benign accessions", "malignant accessions"):
        out[f"{name}, most minus fewest"] = [np.ptp(table[name]) for table in tables]
    out["types lacking, sum"] = [table["types lacking"].sum() for table in tables]
    worst = "worst image deviation (%)"
    out[worst] = [table[worst].max() for table in tables]
    return labels | {name: float(np.mean(values)) for name, values in out.items()}
