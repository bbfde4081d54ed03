"""Who is trained on and who is tested: four protocols, one table, one guard.

- ``accession``: no case number on two sides; each accession is tested once a repeat. The only
  protocol whose results are a claim. That an accession is a patient is an inference.
- ``official``: the five hold-outs of the database's authors. Slide folders are kept apart, but 6
  to 8 accessions have slides on both sides: leaky.
- ``slide``: slide folders kept apart, as in most of the literature: leaky in the same way.
- ``image``: images at random, as in the literature's 99%: leaky.

The parts of the whole database are fixed in data/folds.csv, one row an accession: balanced in
class, tumour type and number of images. data/README.md says how to use them elsewhere.

With fewer accessions, another number of folds, or further repeats, scikit-learn's StratifiedKFold
deals the accessions at hand. In fold k part k is tested and the accessions of part k % n + 1
validate (their images that are not tested) under every protocol, so that a score on the validation
part is honest. Under ``image`` this makes the test images of those accessions clean: a model that
needs no validation trains on both, ``Fold.known``, to see the full leak.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from helpers.data import slide_table
from helpers.results import ROOT

PROTOCOLS = ("accession", "official", "slide", "image")
LEAKY = ("official", "slide", "image")
ROLES = ("train", "val", "test")
KEEPS_APART = {
    "accession": ("image_id", "slide", "accession", "pixel_sha256"),
    **dict.fromkeys(("official", "slide"), ("image_id", "slide")),
    "image": ("image_id",),
}
CLASSES = ("benign", "malignant")


class Fold(NamedTuple):
    """One fold: its protocol, its number (from 1), and int positions of rows of the index."""

    protocol: str
    number: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def known(self):
        """Training and validation rows together, in the order of the index."""
        return np.sort(np.concatenate([self.train, self.val]))


def label(protocol):
    """The protocol's name for tables and figures, what it keeps apart; leaky ones say so."""
    return f"{protocol} (leaky)" if protocol in LEAKY else protocol.replace("accession", "patient")


def make_splits(index, n_folds=5, repeats=1, seed=0, protocols=PROTOCOLS):
    """The table of splits: image_id, protocol, fold (int, from 1), role (train, val or test).

    index: DataFrame with image_id, slide, accession, tumor_class, tumor_type. n_folds: 3 or more,
    and no more than a class has accessions. Fold k of repeat r is number (r - 1) * n_folds + k;
    ``official`` has its five folds always. Each image has one role in each fold. The same images
    give the same table, whatever their order. ValueError where the request cannot be met.
    """
    index = index.sort_values("image_id", ignore_index=True)
    _check_request(index, n_folds, repeats)
    classes, frames = index["tumor_class"].to_numpy(), []
    for protocol in protocols:
        for repeat in range(1, 2 if protocol == "official" else repeats + 1):
            patients = _parts(index, "accession", n_folds, repeat, seed)
            if protocol == "official":
                tests = _official_tests(index)
            else:
                parts = _parts(index, protocol, n_folds, repeat, seed)
                tests = [parts == k for k in range(1, n_folds + 1)]
            for k, test in enumerate(tests, 1):
                val = _validation(classes, patients, test, k, n_folds)
                role = np.select([test, val], ["test", "val"], "train")
                fold = (repeat - 1) * n_folds + k
                frames.append(index[["image_id"]].assign(protocol=protocol, fold=fold, role=role))
    return pd.concat(frames, ignore_index=True)


def _check_request(index, n_folds, repeats):
    if n_folds < 3 or repeats < 1:
        raise ValueError(
            f"n_folds={n_folds}, repeats={repeats}: n_folds must be 3 or more (one part is tested, "
            "one validates, the rest trains), and repeats 1 or more."
        )
    counts = index.groupby("tumor_class")["accession"].nunique().reindex(CLASSES, fill_value=0)
    name, least = counts.idxmin(), int(counts.min())
    if n_folds > least:
        cure = f"Use {least} folds at most." if least >= 3 else "Add images of it: 3 are needed."
        raise ValueError(
            f"n_folds={n_folds}, but there are only {least} {name} accessions: some test part "
            f"would hold none. {cure}"
        )


def _parts(index, protocol, n_folds, repeat, seed):
    """Part of each image, int (n_images,), from 1: by accession, slide or image."""
    unit = {"image": "image_id"}.get(protocol, protocol)
    if protocol == "accession" and n_folds == 5 and repeat == 1:
        known = pd.read_csv(ROOT / "data" / "folds.csv", index_col="accession")["fold"]
        if set(index["accession"]) == set(known.index):
            return index["accession"].map(known).to_numpy()
    units = index.groupby(unit).agg(
        tumor_class=("tumor_class", "first"),
        tumor_type=("tumor_type", lambda types: " ".join(sorted(set(types)))),
    )
    units = units.sort_values(["tumor_class", "tumor_type"], kind="stable")
    # Types in a row, those of a class together: so scikit-learn balances the classes as well.
    strata = units["tumor_class"] + " " + units["tumor_type"]
    if strata.value_counts().max() < n_folds:
        strata = units["tumor_class"]
    dealer = StratifiedKFold(n_folds, shuffle=True, random_state=seed + repeat)
    part = pd.Series(0, index=units.index)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # rare types
        for k, (_, held) in enumerate(dealer.split(units, strata), 1):
            part.iloc[held] = k
    return index[unit].map(part).to_numpy()


def _official_tests(index):
    """Boolean (n_images,) of each official fold's test images, from data/slides.csv."""
    slides = slide_table().set_index("slide")
    foreign = sorted(set(index["slide"]) - set(slides.index))
    if foreign:
        raise ValueError(
            f"The official folds do not know {len(foreign)} slides: {', '.join(foreign[:5])}. "
            "Leave out protocol 'official', or these slides."
        )
    roles = slides.loc[index["slide"], [f"fold{k}" for k in range(1, 6)]]
    return list(roles.eq("test").to_numpy().T)


