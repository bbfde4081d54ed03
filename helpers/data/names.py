"""The grammar of BreakHis file names, the tumour types, and the table of the 82 slides."""

import re

import pandas as pd

from helpers.results import ROOT

MAGNIFICATIONS = (40, 100, 200, 400)
BENIGN = ("A", "F", "PT", "TA")
MALIGNANT = ("DC", "LC", "MC", "PC")
TUMOR_TYPES = BENIGN + MALIGNANT
TYPE_NAMES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumour",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
SIZES = ((700, 460), (700, 456))  # px, width and height of the database's images
N_IMAGES = 7909  # images in the whole database
NAME = re.compile(
    r"SOB_(?P<cls>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<accession>[0-9]{2}-[0-9]+)"
    r"(?P<letters>[A-Z]*)-(?P<magnification>40|100|200|400)-(?P<sequence>[0-9]{3})"
)


def parse_name(stem: str) -> dict:
    """Read a BreakHis file name without its suffix, as in ``SOB_B_A-14-22549AB-40-001``.

    Returns image_id, tumor_class, tumor_type, slide, accession, magnification and sequence. The
    accession is the case number without the letters that mark further slides of one case.
    """
    match = NAME.fullmatch(stem)
    if not match or (match["cls"] == "B") != (match["type"] in BENIGN):
        raise ValueError(
            f"{stem!r} is not a BreakHis name; one reads SOB_B_A-14-22549AB-40-001: class, type, "
            "year, number and letters, magnification, sequence"
        )
    return {
        "image_id": stem,
        "tumor_class": "benign" if match["cls"] == "B" else "malignant",
        "tumor_type": match["type"],
        "slide": f"{match['type']}-{match['accession']}{match['letters']}",
        "accession": match["accession"],
        "magnification": int(match["magnification"]),
        "sequence": int(match["sequence"]),
    }


def slide_table() -> pd.DataFrame:
    """Return the 82 slides of the database: accession, type, image counts, official folds."""
    return pd.read_csv(ROOT / "data" / "slides.csv", keep_default_na=False)
