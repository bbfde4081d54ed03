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
from sklearn.metrics import f1_score, roc_auc_score

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"SOB_[BM]_((?:A|F|PT|TA|DC|LC|MC|PC)-(\d\d-\d+)[A-Z]*)-(40|100|200|400)-\d{3}")
TYPES = ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"]
FUSED = ("fusion_mean", "fusion_stacked", "best_single")
LEAST = 3  # MIN_ACCESSIONS of notebook 05: fewer of a class, and no score is shown
THRESHOLD = "selected_threshold_"  # models of notebook 07, named by level
DECISIONS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
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


def malignancy(groups):
    y = groups["truth"].eq("malignant").to_numpy()
    p = groups["p_malignant"].to_numpy()
    said = p >= 0.5
    out = {"accuracy": (said == y).mean(), "brier": ((p - y) ** 2).mean()}
    bins = pd.Series(np.minimum((p * 10).astype(int), 9))
    out["ece"] = sum(abs((p - y)[bins == b].sum()) for b in set(bins)) / len(p)
    if y.any():
        out["sensitivity"] = said[y].mean()
    if (~y).any():
        out["specificity"] = (~said[~y]).mean()
    if y.any() and (~y).any():
        out["balanced_accuracy"] = (out["sensitivity"] + out["specificity"]) / 2
        out["auc"] = roc_auc_score(y, p)
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
    return {metric: np.mean(each) for metric, each in values.items()}


def expected_metrics(rows, notebook, group):
    """Metric to value as it must stand in metrics.csv; empty where the group has no row.

    All that follows from the predictions `rows` must be there, but for what is listed here.
    """
    model, task, protocol, magnification, level = group
    if notebook == "05_magnification":
        if model in FUSED and (magnification != "all" or level == "image"):
            return {}  # a fused score belongs to a patient
        classes = rows.groupby("tumor_class")["accession"].nunique()
        if min(classes.get("benign", 0), classes.get("malignant", 0)) < LEAST:
            return {}
    if model.startswith(THRESHOLD) and level != model.removeprefix(THRESHOLD):
        return {}  # the threshold was chosen for decisions at its own level
    expected = recompute(rows, task, protocol, level)
    if model.startswith(THRESHOLD):  # rescaled scores: the decisions alone mean something
        return {m: v for m, v in expected.items() if m in DECISIONS}
    if protocol == "leave_one_out":  # a chosen few types: no score over all types
        return {m: v for m, v in expected.items() if m.startswith("recall_")}
    return expected


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
            differ = set(got) ^ set(expected)
            assert not differ, f"{path.stem} {group}: in the table or due, but not both: {differ}"
            for metric, value in got.items():
                assert abs(expected[metric] - value) <= tolerance, f"{path.stem} {group} {metric}"
                n += 1
            assert (rows["n_images"].astype(int) == part["image_id"].nunique()).all()
        assert not mine, f"{path.stem}: scores without predictions: {sorted(mine)}"
    return n


def check_roles(results):
    """Every prediction is on an image that its fold tests. Returns the number of predictions.

    Under leave_one_out a fold is one accession: it is not in splits.csv.
    """
    splits = read(Path(results) / "splits.csv").set_index(["protocol", "fold", "image_id"])["role"]
    n = 0
    for path in sorted((Path(results) / "predictions").glob("*.parquet")):
        keys = pd.read_parquet(path)[["protocol", "fold", "image_id", "accession"]]
        single = keys["protocol"] == "leave_one_out"
        assert keys[single].groupby("fold")["accession"].nunique().le(1).all(), path
        n += single.sum()
        keys = keys.loc[~single, ["protocol", "fold", "image_id"]]
        roles = splits.loc[pd.MultiIndex.from_frame(keys)]
        assert (roles == "test").all(), path
        n += len(keys)
    return n


@pytest.fixture
def small(tmp_path):
    """A run of four accessions, made by hand: two folds by accession, scores with ties."""
    names = ["B_F-14-1A", "B_F-14-1B", "B_TA-14-2", "M_DC-14-3", "M_LC-14-4"]
    rows = []
    for place, name in enumerate(names):
        for k in (1, 2):
            letter, kind, year, number = re.match(r"(.)_(.+)-(\d+)-(\d+)", name).groups()
            slide = name[2:]
            tumor_class = "benign" if letter == "B" else "malignant"
            p = [0.1, 0.6, 0.3, 0.6, 0.9][place] + 0.05 * (k - 1)
            rows.append(
                (f"SOB_{name}-100-{k:03d}", slide, f"{year}-{number}", 100, tumor_class, kind, p)
            )
    columns = ["image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type"]
    frame = pd.DataFrame(rows, columns=[*columns, "p_malignant"])
    frame = frame.assign(task="malignancy", protocol="accession", fold=1, seed=0, model="m")
    frame.loc[frame["accession"].isin(["14-2", "14-4"]), "fold"] = 2
    (tmp_path / "predictions").mkdir()
    frame.to_parquet(tmp_path / "predictions/nb.parquet")
    metric = {"model": "m", "task": "malignancy", "protocol": "accession"}
    values = {"accuracy": 8 / 10, "auc": 22 / 24, "brier": 0.13225, "ece": 0.155}
    values |= {"sensitivity": 1.0, "specificity": 4 / 6, "balanced_accuracy": 5 / 6}
    slides = {"accuracy": 4 / 5, "auc": 5.5 / 6, "brier": 0.131625, "ece": 0.155}
    slides |= {"sensitivity": 1.0, "specificity": 2 / 3, "balanced_accuracy": 5 / 6}
    slides |= {"recognition_rate": 4 / 5}
    patients = {"accuracy": 1.0, "auc": 1.0, "brier": 0.098125, "ece": 0.2875}
    patients |= {"sensitivity": 1.0, "specificity": 1.0, "balanced_accuracy": 1.0}
    patients |= {"recognition_rate": 3.5 / 4}
    table = pd.DataFrame(
        [
            {"notebook": "nb", **metric, "magnification": x, "level": level, "metric": m}
            | {"value": v, "n_images": 10}
            for level, named in (("image", values), ("slide", slides), ("accession", patients))
            for m, v in named.items()
            for x in ("100", "all")
        ]
    )
    table.assign(leaky="").to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_hand_worked_metrics_pass_and_a_wrong_one_is_noticed(small):
    assert check_metrics(small) == 46
    table = read(small / "metrics.csv")
    table.loc[table["metric"] == "accuracy", "value"] = 0.81
    table.to_csv(small / "metrics.csv", index=False)
    with pytest.raises(AssertionError, match="accuracy"):
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
    pd.concat([table, table.assign(model="other")]).to_csv(small / "metrics.csv", index=False)
    with pytest.raises(AssertionError, match="scores without predictions.*other"):
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
