"""A run's tables, checked by code that knows the contract and the file names, and no helper.

The functions take the folder of results, so they serve any run:
``python tests/test_independent.py reports/demo/results``.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, root
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"SOB_[BM]_((?:A|F|PT|TA|DC|LC|MC|PC)-(\d\d-\d+)[A-Z]*)-(40|100|200|400)-\d{3}")
TYPES = ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"]
FUSED = ("fusion_mean", "fusion_stacked", "best_single")
LEAST = 5  # patients of a class or a type: fewer, and there is no interval, and no recall
# Models of notebook 07, named by level.
THRESHOLD, CALIBRATED = "selected_threshold_", "selected_calibrated_"
DECISIONS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
OVER_TYPES = ("balanced_accuracy", "macro_f1")
SHARES = {"accuracy": None, "sensitivity": "malignant", "specificity": "benign"}
KEYS = ["model", "task", "protocol", "magnification", "level", "metric"]


def read(path):
    return pd.read_csv(path, keep_default_na=False, dtype={"magnification": str})


def check_splits(results):
    """Roles are whole; accession is disjoint, testing each image once a repeat; official as listed.

    Accession and slide are read from the image names. Returns the number of images.
    """
    splits = read(Path(results) / "splits.csv")
    images = sorted(read(Path(results) / "index.csv")["image_id"])
    found = splits["image_id"].str.extract(f"^{NAME.pattern}$")
    splits = splits.assign(slide=found[0], accession=found[1])
    assert splits["slide"].notna().all(), "a name outside the grammar"
    assert set(splits["role"]) == {"train", "val", "test"}
    assert set(splits["protocol"]) == {"accession", "official", "slide", "image"}
    for (protocol, fold), rows in splits.groupby(["protocol", "fold"]):
        assert sorted(rows["image_id"]) == images, f"{protocol}, fold {fold}: not each image once"
        sides = {role: set(rows.loc[rows["role"] == role, "accession"]) for role in rows["role"]}
        assert not sides.get("train", set()) & sides.get("val", set())
        if protocol == "accession":
            assert not sides["test"] & (sides.get("train", set()) | sides.get("val", set()))
        if protocol == "slide":
            held = set(rows.loc[rows["role"] == "test", "slide"])
            assert not held & set(rows.loc[rows["role"] != "test", "slide"])
    tests = splits[splits["role"] == "test"].groupby(["protocol", "image_id"]).size()
    for protocol in ("accession", "slide", "image"):
        assert len(tests[protocol]) == len(images)
        assert len(set(tests[protocol])) == 1
    check_official(splits[splits["protocol"] == "official"])
    return len(images)


def check_official(splits):
    """Image by image, the official parts are those of data/slides.csv."""
    listed = read(ROOT / "data/slides.csv").set_index("slide")
    assert sorted(splits["fold"].unique()) == [1, 2, 3, 4, 5]
    for fold, rows in splits.groupby("fold"):
        said = listed.loc[rows["slide"], f"fold{fold}"].eq("test").to_numpy()
        assert (rows["role"].eq("test").to_numpy() == said).all(), f"official fold {fold}"


def grouped(rows, level, task):
    """A row a group: its truth, mean scores, and the share of its images decided rightly."""
    scores = [f"p_{t}" for t in TYPES] if task == "tumor_type" else ["p_malignant"]
    rows = rows.copy()
    if task == "tumor_type":
        rows["truth"] = rows["tumor_type"]
        said = np.array(TYPES)[rows[scores].to_numpy().round(12).argmax(axis=1)]
    else:
        rows["truth"] = rows["tumor_class"]
        said = np.where(rows["p_malignant"].round(12) >= 0.5, "malignant", "benign")
    rows["share"] = (said == rows["truth"]).astype(float)
    name = {"image": "image_id", "slide": "slide", "accession": "accession"}[level]
    return rows.groupby([name, "truth"])[[*scores, "share"]].mean().round(12).reset_index()


def calibration(y, p):
    """Intercept with the slope held at 1, and slope (left out where the classes are separated)."""
    z = logit(p.clip(1e-6, 1 - 1e-6))
    shift = brentq(lambda a: np.sum(y - expit(a + z)), -50, 50, xtol=1e-12)
    out = {"calibration_intercept": shift}
    if z[y].min() < z[~y].max() and z[~y].min() < z[y].max():
        size = np.abs(z).max()  # scores of 0 and 1 alone would throw the search off
        x = np.column_stack([np.ones(len(z)), z / size])
        line = root(lambda b: x.T @ (y - expit(x @ b)), [0.0, 0.0], tol=1e-12)
        out["calibration_slope"] = line.x[1] / size
    return out


def malignancy(groups):
    y = groups["truth"].eq("malignant").to_numpy()
    p = groups["p_malignant"].to_numpy()
    said = p >= 0.5
    out = {"accuracy": (said == y).mean(), "brier": ((p - y) ** 2).mean()}
    if y.any():
        out["sensitivity"] = said[y].mean()
    if (~y).any():
        out["specificity"] = (~said[~y]).mean()
    if y.any() and (~y).any():
        out["balanced_accuracy"] = (out["sensitivity"] + out["specificity"]) / 2
        out["auc"] = roc_auc_score(y, p)
        out |= calibration(y, p)
    return out


def tumor_types(groups):
    truth = groups["truth"].to_numpy()
    said = np.array(TYPES)[groups[[f"p_{t}" for t in TYPES]].to_numpy().argmax(axis=1)]
    there = [t for t in TYPES if t in set(truth)]
    out = {"accuracy": (said == truth).mean()}
    out["balanced_accuracy"] = np.mean([(said[truth == t] == t).mean() for t in there])
    out["macro_f1"] = f1_score(truth, said, labels=there, average="macro", zero_division=0)
    return out | {f"recall_{t}": (said[truth == t] == t).mean() for t in there}


def runs(rows, protocol):
    """The sets of predictions that a metric is computed on, before the mean is taken."""
    if protocol == "official":
        return [part for _, part in rows.groupby(["seed", "fold"])]
    ordered = rows.sort_values("fold", kind="stable")
    repeat = ordered.groupby(["seed", "image_id"]).cumcount()
    return [part for _, part in ordered.groupby([ordered["seed"], repeat])]


def patients(rows, kind):
    """Number of patients of each class or type (`kind` is the column)."""
    return rows.groupby(kind)["accession"].nunique()


def recompute(rows, task, protocol, level):
    """Metric to value, from the predictions of one model, task, protocol and magnification."""
    values = {}
    for part in runs(rows, protocol):
        groups = grouped(part, level, task)
        found = tumor_types(groups) if task == "tumor_type" else malignancy(groups)
        if level != "image":
            found["recognition_rate"] = groups["share"].mean()
        for metric, value in found.items():
            values.setdefault(metric, []).append(value)
    few = [f"recall_{t}" for t, n in patients(rows, "tumor_type").items() if n < LEAST]
    return {metric: np.mean(each) for metric, each in values.items() if metric not in few}


def expected_metrics(rows, notebook, group):
    """Metric to value as it must stand in metrics.csv; empty where the group has no row.

    All that follows from the predictions `rows` must be there, but for what is listed here.
    """
    model, task, protocol, magnification, level = group
    if notebook == "05_magnification":
        if model in FUSED and (magnification != "all" or level == "image"):
            return {}  # a fused score belongs to a patient
        classes = patients(rows, "tumor_class").reindex(["benign", "malignant"], fill_value=0)
        if magnification != "all" and classes.min() < LEAST:
            return {}
    if notebook == "07_error_analysis":
        if magnification != "all" or level == "slide":
            return {}
        own = model.removeprefix(THRESHOLD).removeprefix(CALIBRATED)
        if level != own and (model.startswith(THRESHOLD) or own == "accession"):
            return {}  # chosen for scores of that level
    expected = recompute(rows, task, protocol, level)
    if model.startswith(THRESHOLD):  # rescaled scores: the decisions alone mean something
        return {m: v for m, v in expected.items() if m in DECISIONS}
    return expected


def check_intervals(rows, part, group):
    """Intervals hold their values, have a width, and are absent where too few patients stand."""
    model, task, protocol, _, level = group
    known = rows[rows["ci_low"].ne("")]
    value, low, high = (known[c].astype(float) for c in ("value", "ci_low", "ci_high"))
    assert (low < high).all(), f"{group}: an interval of no width"
    assert ((low <= value + 1e-9) & (value <= high + 1e-9)).all(), f"{group}: value outside"
    if task != "malignancy":
        return
    n = patients(part, "tumor_class").reindex(["benign", "malignant"], fill_value=0)
    if n.min() < LEAST:
        assert not known["metric"].isin(["auc", "balanced_accuracy"]).any(), f"{group}: too few"
    if level != "accession" or len(list(runs(part, protocol))) != 1:
        return
    for metric, share, least in zip(known["metric"], value, low, strict=True):
        if metric in SHARES:  # one run of patients: Wilson's interval of a count
            total = n.sum() if SHARES[metric] is None else n[SHARES[metric]]
            due = binomtest(round(share * total), int(total)).proportion_ci(method="wilson").low
            assert abs(due - least) < 1e-6, f"{group} {metric}: not Wilson's interval"


def groups_of(predictions):
    """Each (model, task, protocol, magnification, level) that has predictions, and its rows."""
    predictions = predictions.assign(magnification=predictions["magnification"].astype(str))
    for key, rows in predictions.groupby(KEYS[:3]):
        parts = {**dict(list(rows.groupby("magnification"))), "all": rows}
        for magnification, part in parts.items():
            for level in ("image", "slide", "accession"):
                yield (*key, magnification, level), part


def check_metrics(results, tolerance=1e-9):
    """metrics.csv is what follows from the predictions, all of it. Returns the number of rows."""
    table = read(Path(results) / "metrics.csv")
    assert not table.duplicated(["notebook", *KEYS]).any()
    leaky = table["protocol"].isin(["official", "slide", "image"])
    assert table["leaky"].eq(np.where(leaky, "leaky", "")).all()
    n = 0
    for path in sorted((Path(results) / "predictions").glob("*.parquet")):
        mine = dict(list(table[table["notebook"] == path.stem].groupby(KEYS[:5])))
        for group, part in groups_of(pd.read_parquet(path)):
            expected = expected_metrics(part, path.stem, group)
            rows = mine.pop(group, table.head(0))
            got = rows.set_index("metric")["value"].astype(float).to_dict()
            if group[1] == "tumor_type" and patients(part, "tumor_type").min() < LEAST:
                # a mean over types needs each of them
                expected = {m: v for m, v in expected.items() if m in got or m not in OVER_TYPES}
            differ = set(got) ^ set(expected)
            assert not differ, f"{path.stem} {group}: in the table or due, but not both: {differ}"
            for metric, value in got.items():
                near = 1e-6 if metric.startswith("calibration") else tolerance
                assert abs(expected[metric] - value) <= near, f"{path.stem} {group} {metric}"
                n += 1
            check_intervals(rows, part, group)
            assert (rows["n_images"].astype(int) == part["image_id"].nunique()).all()
        assert not mine, f"{path.stem}: scores without predictions: {sorted(mine)}"
    return n


def check_roles(results):
    """Every prediction is on an image that its fold tests. Returns the number of predictions."""
    keys = ["protocol", "fold", "image_id"]
    roles = read(Path(results) / "splits.csv").set_index(keys)["role"]
    n = 0
    for path in sorted((Path(results) / "predictions").glob("*.parquet")):
        found = roles.loc[pd.MultiIndex.from_frame(pd.read_parquet(path)[keys])]
        assert (found == "test").all(), path
        n += len(found)
    return n


HAND = {  # two images of each slide; two patients of each class
    "image": {"accuracy": 8 / 10, "auc": 22 / 24, "brier": 0.13225, "specificity": 4 / 6},
    "slide": {"accuracy": 4 / 5, "auc": 5.5 / 6, "brier": 0.131625, "recognition_rate": 4 / 5},
    "accession": {"accuracy": 1.0, "auc": 1.0, "brier": 0.098125, "recognition_rate": 3.5 / 4},
}


def by_hand():
    """Predictions on four patients: two folds by accession, scores with ties."""
    names = ["B_F-14-1A", "B_F-14-1B", "B_TA-14-2", "M_DC-14-3", "M_LC-14-4"]
    base, rows = [0.1, 0.6, 0.3, 0.6, 0.9], []
    for name, p in zip(names, base, strict=True):
        letter, kind, year, number = re.match(r"(.)_(.+)-(\d+)-(\d+)", name).groups()
        facts = [name[2:], f"{year}-{number}", 100, "benign" if letter == "B" else "malignant"]
        for k in (1, 2):
            rows.append([f"SOB_{name}-100-{k:03d}", *facts, kind, p + 0.05 * (k - 1)])
    columns = ["image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type"]
    frame = pd.DataFrame(rows, columns=[*columns, "p_malignant"])
    fold = np.where(frame["accession"].isin(["14-2", "14-4"]), 2, 1)
    return frame.assign(task="malignancy", protocol="accession", fold=fold, seed=0, model="m")


def by_chance(seed):
    """Predictions of two tasks on 60 patients: two seeds, official folds that overlap."""
    rng, listed = np.random.default_rng(seed), read(ROOT / "data/slides.csv")
    slides = listed[["slide", "accession", "tumor_class", "tumor_type"]].sample(60, random_state=0)
    index = slides.loc[slides.index.repeat(rng.integers(1, 5, size=60))].reset_index(drop=True)
    index["image_id"] = [f"SOB_X_{s}-40-{i:03d}" for i, s in enumerate(index["slide"])]
    index["magnification"] = rng.choice([40, 200], size=len(index))
    parts = []
    for protocol, folds in (("accession", [1]), ("official", [1, 2, 3])):
        for one, fold in [(s, k) for s in (0, 1) for k in folds]:
            some = index if protocol == "accession" else index.sample(frac=0.5, random_state=fold)
            own = some["tumor_type"].to_numpy()[:, None] == np.array(TYPES)
            p = rng.dirichlet(np.full(8, 0.4), size=len(some)) + 0.4 * own
            p = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=[f"p_{t}" for t in TYPES])
            told = some.reset_index(drop=True).join(p)
            told["p_malignant"] = p.iloc[:, 4:].sum(axis=1)
            told = told.assign(protocol=protocol, seed=one, fold=fold, model="m")
            parts += [told.assign(task=task) for task in ("malignancy", "tumor_type")]
    return pd.concat([*parts, parts[0].assign(model="single run")], ignore_index=True)


@pytest.fixture
def small(tmp_path):
    """Two notebooks' predictions, and their metrics as the project computes them."""
    from helpers import scores

    (tmp_path / "predictions").mkdir()
    tables = []
    for name, frame in {"nb": by_hand(), "other": by_chance(0)}.items():
        frame.to_parquet(tmp_path / f"predictions/{name}.parquet")
        tables.append(scores.evaluate(frame, n_boot=100).assign(notebook=name))
    pd.concat(tables).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_metrics_of_the_project_are_recomputed_and_a_wrong_one_is_noticed(small):
    assert check_metrics(small) > 300
    table = read(small / "metrics.csv")
    mine = table[table["notebook"].eq("nb") & table["magnification"].eq("all")]
    found = mine.set_index(["level", "metric"])["value"].astype(float)
    for level, values in HAND.items():
        for metric, value in values.items():
            assert found[level, metric] == pytest.approx(value), (level, metric)
    table.loc[table["metric"] == "accuracy", "value"] = 0.81
    table.to_csv(small / "metrics.csv", index=False)
    with pytest.raises(AssertionError, match="accuracy"):
        check_metrics(small)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("ci_low", "1.1", "width"), ("ci_high", "0.001", "outside|width"), ("ci_low", "-9", "Wilson")],
)
def test_wrong_intervals_are_noticed(small, column, value, said):
    table = read(small / "metrics.csv")
    rows = table["model"].eq("single run") & table["metric"].eq("sensitivity")
    table.loc[rows & table["level"].eq("accession"), column] = value
    table.to_csv(small / "metrics.csv", index=False)
    with pytest.raises(AssertionError, match=said):
        check_metrics(small)


