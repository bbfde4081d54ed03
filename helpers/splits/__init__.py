"""Who is trained on and who is tested: four protocols, one table, one guard.

- ``accession``: no case number on two sides; each accession is tested once a repeat. The only
  protocol whose results are a claim. That an accession is a patient is an inference.
- ``official``: the five hold-outs of the database's authors. Slide folders are kept apart, but 6
  to 8 accessions have slides on both sides: leaky.
- ``slide``: slide folders kept apart, as in most of the literature: leaky in the same way.
- ``image``: images at random, as in the literature's 99%: leaky.

The plan is made from data/slides.csv, n_folds, repeats and seed, never from the images at hand, so
missing images, one magnification or the order of files change nothing. Where a folder holds only
some of the accessions and the plan for all 70 would leave a part without a class, the plan is made
for the accessions at hand instead; ``basis`` in ``splits.attrs`` says which.

In each fold a share of the training accessions becomes the validation part, by accession under
every protocol, so that a score on it is honest. Under ``image`` this makes the test images of those
accessions clean: a model that needs no validation should train on train and val to see the full
leak.
"""

import numpy as np
import pandas as pd

from helpers.data import slide_table
from helpers.splits.balance import deal, hash_number
from helpers.splits.guard import KEEPS_APART, LEAKY, ROLES, check_disjoint, label, overlap

__all__ = [
    "KEEPS_APART", "LEAKY", "PROTOCOLS", "ROLES", "check_disjoint", "check_request",
    "choose_basis", "fold_rows", "label", "make_splits", "overlap", "plan", "rare_types",
    "slide_facts",
]  # fmt: skip

PROTOCOLS = ("accession", "official", "slide", "image")
N_OFFICIAL = 5
DEFAULT_FOLDS = 5  # of slide and image where n_folds = 0
VAL_PARTS = 5  # one part in five of the training accessions is for validation
CLASSES = ("benign", "malignant")


def slide_facts(index):
    """The slides of `index` with class, type, images per magnification and official roles.

    From data/slides.csv; for slides that it does not know, counted in `index` (official roles NaN).
    """
    known = slide_table()
    present = index.drop_duplicates("slide")[["slide", "accession", "tumor_class", "tumor_type"]]
    foreign = present[~present["slide"].isin(known["slide"])]
    counts = pd.crosstab(index["slide"], index["magnification"]).add_prefix("n_").add_suffix("x")
    foreign = foreign.merge(counts, left_on="slide", right_index=True)
    facts = pd.concat([known[known["slide"].isin(present["slide"])], foreign])
    numbers = [c for c in facts.columns if c.startswith("n_")]
    facts[numbers] = facts[numbers].fillna(0)
    return facts.sort_values("slide", ignore_index=True)


def check_request(facts, n_folds, repeats):
    """ValueError where `n_folds` cannot be had with these accessions; says what can."""
    if n_folds < 0 or n_folds == 1 or repeats < 1:
        raise ValueError(
            f"n_folds={n_folds}, repeats={repeats}: n_folds must be 2 or more, or 0 to leave one "
            "accession out, and repeats 1 or more."
        )
    counts = facts.groupby("tumor_class")["accession"].nunique().reindex(CLASSES, fill_value=0)
    name, least = counts.idxmin(), int(counts.min())
    if least < 2:
        raise ValueError(
            f"Only {least} {name} accessions: training and test cannot both hold the class. "
            "Add slides of it."
        )
    if n_folds > least:
        raise ValueError(
            f"n_folds={n_folds}, but there are only {least} {name} accessions: some test part "
            f"would hold none. Use at most {least}, or n_folds=0 to leave one accession out."
        )


def rare_types(index, n_folds=5):
    """Sentences on the types with fewer accessions than folds; empty if none."""
    facts = slide_facts(index)
    counts = facts.groupby("tumor_type")["accession"].nunique()
    return [
        f"{name} has {n} accession{'s' * (n != 1)}: {n_folds - n} of {n_folds} folds test none "
        "of it. Leaving one accession out (n_folds = 0) tests each, and allows no firmer claim."
        for name, n in counts.items()
        if n < n_folds
    ]


def _test_parts(facts, protocol, n_folds, repeat, seed):
    """List of slides' boolean masks, one a fold: the test slides (protocols but ``image``)."""
    if protocol == "official":
        return [facts[f"fold{k}"].eq("test").to_numpy() for k in range(1, N_OFFICIAL + 1)]
    if protocol == "accession" and n_folds == 0:
        names = facts["accession"]
        return [names.eq(name).to_numpy() for name in sorted(names.unique())]
    n_parts = n_folds or DEFAULT_FOLDS
    parts = facts[protocol].map(deal(facts, protocol, n_parts, seed, protocol, repeat))
    return [parts.eq(k).to_numpy() for k in range(1, n_parts + 1)]


