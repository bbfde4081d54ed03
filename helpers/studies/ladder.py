"""Notebook 04's tables, figure and sentences: the ladder, its steps, rules and costs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from helpers import charts, comparisons, decisions, metrics
from helpers.splits import label
from helpers.studies.choices import patient_loss

FLOOR = ("majority", "colour", "baseline_cnn")  # of notebook 03
SCORES = {
    "patient AUC": ("accession", "auc"),
    "patient balanced accuracy": ("accession", "balanced_accuracy"),
    "slide AUC": ("slide", "auc"),
    "image AUC": ("image", "auc"),
    "image balanced accuracy": ("image", "balanced_accuracy"),
}


def ladder_table(overall, val, models, seconds):
    """A row a protocol and model: loss in validation beside test scores with their intervals."""
    rows = []
    for protocol in overall["protocol"].unique():
        for model in models:
            mine = overall[overall["model"].eq(model) & overall["protocol"].eq(protocol)]
            checked = val[val["model"].eq(model) & val["protocol"].eq(protocol)]
            row = {"split": label(protocol), "model": charts.spell(model)}
            row["validation loss"] = over_seeds(checked, patient_loss)
            row["validation AUC"] = over_seeds(checked, known_auc)
            for name, (level, metric) in SCORES.items():
                found = mine[mine["level"].eq(level) & mine["metric"].eq(metric)]
                row[name] = metrics.as_text(found.iloc[0]) if len(found) else "–"
            rows.append(row | {"seconds": seconds.get(model, np.nan)})
    return pd.DataFrame(rows)


def over_seeds(predictions, score):
    """Mean of score(predictions of a seed) over the seeds; NaN for an empty table."""
    found = [score(part) for _, part in predictions.groupby("seed")]
    return float(np.mean(found)) if found else np.nan


def known_auc(val):
    """Mean over folds of the AUC of their known patients, cross-validated; NaN where undefined."""
    keys = ["fold", "accession", "tumor_class"]
    patients = val.groupby(keys, as_index=False)["p_malignant"].mean()
    truth = patients["tumor_class"].eq("malignant")
    found = [
        roc_auc_score(truth[part.index], part["p_malignant"])
        for _, part in patients.groupby("fold")
        if len(set(truth[part.index])) > 1
    ]
    return float(np.mean(found)) if found else np.nan


def patient_auc(predictions, protocol, n_boot, seed):
    """value, ci_low and ci_high of the AUC of patients, as a dict; NaN with one class only."""
    found = metrics.score(predictions, "malignancy", protocol, "accession", n_boot, seed)
    found = found.set_index("metric").reindex(["auc"])
    return found[["value", "ci_low", "ci_high"]].iloc[0].to_dict()


def on_same_images(baseline, test):
    """The rows of an earlier notebook's predictions for images and folds that are tested here."""
    same = baseline[baseline["image_id"].isin(test["image_id"])]
    return same.merge(test[["protocol", "fold"]].drop_duplicates())


def floor(baseline):
    """Models below the ladder that these predictions hold, from the bottom."""
    return [name for name in FLOOR if name in set(baseline["model"])]


def differences(predictions, pairs, protocol, n_boot, seed):
    """Paired bootstrap of each pair of models, patients' AUC and balanced accuracy: a row each.

    Columns: rung, against, metric, difference, ci_low, ci_high, p_value, n_groups, and p_holm, the
    p-value adjusted for the number of pairs of that metric.
    """
    rows = []
    for metric in ("auc", "balanced_accuracy"):
        found = [
            {"rung": charts.spell(upper), "against": charts.spell(lower), "metric": metric}
            | comparisons.compare(
                predictions, upper, lower, metric, protocol=protocol, n_boot=n_boot, seed=seed
            )
            for upper, lower in pairs
        ]
        frame = pd.DataFrame(found)
        rows.append(frame.assign(p_holm=comparisons.holm(frame["p_value"])))
    return pd.concat(rows, ignore_index=True)


