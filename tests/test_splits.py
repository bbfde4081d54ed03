"""Splits: what each protocol promises, the committed folds, and the guard against every offence."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import splits
from helpers.data import slide_table
from helpers.results import ROOT

SLIDES = slide_table()
FOLDS = pd.read_csv(ROOT / "data" / "folds.csv")


def images_of(slides, magnifications=(40, 100), per_slide=2):
    """An index with `per_slide` images of each slide at each magnification."""
    keys = ["slide", "accession", "tumor_class", "tumor_type"]
    rows = [
        dict(zip(keys, row, strict=True), magnification=m, image_id=f"SOB_{row[0]}-{m}-{k:03d}")
        for row in slides[keys].itertuples(index=False)
        for m in magnifications
        for k in range(1, per_slide + 1)
    ]
    out = pd.DataFrame(rows)
    out["pixel_sha256"] = "pixels of " + out["image_id"]
    return out


INDEX = images_of(SLIDES)
PLAN = splits.make_splits(INDEX)


@st.composite
def parts_of_the_database(draw):
    """An index of some slides with at least three accessions of each class, some images missing."""
    kept = []
    for name, most in (("benign", 7), ("malignant", 9)):
        there = SLIDES.loc[SLIDES["tumor_class"] == name, "accession"].unique().tolist()
        kept += draw(st.lists(st.sampled_from(there), min_size=3, max_size=most, unique=True))
    index = images_of(SLIDES[SLIDES["accession"].isin(kept)], per_slide=draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    kept = ~index.duplicated("slide") | (rng.random(len(index)) < 0.7)
    return index[kept].reset_index(drop=True)


@settings(max_examples=12, deadline=None)
@given(parts_of_the_database(), st.integers(0, 5))
def test_any_part_of_the_database_splits_soundly(index, seed):
    plan = splits.make_splits(index, 3, seed=seed)
    for protocol in splits.PROTOCOLS:
        splits.check_disjoint(index, plan, protocol)
    assert set(plan["role"]) <= set(splits.ROLES)
    whole = plan.groupby(["protocol", "fold"])["image_id"].agg(["size", "nunique"])
    assert (whole == len(index)).all(axis=None)
    tests = plan[plan["role"] == "test"].groupby(["protocol", "image_id"]).size()
    for protocol in ("accession", "slide", "image"):
        assert tests[protocol].eq(1).all()
        assert len(tests[protocol]) == len(index)
    named = plan[plan["protocol"] == "accession"].merge(index, on="image_id")
    assert named.groupby(["fold", "role"])["tumor_class"].nunique().eq(2).all()


@settings(max_examples=5, deadline=None)
@given(parts_of_the_database(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(index, random):
    order = list(range(len(index)))
    random.shuffle(order)
    first = splits.make_splits(index, 3).to_csv()
    assert splits.make_splits(index.iloc[order], 3).to_csv() == first


def test_the_committed_folds_are_these_and_balanced():
    content = (ROOT / "data" / "folds.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("24299cfde25b6cbf")
    assert FOLDS["accession"].tolist() == sorted(SLIDES["accession"].unique())
    counts = pd.crosstab(FOLDS["fold"], FOLDS["tumor_class"])
    assert sorted(counts["benign"]) == [3, 3, 3, 3, 4]
    assert sorted(counts["malignant"]) == [10, 11, 11, 11, 11]
    held = FOLDS.assign(tumor_type=FOLDS["tumor_types"].str.split()).explode("tumor_type")
    table = pd.crosstab(held["tumor_type"], held["fold"])
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()
    images = FOLDS.groupby(["tumor_class", "fold"])["n_images"].sum()
    assert images.sum() == 7909
    assert (images["malignant"].max() - images["malignant"].min()) < 15


def test_the_whole_database_gets_the_committed_folds():
    tested = PLAN[PLAN["protocol"].eq("accession") & PLAN["role"].eq("test")]
    due = INDEX.set_index("image_id")["accession"].map(FOLDS.set_index("accession")["fold"])
    assert tested.set_index("image_id")["fold"].to_dict() == due.to_dict()
    other = splits.make_splits(INDEX, seed=9, protocols=("accession",))
    assert other.equals(PLAN[PLAN["protocol"] == "accession"])  # fixed, whatever the seed


def test_the_folds_are_used_as_the_data_card_says(tmp_path, monkeypatch):
    """The three lines of pandas, run as they stand."""
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    lines = card[card.index("folds = pd.read_csv") :].partition("```")[0]
    images = pd.DataFrame({"name": INDEX["image_id"] + ".png"})
    monkeypatch.chdir(ROOT / "data")
    space = {"pd": pd, "images": images}
    exec(lines, space)
    tested = PLAN[PLAN["protocol"].eq("accession") & PLAN["role"].eq("test")]
    found = space["images"].assign(image_id=lambda t: t["name"].str[:-4])
    assert len(found) == len(INDEX)
    assert found.merge(tested, on=["image_id", "fold"]).shape[0] == len(INDEX)


def test_part_k_is_tested_and_the_next_validates():
    for fold in splits.folds(INDEX, PLAN, "accession"):
        part = INDEX["accession"].map(FOLDS.set_index("accession")["fold"])
        assert set(part.iloc[fold.test]) == {fold.number}
        assert set(part.iloc[fold.val]) == {fold.number % 5 + 1}
        assert list(fold.known) == sorted([*fold.train, *fold.val])


def test_validation_is_of_both_classes_and_of_patients_not_trained_on():
    few = INDEX[INDEX["accession"].isin(FOLDS.groupby("tumor_class")["accession"].head(7))]
    for index, plan in ((INDEX, PLAN), (few, splits.make_splits(few, 5, 2, seed=3))):
        rows = plan.merge(index, on="image_id")
        for _, fold in rows.groupby(["protocol", "fold"]):
            train, val = (fold[fold["role"] == role] for role in ("train", "val"))
            assert set(val["tumor_class"]) == {"benign", "malignant"}
            assert not set(train["accession"]) & set(val["accession"])


def test_a_seed_gives_the_same_bytes_and_another_seed_another_split():
    assert splits.make_splits(INDEX).to_csv() == PLAN.to_csv()
    first, second = (splits.make_splits(INDEX, 4, seed=seed) for seed in (0, 1))
    for protocol in ("accession", "slide", "image"):
        roles = [
            plan.loc[plan["protocol"] == protocol, "role"].tolist() for plan in (first, second)
        ]
        assert roles[0] != roles[1]


def test_repeats_test_every_image_once_each_in_folds_of_their_own():
    plan = splits.make_splits(INDEX, 3, repeats=2, protocols=("accession", "official"))
    assert sorted(plan.loc[plan["protocol"] == "official", "fold"].unique()) == [1, 2, 3, 4, 5]
    tests = plan[plan["role"].eq("test") & plan["protocol"].eq("accession")]
    tests = tests.assign(repeat=lambda t: (t["fold"] - 1) // 3)
    assert sorted(tests["fold"].unique()) == [1, 2, 3, 4, 5, 6]
    assert (tests.groupby(["repeat", "image_id"]).size() == 1).all()
    first, second = (tests[tests["repeat"] == r].set_index("image_id")["fold"] for r in (0, 1))
    assert (first != second.loc[first.index] - 3).any()


def test_official_folds_are_those_of_the_slide_list():
    plan = PLAN[PLAN["protocol"] == "official"].merge(INDEX, on="image_id")
    listed = SLIDES.set_index("slide")
    for fold, rows in plan.groupby("fold"):
        said = listed.loc[rows["slide"], f"fold{fold}"].to_numpy()
        assert (np.where(rows["role"] == "test", "test", "train") == said).all()
    shared = splits.overlap(INDEX, PLAN, "official").set_index("by").loc["accession", "offenders"]
    assert shared.map(len).between(6, 8).all()


@pytest.mark.parametrize(
    ("n_folds", "repeats", "said"),
    [(17, 1, "16 benign accessions.*Use 16 folds"), (2, 1, "3 or more"), (5, 0, "repeats 1")],
)
def test_senseless_requests_name_the_way_out(n_folds, repeats, said):
    with pytest.raises(ValueError, match=said):
        splits.make_splits(INDEX, n_folds, repeats)


def test_a_class_that_is_missing():
    with pytest.raises(ValueError, match="only 0 benign accessions.*Add images"):
        splits.make_splits(INDEX[INDEX["tumor_class"] == "malignant"], 3)


def test_official_folds_refuse_slides_that_they_do_not_know():
    strange = INDEX.assign(slide=INDEX["slide"].replace("A-14-22549AB", "A-99-1"))
    with pytest.raises(ValueError, match="A-99-1"):
        splits.make_splits(strange)
    plan = splits.make_splits(strange, protocols=("accession", "slide", "image"))
    splits.check_disjoint(strange, plan, "accession")


def test_folds_cover_the_index_and_refuse_unknown_numbers():
    for fold in splits.folds(INDEX, PLAN, "accession", [2, 4]):
        every = np.concatenate([fold.train, fold.val, fold.test])
        assert sorted(every) == list(range(len(INDEX)))
    with pytest.raises(ValueError, match=r"no fold \[9\]"):
        splits.folds(INDEX, PLAN, "accession", [9])


def test_folds_of_some_of_the_images():
    """Positions are those of the index given; a fold that tests none of it is left out."""
    tested = set(PLAN.query("protocol == 'accession' and fold == 2 and role == 'test'")["image_id"])
    some = INDEX[INDEX["magnification"].eq(40) & ~INDEX["image_id"].isin(tested)]
    some = some.sample(frac=1, random_state=0).reset_index(drop=True)
    found = splits.folds(some, PLAN, "accession")
    assert [fold.number for fold in found] == [1, 3, 4, 5]
    part = some["accession"].map(FOLDS.set_index("accession")["fold"])
    assert set(part.iloc[found[1].test]) == {3}
    with pytest.raises(ValueError, match=r"folds \[2\] test none of these"):
        splits.folds(some, PLAN, "accession", [2])


def test_labels_carry_the_word():
    said = [splits.label(name) for name in splits.PROTOCOLS]
    assert said == ["patient", "official (leaky)", "slide (leaky)", "image (leaky)"]


# The guard ---------------------------------------------------------------------------------------


def move(protocol, fold, image_ids, role):
    """The plan with the role of some images changed."""
    out = PLAN.copy()
    rows = out["protocol"].eq(protocol) & out["fold"].eq(fold) & out["image_id"].isin(image_ids)
    out.loc[rows, "role"] = role
    return out


def images_in(protocol, fold, role):
    rows = PLAN["protocol"].eq(protocol) & PLAN["fold"].eq(fold) & PLAN["role"].eq(role)
    return PLAN.loc[rows, "image_id"]


def test_a_sister_slide_on_the_other_side_is_caught():
    fold = int(FOLDS.set_index("accession").loc["14-22549", "fold"])
    one = INDEX.loc[INDEX["slide"] == "A-14-22549AB", "image_id"]
    planted = move("accession", fold, one, "train")
    said = f"fold {fold}: accession 14-22549 is on both sides"
    with pytest.raises(ValueError, match=said):
        splits.check_disjoint(INDEX, planted, "accession")
    with pytest.raises(ValueError, match="Split accession leaks"):
        splits.folds(INDEX, planted, "accession")


def test_a_renamed_copy_of_an_image_is_caught():
    learnt, tested = (images_in("accession", 1, role).iloc[0] for role in ("train", "test"))
    copied = INDEX.copy()
    copied.loc[copied["image_id"] == learnt, "pixel_sha256"] = f"pixels of {tested}"
    with pytest.raises(ValueError, match="pixel_sha256 pixels of"):
        splits.check_disjoint(copied, PLAN, "accession")
    assert splits.check_disjoint(copied, PLAN, "slide")["pixel_sha256"] >= 0


def test_a_slide_on_both_sides_is_caught_where_slides_are_promised():
    planted = move("slide", 1, images_in("slide", 1, "test").iloc[:1], "train")
    with pytest.raises(ValueError, match="slide .* is on both sides"):
        splits.check_disjoint(INDEX, planted, "slide")


def test_an_accession_that_no_fold_tests_or_two_folds_test_is_caught():
    whole = INDEX.loc[INDEX["accession"] == "14-22549", "image_id"]
    tested = int(FOLDS.set_index("accession").loc["14-22549", "fold"])
    never = move("accession", tested, whole, "train")
    with pytest.raises(ValueError, match=f"{min(whole)} is tested 0 times"):
        splits.check_disjoint(INDEX, never, "accession")
    again = move("accession", tested % 5 + 1, whole, "test")
    with pytest.raises(ValueError, match=f"{min(whole)} is tested 2 times"):
        splits.check_disjoint(INDEX, again, "accession")


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_offences_under_every_protocol_are_caught(protocol):
    one, name = INDEX["image_id"].iloc[0], images_in(protocol, 2, "val").iloc[0]
    accession = INDEX.set_index("image_id").loc[name, "accession"]
    mine = PLAN["protocol"].eq(protocol) & PLAN["image_id"].eq(one) & PLAN["fold"].eq(3)
    offences = {
        f"{one} has two roles": pd.concat([PLAN, PLAN[mine].assign(role="test")]),
        f"{one} has no role in fold 3": PLAN[~mine],
        f"{one} is in only one of index and splits": PLAN[PLAN["image_id"] != one],
        f"{one} has the unknown role 'holdout'": move(protocol, 1, [one], "holdout"),
        f"fold 2: accession {accession} is in both train and val": move(
            protocol, 2, [name], "train"
        ),
        "has no protocol": PLAN[PLAN["protocol"] != protocol],
    }
    for said, planted in offences.items():
        with pytest.raises(ValueError, match=said):
            splits.check_disjoint(INDEX, planted, protocol)


def test_the_guard_counts_what_is_shared():
    assert set(splits.check_disjoint(INDEX, PLAN, "accession").values()) == {0}
    assert splits.check_disjoint(INDEX, PLAN, "slide")["slide"] == 0
    assert splits.check_disjoint(INDEX, PLAN, "slide")["accession"] > 0
    assert splits.check_disjoint(INDEX, PLAN, "image")["accession"] > 200