@pytest.mark.parametrize(
    ("lost", "said"),
    [({"metric": "auc"}, "{'auc'}"), ({"level": "slide"}, "'slide'"), ({"model": "m"}, "due")],
)
def test_scores_that_vanish_are_noticed(small, lost, said):
    table = read(small / "metrics.csv")
    for column, value in lost.items():
        table = table[table[column] != value]
    table.to_csv(small / "metrics.csv", index=False)
    with pytest.raises(AssertionError, match=said):
        check_metrics(small)


def test_scores_without_predictions_are_noticed(small):
    table = read(small / "metrics.csv")
    pd.concat([table, table.head(1).assign(model="else")]).to_csv(
        small / "metrics.csv", index=False
    )
    with pytest.raises(AssertionError, match="scores without predictions.*else"):
        check_metrics(small)


def test_metrics_of_a_smoke_run_follow_from_its_predictions(smoke_run):
    assert check_metrics(smoke_run.results) > 100


def test_splits_of_a_smoke_run_hold_what_they_promise(smoke_run):
    assert check_splits(smoke_run.results) >= 82


def test_predictions_of_a_smoke_run_are_on_test_images(smoke_run):
    assert check_roles(smoke_run.results) > 0


if __name__ == "__main__":
    folder = sys.argv[1]
    print(
        f"{folder}: {check_splits(folder)} images split soundly, {check_metrics(folder)} metrics "
        f"recomputed, {check_roles(folder)} predictions on test images"
    )