def _validation(classes, patients, test, k, n_folds):
    """Boolean (n_images,): the images that validate in fold k.

    Those of the accessions in part k % n_folds + 1 that are not tested. Where an official test part
    leaves that part (or the rest) one class only, the next part that leaves both is taken.
    """
    turns = [patients == (k + i) % n_folds + 1 for i in range(n_folds)]
    for part in turns:
        held, fitted = part & ~test, ~part & ~test
        if len(set(classes[held])) == len(set(classes[fitted])) == len(CLASSES):
            return held
    return turns[0] & ~test


def folds(index, splits, protocol, wanted=()):
    """List of Fold, one a fold of `protocol`, after check_disjoint on the images of `index`.

    splits: as from make_splits; its rows on other images are ignored. wanted: fold numbers, all by
    default; ValueError for one that does not exist. Folds that test none of the images are left
    out; ValueError where that leaves none.
    """
    mine = splits[(splits["protocol"] == protocol) & splits["image_id"].isin(index["image_id"])]
    check_disjoint(index, mine, protocol)
    there = sorted(int(k) for k in mine["fold"].unique())
    wrong = sorted(set(wanted) - set(there))
    if wrong:
        raise ValueError(f"{protocol}: no fold {wrong}; the table of splits has {there}.")
    place = pd.Series(np.arange(len(index)), index=index["image_id"].to_numpy())
    out = []
    for k in wanted or there:
        rows = mine[mine["fold"] == k]
        at = place.loc[rows["image_id"]].to_numpy()
        fold = Fold(protocol, int(k), *(np.sort(at[rows["role"] == role]) for role in ROLES))
        if len(fold.test):
            out.append(fold)
    if not out:
        raise ValueError(
            f"{protocol}: folds {wanted or there} test none of these {len(index)} images."
        )
    return out


def check_disjoint(index, splits, protocol):
    """Raise ValueError that names the offenders if a part is shared that the protocol keeps apart.

    ``accession`` promises images, slides, accessions and pixels (renamed copies); ``official`` and
    ``slide`` promise images and slides; ``image`` promises images. Every image of `index` needs one
    role (train, val or test) in each fold of `splits`, and train and val share no accession under
    any protocol. Under ``accession`` each image is tested, and as often as any other: `splits` may
    be limited to some images, those of `index`, but must hold all folds. Returns the number shared
    over all folds, dict by -> int: zero where promised, the size of the leak elsewhere.
    """
    mine = splits[splits["protocol"] == protocol]
    if mine.empty:
        raise ValueError(f"The table of splits has no protocol {protocol!r}: run 02_patient_split.")
    found = overlap(index, mine, protocol)
    problems = _not_whole(index, mine, protocol)
    for row in found[found["by"].isin(KEEPS_APART[protocol])].itertuples():
        problems += [f"fold {row.fold}: {row.by} {x} is on both sides" for x in row.offenders]
    named = mine.merge(index[["image_id", "accession"]], on="image_id")
    within = _shared(named, named["role"] == "train", named["role"] == "val", "accession")
    for fold, names in within.items():
        problems += [f"fold {fold}: accession {x} is in both train and val" for x in names]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"Split {protocol} leaks: {'; '.join(problems[:5])}{more}.")
    return {by: int(rows["offenders"].map(len).sum()) for by, rows in found.groupby("by")}


def overlap(index, splits, protocol):
    """What the test part of each fold shares with its train and val parts.

    Returns a DataFrame: fold, by (image_id, slide, accession, pixel_sha256), offenders (list).
    """
    mine = splits[splits["protocol"] == protocol].merge(index, on="image_id", how="left")
    test, out = mine["role"] == "test", []
    for key in (key for key in KEEPS_APART["accession"] if key in mine):
        both = _shared(mine, test, ~test, key)
        numbers = sorted(int(k) for k in mine["fold"].unique())
        out += [{"fold": k, "by": key, "offenders": both.get(k, [])} for k in numbers]
    return pd.DataFrame(out)


def _shared(rows, one, other, key):
    """Values of `key` that lie on both sides, boolean masks of rows: Series fold -> sorted list."""
    sides = [rows.loc[side, ["fold", key]].drop_duplicates() for side in (one, other)]
    return sides[0].merge(sides[1]).groupby("fold")[key].agg(sorted)


def _not_whole(index, mine, protocol):
    """Sentences on images without exactly one known role in each fold, or not tested in turn."""
    odd = mine[~mine["role"].isin(ROLES)]
    problems = [f"{r.image_id} has the unknown role {r.role!r}" for r in odd.itertuples()]
    twice = mine[mine.duplicated(["fold", "image_id"])]
    problems += [f"{r.image_id} has two roles in fold {r.fold}" for r in twice.itertuples()]
    wanted = set(index["image_id"])
    strangers = sorted(wanted ^ set(mine["image_id"]))
    problems += [f"{name} is in only one of index and splits" for name in strangers]
    for fold, names in mine.groupby("fold")["image_id"]:
        lacking = sorted(wanted - set(names) - set(strangers))
        problems += [f"{name} has no role in fold {fold}" for name in lacking]
    if protocol == "accession":
        tests = mine[mine["role"] == "test"].groupby("image_id").size()
        tests = tests.reindex(sorted(wanted), fill_value=0)
        usual = max(int(tests.mode().max()), 1)
        problems += [
            f"{name} is tested {n} times, most images {usual} times"
            for name, n in tests[tests != usual].items()
        ]
    return problems