def _validation(facts, training, *key):
    """Names of the accessions that validate: about one in VAL_PARTS of the training ones.

    Fewer parts where a class has fewer accessions; none where a class has only one.
    """
    pool = facts[training]
    counts = pool.groupby("tumor_class")["accession"].nunique().reindex(CLASSES, fill_value=0)
    n_parts = min(VAL_PARTS, int(counts.min()))
    if n_parts < 2:
        return set()
    parts = deal(pool, "accession", n_parts, *key, "validation", starts=3)
    return set(parts.index[parts == 1])


def plan(facts, protocol, n_folds, repeats, seed):
    """List of (test mask over the rows of `facts` or None, validation accessions), one a fold."""
    folds = []
    for repeat in range(1, 2 if protocol == "official" else repeats + 1):
        if protocol == "image":
            tests = [None] * (n_folds or DEFAULT_FOLDS)
        else:
            tests = _test_parts(facts, protocol, n_folds, repeat, seed)
        for k, test in enumerate(tests, 1):
            training = np.ones(len(facts), bool) if test is None else ~test
            folds.append((test, _validation(facts, training, seed, protocol, repeat, k)))
    return folds


def _holds_both(facts, present, folds):
    """True if the present slides leave both classes in each part of each fold."""
    classes = facts["tumor_class"].to_numpy()
    for test, names in folds:
        val = facts["accession"].isin(names).to_numpy() & ~test
        parts = (~test & ~val, val, test)
        if any(len(set(classes[part & present])) < len(CLASSES) for part in parts):
            return False
    return True


def choose_basis(facts, n_folds, repeats, seed):
    """(basis, facts to plan with): all slides of the database, or the ones at hand."""
    known = slide_table()
    if facts["slide"].isin(known["slide"]).all():
        folds = plan(known, "accession", n_folds, repeats, seed)
        present = known["slide"].isin(facts["slide"]).to_numpy()
        complete = present.all() if n_folds == 0 else _holds_both(known, present, folds)
        if complete:
            return "database", known
    return "accessions at hand", facts


def _roles(index, facts, protocol, k, test, names, seed, n_parts):
    """Role of each image in fold `k` (from 1), an array of str."""
    if protocol == "image":
        part = index["image_id"].map(lambda i: hash_number(seed, "image", (k - 1) // n_parts, i))
        is_test = (part % n_parts == (k - 1) % n_parts).to_numpy()
    else:
        is_test = index["slide"].isin(set(facts.loc[test, "slide"])).to_numpy()
    return np.select([is_test, index["accession"].isin(names)], ["test", "val"], "train")


def make_splits(index, n_folds=5, repeats=1, seed=0, protocols=PROTOCOLS):
    """The table of splits: image_id, protocol, fold (int, from 1), role (train, val or test).

    index: DataFrame with image_id, slide, accession, tumor_class, tumor_type, magnification.
    Fold f of repeat r is number (r - 1) * n_folds + f. n_folds=0 leaves one accession out (and
    keeps DEFAULT_FOLDS folds for ``slide`` and ``image``). ``official`` has its five folds always.
    Each image has one role in each fold. ValueError where the request cannot be met.
    """
    index = index.sort_values("image_id", ignore_index=True)
    facts = slide_facts(index)
    check_request(facts, n_folds, repeats)
    foreign = sorted(set(index["slide"]) - set(slide_table()["slide"]))
    if "official" in protocols and foreign:
        raise ValueError(
            f"The official folds do not know {len(foreign)} slides: {', '.join(foreign[:5])}. "
            "Leave out protocol 'official', or these slides."
        )
    basis, facts = choose_basis(facts, n_folds, repeats, seed)
    frames = []
    for protocol in protocols:
        folds = plan(facts, protocol, n_folds, repeats, seed)
        for k, (test, names) in enumerate(folds, 1):
            role = _roles(index, facts, protocol, k, test, names, seed, n_folds or DEFAULT_FOLDS)
            frames.append(
                pd.DataFrame(
                    {"image_id": index["image_id"], "protocol": protocol, "fold": k, "role": role}
                )
            )
    out = pd.concat(frames, ignore_index=True)
    out.attrs["basis"] = basis
    return out


def fold_rows(index, splits, protocol, folds=None):
    """List of (fold, train, val, test): integer positions of rows of `index`, in its order.

    folds: the fold numbers wanted; None or empty: all. ValueError for one that does not exist.
    Folds of which the index has no test image are left out; ValueError where that leaves none.
    """
    mine = splits[splits["protocol"] == protocol]
    there = sorted(int(k) for k in mine["fold"].unique())
    wrong = sorted(set(folds or []) - set(there))
    if wrong or not there:
        raise ValueError(f"{protocol}: no fold {wrong or ''}; the table of splits has {there}.")
    place = pd.Series(np.arange(len(index)), index=index["image_id"].to_numpy())
    out = []
    for k in folds or there:
        rows = mine[(mine["fold"] == k) & mine["image_id"].isin(place.index)]
        at = place.loc[rows["image_id"]].to_numpy()
        parts = [np.sort(at[(rows["role"] == role).to_numpy()]) for role in ROLES]
        if len(parts[-1]):
            out.append((k, *parts))
    if not out:
        raise ValueError(
            f"{protocol}: folds {folds or there} test none of these {len(index)} images."
        )
    return out