def tell_steps(compared):
    """Sentences on the AUC of each step in the table of `differences`, and how many are clear."""
    gaps = compared[compared["metric"].eq("auc")]
    clear = gaps["p_holm"] < 0.05
    verdict = {True: "distinguishable", False: "these patients cannot tell them apart"}
    sentences = [
        f"{row.rung} against {row.against}: AUC {row.difference:+.2f} ({row.ci_low:+.2f} to "
        f"{row.ci_high:+.2f}, adjusted p = {row.p_holm:.3f}): {verdict[bool(told)]}."
        for row, told in zip(gaps.itertuples(), clear, strict=True)
    ]
    return sentences, int(clear.sum())


def tell_spread(test, models, protocol):
    """Sentence on the patients' AUC of each seed, for models that were trained with several."""
    said = []
    for model in models:
        own = test[test["model"].eq(model) & test["protocol"].eq(protocol)]
        found = [patient_auc(one, protocol, 1, 0)["value"] for _, one in own.groupby("seed")]
        if len(found) > 1:
            said.append(f"{charts.spell(model)} {min(found):.2f} to {max(found):.2f}")
    return f"AUC of patients over seeds: {', '.join(said)}." if said else "One seed was trained."


def by_rule(pool):
    """[validation, test]: a row a patient, fold and rule; the rule stands as the model."""
    return [
        pd.concat([decisions.aggregate(t, rule).assign(model=rule) for rule in decisions.RULES])
        for t in pool
    ]


def compare_rules(pool):
    """A row a rule of `by_rule`: loss and balanced accuracy of patients on both parts."""
    rows = []
    for rule in decisions.RULES:
        row = {"rule": rule}
        for role, frame in zip(("validation", "test"), pool, strict=True):
            patients = frame[frame["model"] == rule]
            truth = patients["tumor_class"].eq("malignant")
            right = patients["p_malignant"].ge(0.5) == truth
            row[f"{role} loss"] = patient_loss(patients)
            row[f"{role} balanced accuracy"] = right.groupby(truth).mean().mean()
        rows.append(row)
    return pd.DataFrame(rows)


def count_choices(choice):
    """A row a protocol and model: in how many folds `choices.choose` took it."""
    counts = choice.groupby(["protocol", "model"]).size().rename("folds").reset_index()
    return counts.assign(model=counts["model"].map(charts.spell))


def tell_counts(counts):
    """A sentence from a Series of numbers of folds: "mean in 4 folds, top in 1 fold."."""
    said = [f"{name} in {n} fold{'s' * (n != 1)}" for name, n in counts.items()]
    return f"{', '.join(said)}."


def network_name(backbone, size):
    """Name of a frozen network and the [height, width] px at which it sees images."""
    return f"{backbone} {size[1]}x{size[0]} px"


def cost_table(pool, candidates, speed, protocol, n_boot, seed):
    """A row a candidate: its speed (images per second), loss in validation, AUC of test patients.

    pool: [validation, test] tables of predictions by the candidates. Columns: network, images per
    second, validation loss, value, ci_low, ci_high.
    """
    rows = []
    for name, pace in zip(candidates, speed, strict=True):
        val, test = (t[t["model"].eq(name) & t["protocol"].eq(protocol)] for t in pool)
        row = {"network": name, "images per second": pace, "validation loss": patient_loss(val)}
        rows.append(row | patient_auc(test, protocol, n_boot, seed))
    return pd.DataFrame(rows)


def cost_plot(cost):
    """AUC of patients against images per second; a dot with its interval for each row."""
    fig, ax = plt.subplots(figsize=(7.5, 3.2))
    known = cost.dropna(subset="value").reset_index(drop=True)
    for number, row in known.iterrows():
        spread = [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
        marker = "osD^v<>PX"[number % 9]
        ax.errorbar(
            row["images per second"], row["value"], spread, fmt=marker, label=row["network"]
        )
    ax.set(xlabel="images per second on this machine", ylabel="AUC of patients", ylim=(0, 1.02))
    ax.set_xlim(0, 1.15 * cost["images per second"].max())
    ax.axhline(0.5, color=charts.REFERENCE, lw=1, ls="--")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return fig
