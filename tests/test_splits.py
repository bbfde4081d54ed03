"""Splits: disjoint, whole, balanced, the same whatever the order, and guarded against leaks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import splits
from helpers.data import slide_table
from helpers.splits import balance

SLIDES = slide_table()


def images_of(slides, magnifications=(40, 100), per_slide=2):
    """An index with `per_slide` images of each slide at each magnification."""
    keys = ["slide", "accession", "tumor_class", "tumor_type"]
    rows = [
        dict(zip(keys, row, strict=True), magnification=m, image_id=f"{row[0]}-{m}-{k:03d}")
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
    benign, malignant = (
        SLIDES.loc[SLIDES["tumor_class"] == name, "accession"].unique()
        for name in ("benign", "malignant")
    )
    kept = [
        *draw(st.lists(st.sampled_from(list(benign)), min_size=3, max_size=7, unique=True)),
        *draw(st.lists(st.sampled_from(list(malignant)), min_size=3, max_size=9, unique=True)),
    ]
    index = images_of(SLIDES[SLIDES["accession"].isin(kept)], per_slide=draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    first = ~index.duplicated("slide")
    return index[first | (rng.random(len(index)) < 0.7)].reset_index(drop=True)


@settings(max_examples=15, deadline=None)
@given(parts_of_the_database(), st.sampled_from([0, 2, 3]), st.integers(0, 5))
def test_any_part_of_the_database_splits_soundly(index, n_folds, seed):
    plan = splits.make_splits(index, n_folds, seed=seed)
    for protocol in splits.PROTOCOLS:
        splits.check_disjoint(index, plan, protocol)
    assert set(plan["role"]) <= set(splits.ROLES)
    whole = plan.groupby(["protocol", "fold"])["image_id"].agg(["size", "nunique"])
    assert (whole == len(index)).all(axis=None)
    tests = plan[plan["role"] == "test"].groupby(["protocol", "image_id"]).size()
    assert (tests.drop("official", level=0, errors="ignore") == 1).all()
    for protocol in ("accession", "slide", "image"):
        assert tests[protocol].index.nunique() == len(index)


@settings(max_examples=6, deadline=None)
@given(parts_of_the_database(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(index, random):
    order = list(range(len(index)))
    random.shuffle(order)
    first = splits.make_splits(index, 3).to_csv()
    assert splits.make_splits(index.iloc[order], 3).to_csv() == first


@settings(max_examples=8, deadline=None)
@given(parts_of_the_database(), st.integers(0, 3))
def test_validation_shares_no_accession_with_training(index, seed):
    plan = splits.make_splits(index, 2, seed=seed).merge(index, on="image_id")
    for _, rows in plan.groupby(["protocol", "fold"]):
        train, val = (set(rows.loc[rows["role"] == r, "accession"]) for r in ("train", "val"))
        assert not train & val


def test_missing_images_move_no_other_image():
    some = INDEX[INDEX["magnification"].eq(100) & INDEX["image_id"].str.endswith("1")]
    plan = splits.make_splits(some)
    assert plan.attrs["basis"] == "database"
    keys = ["image_id", "protocol", "fold"]
    both = plan.merge(PLAN, on=keys, suffixes=("", "_all"))
    assert len(both) == len(plan)
    assert (both["role"] == both["role_all"]).all()


def test_a_seed_gives_the_same_bytes_and_another_seed_another_split():
    assert splits.make_splits(INDEX).to_csv() == PLAN.to_csv()
    assert splits.make_splits(INDEX, seed=1).to_csv() != PLAN.to_csv()


def test_repeats_test_every_image_once_each_in_folds_of_their_own():
    plan = splits.make_splits(INDEX, 3, repeats=2, protocols=("accession",))
    assert sorted(plan["fold"].unique()) == [1, 2, 3, 4, 5, 6]
    tests = plan[plan["role"] == "test"].assign(repeat=lambda t: (t["fold"] - 1) // 3)
    assert (tests.groupby(["repeat", "image_id"]).size() == 1).all()
    first, second = (tests[tests["repeat"] == r].set_index("image_id")["fold"] for r in (0, 1))
    assert (first != second.loc[first.index] - 3).any()


def test_official_folds_are_those_of_the_slide_list():
    plan = PLAN[PLAN["protocol"] == "official"].merge(INDEX, on="image_id")
    listed = SLIDES.set_index("slide")
    for fold, rows in plan.groupby("fold"):
        said = listed.loc[rows["slide"], f"fold{fold}"].to_numpy()
        assert (np.where(rows["role"] == "test", "test", "train") == said).all()


def test_official_folds_share_six_to_eight_accessions():
    found = splits.overlap(INDEX, PLAN, "official")
    shared = found[found["by"] == "accession"]["offenders"].map(len)
    assert shared.between(6, 8).all()


def test_folds_of_the_database_are_balanced():
    plan = PLAN[(PLAN["protocol"] == "accession") & (PLAN["role"] == "test")]
    parts = plan.merge(INDEX, on="image_id").drop_duplicates("accession")
    parts = parts.set_index("accession")["fold"]
    found = balance.balance_table(SLIDES, parts)
    assert sorted(found["benign accessions"]) == [3, 3, 3, 3, 4]
    assert sorted(found["malignant accessions"]) == [10, 11, 11, 11, 11]
    held = SLIDES.drop_duplicates(["accession", "tumor_type"])
    table = pd.crosstab(held["tumor_type"], held["accession"].map(parts))
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()
    plain = [balance.plain_parts(INDEX, 5, seed) for seed in range(10)]
    own, other = (balance.summary(SLIDES, deals) for deals in ([parts], plain))
    assert own["types lacking, sum"] < other["types lacking, sum"]


def test_exchanging_units_reaches_the_best_of_all_deals():
    numbers = [9, 7, 6, 5, 4, 3]
    slides = pd.DataFrame(
        {"accession": list("abcdef"), "tumor_class": "benign", "tumor_type": "F", "n_40x": numbers}
    )
    sums = slides["n_40x"].groupby(balance.deal(slides, "accession", 2, 0).to_numpy()).sum()
    assert sorted(sums) == [17, 17]  # 9 + 5 + 3 and 7 + 6 + 4


def test_leaving_one_accession_out():
    plan = splits.make_splits(INDEX, 0, protocols=("accession", "image"))
    tests = plan[plan["role"].eq("test") & plan["protocol"].eq("accession")]
    tests = tests.merge(INDEX, on="image_id")
    assert tests["fold"].nunique() == 70
    assert (tests.groupby("fold")["accession"].agg(lambda a: len(set(a))) == 1).all()
    assert plan.loc[plan["protocol"] == "image", "fold"].nunique() == splits.DEFAULT_FOLDS


@pytest.mark.parametrize("n_folds", [17, 100])
def test_too_many_folds_name_the_class_and_the_way_out(n_folds):
    with pytest.raises(ValueError, match="16 benign accessions.*leave one accession out"):
        splits.make_splits(INDEX, n_folds)


@pytest.mark.parametrize(("n_folds", "repeats"), [(1, 1), (-1, 1), (5, 0)])
def test_senseless_requests(n_folds, repeats):
    with pytest.raises(ValueError, match="n_folds"):
        splits.make_splits(INDEX, n_folds, repeats)


def test_a_class_that_is_missing():
    with pytest.raises(ValueError, match="Only 0 benign accessions"):
        splits.make_splits(INDEX[INDEX["tumor_class"] == "malignant"], 2)


def test_official_folds_refuse_slides_that_they_do_not_know():
    strange = INDEX.assign(slide=INDEX["slide"].replace("A-14-22549AB", "A-99-1"))
    with pytest.raises(ValueError, match="A-99-1"):
        splits.make_splits(strange)
    plan = splits.make_splits(strange, protocols=("accession", "slide", "image"))
    splits.check_disjoint(strange, plan, "accession")


def test_rare_types_are_named():
    lines = splits.rare_types(INDEX, 5)
    assert [line.split(" has ")[0] for line in lines] == ["A", "LC", "PT"]
    assert "A has 2 accessions: 3 of 5 folds test none" in lines[0]


def test_fold_rows_cover_the_index_and_refuse_unknown_folds():
    for _, *parts in splits.fold_rows(INDEX, PLAN, "accession", [2, 4]):
        assert sorted(np.concatenate(parts)) == list(range(len(INDEX)))
    with pytest.raises(ValueError, match=r"no fold \[9\]"):
        splits.fold_rows(INDEX, PLAN, "accession", [9])


def test_folds_without_a_test_image_at_hand_are_left_out():
    """A patient left out who has no image of the magnification that is studied."""
    tested = set(PLAN.query("protocol == 'accession' and fold == 2 and role == 'test'")["image_id"])
    some = INDEX[~INDEX["image_id"].isin(tested)].reset_index(drop=True)
    assert 2 not in [fold for fold, *_ in splits.fold_rows(some, PLAN, "accession")]
    with pytest.raises(ValueError, match=r"folds \[2\] test none of these"):
        splits.fold_rows(some, PLAN, "accession", [2])


def test_labels_carry_the_word():
    said = [splits.label(name) for name in splits.PROTOCOLS]
    assert said == ["accession", "official (leaky)", "slide (leaky)", "image (leaky)"]


def move(plan, protocol, fold, image_ids, role):
    """The plan with the role of some images changed."""
    out = plan.copy()
    rows = out["protocol"].eq(protocol) & out["fold"].eq(fold) & out["image_id"].isin(image_ids)
    out.loc[rows, "role"] = role
    return out


def test_a_sister_slide_on_the_other_side_is_caught():
    sisters = INDEX[INDEX["accession"] == "14-22549"]
    rows = PLAN.merge(sisters, on="image_id")
    rows = rows[rows["protocol"].eq("accession") & rows["role"].eq("test")]
    fold, one = int(rows["fold"].iloc[0]), sisters[sisters["slide"] == "A-14-22549AB"]
    planted = move(PLAN, "accession", fold, one["image_id"], "train")
    with pytest.raises(ValueError, match=f"fold {fold}: accession 14-22549 is on both sides"):
        splits.check_disjoint(INDEX, planted, "accession")


def test_a_renamed_copy_of_an_image_is_caught():
    rows = PLAN[PLAN["protocol"].eq("accession") & PLAN["fold"].eq(1)].set_index("image_id")["role"]
    learnt, tested = rows[rows == "train"].index[0], rows[rows == "test"].index[0]
    copied = INDEX.copy()
    copied.loc[copied["image_id"] == learnt, "pixel_sha256"] = f"pixels of {tested}"
    with pytest.raises(ValueError, match="pixel_sha256 pixels of"):
        splits.check_disjoint(copied, PLAN, "accession")
    assert splits.check_disjoint(copied, PLAN, "slide")["pixel_sha256"] >= 0


def test_an_image_in_two_roles_is_caught_under_every_protocol():
    for protocol in splits.PROTOCOLS:
        row = PLAN[PLAN["protocol"].eq(protocol) & PLAN["role"].eq("test")].iloc[[0]]
        planted = pd.concat([PLAN, row.assign(role="train")])
        with pytest.raises(ValueError, match=f"{row['image_id'].iloc[0]} has two roles"):
            splits.check_disjoint(INDEX, planted, protocol)


def test_a_slide_on_both_sides_is_caught_where_slides_are_promised():
    rows = PLAN[PLAN["protocol"].eq("slide") & PLAN["role"].eq("test")]
    planted = move(PLAN, "slide", int(rows["fold"].iloc[0]), rows["image_id"].iloc[:1], "train")
    with pytest.raises(ValueError, match="slide .* is on both sides"):
        splits.check_disjoint(INDEX, planted, "slide")


def test_images_without_a_role_are_caught():
    some = PLAN[PLAN["image_id"] != INDEX["image_id"].iloc[0]]
    with pytest.raises(ValueError, match="only one of index and splits"):
        splits.check_disjoint(INDEX, some, "accession")


def test_training_and_validation_that_share_an_accession_are_caught():
    for protocol in splits.PROTOCOLS:
        rows = PLAN[PLAN["protocol"].eq(protocol) & PLAN["fold"].eq(2) & PLAN["role"].eq("val")]
        one = rows["image_id"].iloc[0]
        accession = INDEX.set_index("image_id").loc[one, "accession"]
        planted = move(PLAN, protocol, 2, [one], "train")
        said = f"fold 2: accession {accession} is in both train and val"
        with pytest.raises(ValueError, match=said):
            splits.check_disjoint(INDEX, planted, protocol)


def test_an_image_missing_from_one_fold_is_caught():
    one = INDEX["image_id"].iloc[0]
    for protocol in splits.PROTOCOLS:
        gone = PLAN["protocol"].eq(protocol) & PLAN["fold"].eq(3) & PLAN["image_id"].eq(one)
        with pytest.raises(ValueError, match=f"{one} has no role in fold 3"):
            splits.check_disjoint(INDEX, PLAN[~gone], protocol)


def test_an_unknown_role_is_caught():
    one = INDEX["image_id"].iloc[0]
    for protocol in splits.PROTOCOLS:
        with pytest.raises(ValueError, match=f"{one} has the unknown role 'holdout'"):
            splits.check_disjoint(INDEX, move(PLAN, protocol, 1, [one], "holdout"), protocol)


def test_an_accession_that_no_fold_tests_or_two_folds_test_is_caught():
    whole = INDEX.loc[INDEX["accession"] == "14-22549", "image_id"]
    mine = PLAN[PLAN["protocol"].eq("accession") & PLAN["image_id"].isin(whole)]
    tested = int(mine.loc[mine["role"] == "test", "fold"].iloc[0])
    never = move(PLAN, "accession", tested, whole, "train")
    with pytest.raises(ValueError, match=f"{min(whole)} is tested 0 times"):
        splits.check_disjoint(INDEX, never, "accession")
    again = move(PLAN, "accession", tested % 5 + 1, whole, "test")
    with pytest.raises(ValueError, match=f"{min(whole)} is tested 2 times"):
        splits.check_disjoint(INDEX, again, "accession")


def test_a_table_for_some_of_the_images_passes():
    some = INDEX[INDEX["magnification"] == 40].reset_index(drop=True)
    plan = PLAN[PLAN["image_id"].isin(some["image_id"])]
    for protocol in splits.PROTOCOLS:
        splits.check_disjoint(some, plan, protocol)
    repeated = splits.make_splits(some, 3, repeats=2, protocols=("accession",))
    splits.check_disjoint(some, repeated, "accession")
