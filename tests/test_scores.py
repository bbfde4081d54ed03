"""Scores against hand-worked values and scikit-learn, and how far their intervals cover."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, norm, t
from sklearn import metrics as sk

from helpers import scores
from helpers.data import TUMOR_TYPES
from helpers.results import METRIC_COLUMNS, P_TYPES
from helpers.scores import MIN_PATIENTS, Rows

TYPES = np.array(TUMOR_TYPES)


def frame(p, y, accession=None, slide=None, fold=1, seed=0, protocol="accession", model="m"):
    """Predictions of malignancy with one image a value."""
    n = len(p)
    accession = np.arange(n) if accession is None else np.asarray(accession)
    malignant = np.asarray(y) == 1
    columns = {
        "image_id": [f"image {i}" for i in range(n)],
        "slide": (accession if slide is None else np.asarray(slide)).astype(str),
        "accession": accession.astype(str),
        "magnification": 100,
        "tumor_class": np.where(malignant, "malignant", "benign"),
        "tumor_type": np.where(malignant, "DC", "F"),
        "task": "malignancy",
        "protocol": protocol,
        "fold": fold,
        "seed": seed,
        "model": model,
        "p_malignant": np.asarray(p, float),
    }
    return pd.DataFrame(columns)


def random_frame(n=400, n_accessions=30, seed=0, model="m"):
    rng = np.random.default_rng(seed)
    accession = rng.integers(n_accessions, size=n)
    y = (accession % 3 > 0).astype(int)
    patient = 0.4 * rng.random(n_accessions)[accession]
    return frame(np.round(rng.random(n) * 0.4 + patient + 0.2 * y, 2), y, accession, model=model), y


def types_frame(seed=0, n=600):
    """Predictions of types on 40 accessions of seven types; PC never occurs."""
    rng = np.random.default_rng(seed)
    accession = rng.integers(40, size=n)
    kind = TYPES[accession % 7]
    p = rng.dirichlet(np.ones(8), size=n) + 0.2 * (kind[:, None] == TYPES)
    p /= p.sum(axis=1, keepdims=True)
    out = frame(p[:, 4:].sum(axis=1), np.isin(kind, TYPES[4:]), accession)
    out[P_TYPES] = p
    return out.assign(tumor_type=kind, task="tumor_type")


def values(predictions, level="image", n_boot=50):
    rows = scores.evaluate(predictions, n_boot)
    return rows[(rows["level"] == level) & (rows["magnification"] == "all")].set_index("metric")


def test_hand_worked():
    found = values(frame([0.9, 0.6, 0.4, 0.3, 0.7], [1, 1, 1, 0, 0]))["value"]
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["balanced_accuracy"] == pytest.approx(7 / 12)
    assert found["auc"] == pytest.approx(4 / 6)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.09 + 0.49) / 5)
    assert "recognition_rate" not in found


def test_against_scikit_learn_with_ties():
    predictions, y = random_frame()
    p = predictions["p_malignant"].to_numpy()
    found = values(predictions)["value"]
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, p >= 0.5))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p >= 0.5))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))
    assert found["sensitivity"] == pytest.approx(sk.recall_score(y, p >= 0.5))


def test_types_against_scikit_learn():
    predictions = types_frame()
    said, true = TYPES[predictions[P_TYPES].to_numpy().argmax(axis=1)], predictions["tumor_type"]
    found, labels = values(predictions)["value"], list(TYPES[:7])
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    f1 = sk.f1_score(true, said, labels=labels, average="macro")
    assert found["macro_f1"] == pytest.approx(f1)
    recalls = sk.recall_score(true, said, labels=labels, average=None)
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    for name, recall in zip(labels, recalls, strict=True):
        assert found[f"recall_{name}"] == pytest.approx(recall)
    assert "recall_PC" not in found


def test_no_recall_of_a_type_with_few_patients():
    predictions = types_frame()
    of_type = predictions["tumor_type"] == "A"
    few = sorted(predictions.loc[of_type, "accession"].unique())[: MIN_PATIENTS - 1]
    found = values(predictions[~of_type | predictions["accession"].isin(few)])
    assert "recall_A" not in found.index
    assert found.loc["macro_f1":"macro_f1", "ci_low"].isna().all()  # the mean needs every type
    assert found.loc["accuracy":"recall_TA", "ci_low"].notna().any()


def test_calibration_of_planted_scores():
    rng = np.random.default_rng(0)
    z = rng.normal(size=20000) * 1.5
    y = rng.random(20000) < 1 / (1 + np.exp(-z))
    told = 1 / (1 + np.exp(-(2 * z + 0.5)))  # says too much, and half a unit too high
    found = values(frame(told, y, np.arange(20000) // 2))
    assert found.loc["calibration_slope", "value"] == pytest.approx(0.5, abs=0.02)
    assert found.loc["calibration_intercept", "value"] < -0.2
    assert (
        found.loc["calibration_slope", "ci_low"] < 0.5 < found.loc["calibration_slope", "ci_high"]
    )
    separated = values(frame([0.9, 0.8, 0.6, 0.4, 0.2], [1, 1, 1, 0, 0]))
    assert "calibration_slope" not in separated.index


def test_groups_score_the_mean_of_their_images():
    p, y = [0.9, 0.2, 0.6, 0.1, 0.3, 0.8], [1, 1, 1, 0, 0, 0]
    predictions = frame(p, y, accession=[1, 1, 2, 3, 3, 3], slide=[1, 2, 3, 4, 4, 5])
    slides, cases = (values(predictions, level)["value"] for level in ("slide", "accession"))
    # slides: 0.9+ 0.2- 0.6+ | 0.2- 0.8+; accessions: 0.55, 0.6 | 0.4
    assert slides["accuracy"] == pytest.approx(3 / 5)
    assert slides["auc"] == pytest.approx((2 + 0.5 + 1) / 6)
    assert slides["recognition_rate"] == pytest.approx((1 + 0 + 1 + 1 + 0) / 5)
    assert cases["accuracy"] == 1.0
    assert cases["recognition_rate"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)


def test_means_of_equal_scores_tie():
    y = np.repeat([1, 0], 21)
    predictions = frame(np.full(42, 0.7), y, accession=np.repeat([1, 2, 3, 4], [3, 18, 7, 14]))
    assert values(predictions, "accession")["value"]["auc"] == 0.5


def test_undefined_metrics_are_left_out():
    found = values(frame([0.9, 0.2], [1, 1]))
    assert not {"auc", "balanced_accuracy", "specificity"} & set(found.index)
    assert found.loc["sensitivity", "value"] == 0.5


def test_folds_are_pooled_repeats_and_seeds_averaged():
    p, y = np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, 0, 0])
    pooled = pd.concat([frame(p, y).iloc[:2].assign(fold=1), frame(p, y).iloc[2:].assign(fold=2)])
    assert values(pooled)["value"]["auc"] == pytest.approx(3 / 4)
    again = frame(1 - p, y).assign(fold=[3, 4, 4, 3])
    both = values(pd.concat([again, pooled]))["value"]
    assert both["auc"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    seeds = values(pd.concat([pooled, pooled.assign(seed=1, p_malignant=[1, 1, 0, 0])]))["value"]
    assert seeds["auc"] == pytest.approx((3 / 4 + 1) / 2)


def test_official_folds_are_scored_one_by_one_and_averaged():
    first = frame([0.9, 0.8, 0.1], [1, 1, 0], [1, 2, 3], fold=1, protocol="official")
    second = frame([0.2, 0.3], [1, 0], [1, 3], fold=2, protocol="official")
    one_class = frame([0.4], [1], [2], fold=3, protocol="official")
    found = values(pd.concat([first, second, one_class]))["value"]
    assert found["auc"] == pytest.approx((1 + 0) / 2)
    assert found["accuracy"] == pytest.approx((1 + 1 / 2 + 0) / 3)


# Intervals ---------------------------------------------------------------------------------------


def test_wilson_is_scipys_and_patients_get_it():
    y, p = np.repeat([0, 1], [7, 18]), np.r_[np.full(5, 0.2), np.full(2, 0.8), np.full(18, 0.9)]
    found = values(frame(p, y), "accession")
    for metric, k, n in (("specificity", 5, 7), ("sensitivity", 18, 18), ("accuracy", 23, 25)):
        due = binomtest(k, n).proportion_ci(method="wilson")
        assert found.loc[metric, ["ci_low", "ci_high"]].tolist() == pytest.approx(list(due))


def test_auc_interval_of_one_image_a_patient_is_delongs():
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [9, 14])
    s = rng.normal(size=23) + y
    wins = (s[y == 1][:, None] > s[y == 0]).mean()
    v10, v01 = (s[y == 1][:, None] > s[y == 0]).mean(1), (s[y == 1][:, None] > s[y == 0]).mean(0)
    se = np.sqrt(v10.var(ddof=1) / 14 + v01.var(ddof=1) / 9) / (wins * (1 - wins))
    middle, t = np.log(wins / (1 - wins)), 2.306004  # 8 degrees of freedom
    due = [1 / (1 + np.exp(-(middle + sign * t * se))) for sign in (-1, 1)]
    assert scores.auc_interval(s, y, np.arange(23)) == pytest.approx([wins, *due], abs=1e-6)


def test_newcombe_where_the_auc_is_one():
    y = np.repeat([0, 1], [7, 18])
    value, low, high = scores.auc_interval(y, y, np.arange(25))
    assert (value, high) == (1, 1)
    assert scores.auc_interval(1 - y, y, np.arange(25))[2] == pytest.approx(1 - low)
    # the bound solves 1 - auc = z times the standard error at auc
    shape = 1 + 11.5 * ((1 - low) / (2 - low) + low / (1 + low))
    assert (1 - low) ** 2 == pytest.approx(1.959964**2 * low * (1 - low) * shape / 126, rel=1e-5)


def test_few_patients_have_a_value_and_no_interval():
    y = np.repeat([0, 1], [8, 20])
    found = values(frame(np.linspace(0.3, 0.7, 28), y, accession=np.r_[np.arange(8) // 2, 10:30]))
    assert found.loc[["auc", "specificity", "balanced_accuracy"], "ci_low"].isna().all()
    assert found.loc[["sensitivity", "accuracy", "brier"], "ci_low"].notna().all()


def test_no_interval_has_no_width():
    y = np.repeat([0, 1], [6, 9])
    for p in (y, 1 - y, np.full(15, 0.7)):
        rows = scores.evaluate(frame(p, y))
        assert (rows["ci_high"] - rows["ci_low"]).dropna().gt(1e-6).all()
        assert rows.loc[rows["metric"] != "brier", "ci_low"].notna().all()


def test_the_same_run_twice_narrows_nothing():
    once, _ = random_frame()
    twice = pd.concat([once, once.assign(seed=1)])
    for level in scores.LEVELS:
        first, second = (values(f, level)[["value", "ci_low", "ci_high"]] for f in (once, twice))
        pd.testing.assert_frame_equal(first, second)


def drawn_patients(rng, n_benign, n_malignant, auc, specificity, folds=False):
    """Lists of Rows by level: ten images a patient, patients' effects as large as the images'."""
    y, sd = np.repeat([0, 1], [n_benign, n_malignant]), 1.1**0.5
    low = 0.5 - norm.ppf(specificity) * sd
    mean = low + y * norm.ppf(auc) * sd * 2**0.5 + rng.normal(size=len(y))
    score = mean[:, None] + rng.normal(size=(len(y), 10))
    code = np.repeat(np.arange(len(y)), 10)
    rows = {
        "image": Rows(code, y[code], score.ravel(), y[code]),
        "accession": Rows(np.arange(len(y)), y, score.mean(axis=1), y),
    }
    if not folds:
        return {level: [each] for level, each in rows.items()}
    tests = [rng.permutation(n_benign)[: n_benign // 2] for _ in range(5)]
    tests = [np.r_[t, n_benign + rng.permutation(n_malignant)[: n_malignant // 2]] for t in tests]
    return {
        level: [Rows(*(column[np.isin(each.code, t)] for column in each)) for t in tests]
        for level, each in rows.items()
    }


def true_scores(auc, specificity):
    """(level, metric) -> the value over all such patients."""
    patients, images = 1.1**0.5, 2**0.5
    low = 0.5 - norm.ppf(specificity) * patients
    high = low + norm.ppf(auc) * patients * 2**0.5
    out = {}
    for level, sd in (("image", images), ("accession", patients)):
        cleared, hit = norm.cdf((0.5 - low) / sd), norm.cdf((high - 0.5) / sd)
        out[level, "auc"] = norm.cdf((high - low) / sd / 2**0.5)
        out |= {(level, "specificity"): cleared, (level, "balanced_accuracy"): (cleared + hit) / 2}
    del out["accession", "specificity"]  # not drawn but summed, below
    return out


CASES = [
    (n, *true) for n in ((7, 18), (16, 54)) for true in ((0.75, 0.85), (0.87, 0.9), (0.95, 0.95))
]


@pytest.mark.parametrize(
    ("n", "auc", "specificity", "folds"),
    [*((*case, False) for case in CASES), ((16, 54), 0.87, 0.9, True)],
)
def test_intervals_cover(n, auc, specificity, folds, monkeypatch):
    monkeypatch.setattr(scores, "_calibration", lambda *_: {})
    rng, true = np.random.default_rng(0), true_scores(auc, specificity)
    inside = {key: [] for key in true}
    for _ in range(1000):
        rows = drawn_patients(rng, *n, auc, specificity, folds)
        found = {level: scores._malignancy(runs, sum(n), level) for level, runs in rows.items()}
        for (level, metric), value in true.items():
            low, high = found[level][metric].limits()
            inside[level, metric].append(low <= value <= high)
    assert min(np.mean(each) for each in inside.values()) >= 0.92, {
        key: np.mean(each) for key, each in inside.items()
    }


@pytest.mark.parametrize("n", [7, 16])
@pytest.mark.parametrize("specificity", [0.85, 0.9, 0.95])
def test_intervals_of_patients_shares_cover(n, specificity):
    cover = 0
    for k in range(n + 1):
        y, p = np.repeat([0, 1], [n, 5]), np.r_[np.full(k, 0.1), np.full(n - k + 5, 0.9)]
        row = values(frame(p, y), "accession").loc["specificity"]
        cover += binom.pmf(k, n, specificity) * (row["ci_low"] <= specificity <= row["ci_high"])
    assert cover >= 0.92


def test_mean_interval_resamples_patients():
    groups = np.repeat(list("abcdefgh"), 10)
    found = scores.mean_interval(np.repeat([0, 0, 1, 0, 1, 1, 0, 1], 10), groups)
    assert found["value"] == 0.5
    assert found["ci_low"] < 0.2
    assert (found["n_images"], found["n_groups"]) == (80, 8)
    some = scores.mean_interval([1, np.nan, 0], ["a", "a", "b"])
    assert (some["value"], some["n_images"]) == (0.5, 2)
    assert np.isnan(some["ci_low"])
    assert scores.mean_interval([np.nan], ["a"])["n_groups"] == 0


# Comparisons -------------------------------------------------------------------------------------


def test_compare_pairs_the_same_accessions():
    a, y = random_frame()
    b = a.assign(model="b", p_malignant=1 - a["p_malignant"])
    found = scores.compare(pd.concat([a, b]), {"a - b": ("m", "b")}, level="image").iloc[0]
    auc = sk.roc_auc_score(y, a["p_malignant"])
    assert found["value"] == pytest.approx(2 * auc - 1)
    assert (found["n_groups"], found["n_images"]) == (30, 400)
    assert found["ci_low"] > 0
    assert found["p"] < 0.01
    same = pd.concat([a, a.assign(model="b")])
    for metric in ("auc", "specificity", "balanced_accuracy", "brier"):
        row = scores.compare(same, {"": ("m", "b")}, metric).iloc[0]
        assert (row["value"], row["p"]) == (0, 1)
        assert np.isnan(row["ci_low"])


def test_sides_may_be_other_images_of_the_same_patients():
    a, _ = random_frame()
    a["magnification"] = np.where(np.arange(400) % 2, 40, 400)
    few = a[a["accession"].astype(int) < 25].assign(protocol="image")
    few["p_malignant"] = few["p_malignant"] ** 2 * np.tile([1, 0.5], 200)[: len(few)]
    sides = {"model": "m", "protocol": "accession"}, {"model": "m", "protocol": "image"}
    pairs = {
        "40X - 400X": (sides[0] | {"magnification": 40}, sides[0] | {"magnification": 400}),
        "protocols": sides,
    }
    table = scores.compare(pd.concat([a, few]), pairs)
    assert table["n_groups"].tolist() == [30, 25]
    assert table["ci_low"].notna().all()
    types = types_frame(1)
    both = pd.concat([types, types_frame(2).assign(model="b", image_id=types["image_id"])])
    assert scores.compare(both, {"f1": ("m", "b")}, "macro_f1", n_boot=200)["p"].between(0, 1).all()


def test_an_interval_holds_zero_exactly_where_the_adjusted_p_says_so():
    base, y = random_frame(300, 45)
    rng, rejected, parts = np.random.default_rng(1), [], [base]
    for k in range(12):
        p = base["p_malignant"] + 0.15 * k * (y - 0.5) * rng.random(300)
        parts.append(base.assign(model=f"m{k}", p_malignant=p.clip(0, 1)))
    pairs = {f"m{k}": (f"m{k}", "m") for k in range(12)}
    for metric in ("auc", "accuracy", "balanced_accuracy"):
        for level in ("image", "accession"):
            table = scores.compare(pd.concat(parts), pairs, metric, level)
            holds = (table["ci_low"] <= 0) & (table["ci_high"] >= 0)
            known = table["ci_low"].notna()
            assert (holds == (table["p_holm"] >= 0.05))[known].all()
            rejected += table["p_holm"].lt(0.05).tolist()
    assert 0.05 < np.mean(rejected) < 0.95


def test_models_without_variance_are_compared_by_their_own_intervals():
    y = np.repeat([0, 1], [7, 18])
    both = pd.concat([frame(y, y), frame(np.full(25, 0.8), y, model="all malignant")])
    row = scores.compare(both, {"": ("m", "all malignant")}, "balanced_accuracy").iloc[0]
    assert row["value"] == 0.5
    assert 0 < row["ci_low"] < row["value"]
    assert row["p"] < 0.05


def test_the_paired_test_keeps_its_level():
    rng, rejected = np.random.default_rng(0), 0
    y = np.repeat([0, 1], [10, 20])
    for _ in range(120):
        shared = rng.normal(size=30) + y
        pair = [frame(1 / (1 + np.exp(-shared - rng.normal(size=30))), y, model=m) for m in "ab"]
        rejected += scores.compare(pd.concat(pair), {"": ("a", "b")})["p"].iloc[0] < 0.05
    assert rejected / 120 <= 0.08


def test_compare_asks_which_protocol():
    a, _ = random_frame()
    both = pd.concat([a, a.assign(protocol="image"), a.assign(model="b")])
    with pytest.raises(ValueError, match="name one protocol"):
        scores.compare(both, {"": ("m", "b")})
    strangers = pd.concat([a, a.assign(model="b", accession="other " + a["accession"])])
    with pytest.raises(ValueError, match="no accession in common"):
        scores.compare(strangers, {"": ("m", "b")})
    with pytest.raises(ValueError, match="No predictions with .*nobody"):
        scores.compare(a, {"": ("m", "nobody")})


def test_holm_by_hand():
    adjusted = scores.holm([0.04, 0.01, np.nan, 0.03, 0.9])
    np.testing.assert_allclose(adjusted, [0.09, 0.04, np.nan, 0.09, 0.9])
    np.testing.assert_allclose(scores.holm([0.6, 0.7]), [1.0, 1.0])


# Tables ------------------------------------------------------------------------------------------


def test_patients_are_means_of_images_then_of_runs():
    p, y = [0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0]
    once = frame(p, y, accession=[1, 1, 2, 3])
    found = scores.patients(pd.concat([once, once.iloc[:1].assign(seed=1, p_malignant=0.2)]))
    found = found.set_index("accession")
    assert found["p_malignant"].to_dict() == pytest.approx(
        {"1": (0.6 + 0.2) / 2, "2": 0.6, "3": 0.1}
    )
    assert found["truth"].to_dict() == {"1": 1, "2": 0, "3": 0}
    assert found["n_images"].to_dict() == {"1": 2, "2": 1, "3": 1}


def test_row_order_changes_nothing():
    for predictions in (random_frame()[0], types_frame()):
        shuffled = predictions.sample(frac=1, random_state=1)
        first, second = (scores.evaluate(f, 100) for f in (predictions, shuffled))
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_table_has_every_level_magnification_and_the_word():
    predictions, _ = random_frame()
    predictions["magnification"] = np.where(np.arange(len(predictions)) % 2, 40, 400)
    table = scores.evaluate(pd.concat([predictions, predictions.assign(protocol="image")]), 20)
    assert ["notebook", *table.columns] == METRIC_COLUMNS
    assert set(table["magnification"]) == {"all", "40", "400"}
    assert set(table["level"]) == set(scores.LEVELS)
    assert (table["leaky"] == table["protocol"].map({"image": "leaky", "accession": ""})).all()
    assert np.isfinite(table["value"]).all()


def test_one_row_is_found_and_read():
    table = scores.evaluate(random_frame()[0])
    row = scores.find(table, model="m", metric="auc", level="accession")
    assert scores.as_text(row).startswith(f"{row['value']:.2f} ({row['ci_low']:.2f} to ")
    assert scores.find(table, model="other", metric="auc") is None
    assert scores.as_text(None) == "undefined"
    with pytest.raises(ValueError, match="3 rows fit"):
        scores.find(table, model="m", metric="auc")


# The interval of the quadratic kappa of notebook 06 ----------------------------------------------


def jackknife():
    """The function that notebook 06 shows, from its own cell."""
    book = Path(__file__).parents[1] / "notebooks" / "06_tumor_types.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(book.read_text("utf-8"))["cells"]]
    (code,) = [text for text in cells if "def jackknife(" in text]
    names = {"np": np, "t": t}
    exec(code.split("\n\n\nwhole, low, high")[0], names)
    return names["jackknife"]


def kappas(rows):
    """Quadratic kappa of two columns of tiers, 1 to 4, in a table of four places."""
    table = np.bincount(5 * rows["tier"] + rows["called"], minlength=25).reshape(5, 5)
    cost = np.subtract.outer(np.arange(5), np.arange(5)) ** 2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return np.full((2, 2), 1 - (cost * table).sum() / (cost * chance).sum())


def graded(n, noise, rng):
    """n patients of the four tiers, as often as in the database, and what they are called."""
    tier = rng.choice([1, 2, 3, 4], n, p=np.array([13, 5, 13, 39]) / 70)
    called = np.clip(np.round(tier + noise * rng.normal(size=n)), 1, 4).astype(int)
    return pd.DataFrame({"accession": np.arange(n), "tier": tier, "called": called})


@pytest.mark.parametrize(("n", "noise"), [(70, 0.8), (28, 1.2)])
def test_the_interval_of_kappa_covers(n, noise):
    rng, interval = np.random.default_rng(0), jackknife()
    truth = kappas(graded(1_000_000, noise, rng))[0, 0]
    studies = [interval(kappas, graded(n, noise, rng)) for _ in range(150)]
    value, low, high = np.array(studies)[..., 0, 0].T
    assert np.mean((low <= truth) & (truth <= high)) >= 0.92
    assert value.mean() == pytest.approx(truth, abs=0.03)


def test_kappa_is_scikit_learns_and_without_an_error_it_has_no_interval():
    rows = graded(60, 1.0, np.random.default_rng(1))
    right = sk.cohen_kappa_score(rows["tier"], rows["called"], weights="quadratic")
    assert kappas(rows) == pytest.approx(right)
    value, low, high = jackknife()(kappas, rows.assign(called=rows["tier"]))
    assert (value == 1).all()
    assert np.isnan([low, high]).all()
