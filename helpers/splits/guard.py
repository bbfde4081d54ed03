"""The guard of the splits: what each protocol promises, and whether a table keeps it."""

import pandas as pd

LEAKY = ("official", "slide", "image")
ROLES = ("train", "val", "test")
KEEPS_APART = {
    "accession": ("image_id", "slide", "accession", "pixel_sha256"),
    "official": ("image_id", "slide"),
    "slide": ("image_id", "slide"),
    "image": ("image_id",),
}


def label(protocol):
    """The protocol's name for tables and figures: leaky ones carry the word."""
    return f"{protocol} (leaky)" if protocol in LEAKY else protocol


def _shared(rows, one, other, key):
    """Values of `key` that lie on both sides, boolean masks of rows: Series fold -> sorted list."""
    sides = [rows.loc[side, ["fold", key]].drop_duplicates() for side in (one, other)]
    return sides[0].merge(sides[1]).groupby("fold")[key].agg(sorted)


def overlap(index, splits, protocol):
    """What the test part of each fold shares with its train and val parts.

    Returns a DataFrame: fold, by (image_id, slide, accession, pixel_sha256), offenders (list).
    """
    mine = splits[splits["protocol"] == protocol].merge(index, on="image_id", how="left")
    folds = sorted(int(k) for k in mine["fold"].unique())
    test, out = mine["role"] == "test", []
    for key in (key for key in KEEPS_APART["accession"] if key in mine):
        both = _shared(mine, test, ~test, key)
        out += [{"fold": k, "by": key, "offenders": both.get(k, [])} for k in folds]
    return pd.DataFrame(out)


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
    found = overlap(index, splits, protocol)
    problems = []
    for row in found[found["by"].isin(KEEPS_APART[protocol])].itertuples():
        problems += [f"fold {row.fold}: {row.by} {x} is on both sides" for x in row.offenders]
    named = mine.merge(index[["image_id", "accession"]], on="image_id")
    within = _shared(named, named["role"] == "train", named["role"] == "val", "accession")
    for fold, names in within.items():
        problems += [f"fold {fold}: accession {x} is in both train and val" for x in names]
    problems = [*_not_whole(index, mine, protocol), *problems]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"Split {label(protocol)} leaks: {'; '.join(problems[:5])}{more}.")
    return {by: int(rows["offenders"].map(len).sum()) for by, rows in found.groupby("by")}
