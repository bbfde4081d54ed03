"""Images found and images published, by slide and magnification."""

import pandas as pd

from helpers.data.names import MAGNIFICATIONS, slide_table


def compare(index: pd.DataFrame) -> pd.DataFrame:
    """Return found and published image counts, a row for each of 82 slides x 4 magnifications.

    Columns: slide, accession, tumor_class, tumor_type, magnification, found, published.
    """
    keys = ["slide", "accession", "tumor_class", "tumor_type"]
    counts = {f"n_{magnification}x": magnification for magnification in MAGNIFICATIONS}
    table = slide_table().rename(columns=counts)
    table = table.melt(keys, MAGNIFICATIONS, "magnification", "published")
    found = index.groupby(["slide", "magnification"]).size().rename("found").reset_index()
    found["magnification"] = found["magnification"].astype(int)
    table["magnification"] = table["magnification"].astype(int)
    table = table.merge(found, "left", ["slide", "magnification"]).fillna({"found": 0})
    return table.astype({"found": int})[[*keys, "magnification", "found", "published"]]


def is_whole(index: pd.DataFrame) -> bool:
    """Return whether each slide has its published images at each magnification, and no more."""
    counts = compare(index)
    return bool((counts["found"] == counts["published"]).all())


def tell(row: dict) -> str:
    """Return a row of :func:`compare` as words."""
    return (
        f"{row['slide']} at {row['magnification']}X has {row['found']} images, "
        f"the database has {row['published']}"
    )
