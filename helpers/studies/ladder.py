"""Notebook 04's ladder: what a rung changes, what it is compared with, and how one is chosen.

Predictions are tables of the contract (results.PREDICTION_COLUMNS). Validation predictions come
from a fit on training patients; test predictions may come from a second fit of the same recipe.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import charts, decisions, metrics, probe
from helpers.splits import label

FLOOR = ("majority", "colour", "baseline_cnn")  # of notebook 03
PLAIN = ("probe", "probe_large")
PROBES = (*PLAIN, "probe_views", "stain_normalised")
TUNED = ("fine_tuned", "stain_augmented", "balanced")
RUNGS = (*PROBES, *TUNED, "ensemble")
FACTS = ["image_id", "slide", "accession", "magnification", "tumor_class", "tumor_type"]
SCORES = {
    "patient AUC": ("accession", "auc"),
    "patient balanced accuracy": ("accession", "balanced_accuracy"),
    "slide AUC": ("slide", "auc"),
    "image AUC": ("image", "auc"),
    "image balanced accuracy": ("image", "balanced_accuracy"),
}


def probe_recipes(rungs, image_size, large_size, views):
    """{rung: dict(size, views)} of the frozen rungs; a rung keeps the size of those below it."""
    size = large_size if "probe_large" in rungs else image_size
    known = {
        "probe": {"size": image_size, "views": ["identity"]},
        "probe_large": {"size": large_size, "views": ["identity"]},
        "probe_views": {"size": size, "views": list(views)},
        "stain_normalised": {"size": size, "views": ["normalised"]},
    }
    return {rung: known[rung] for rung in rungs if rung in known}


def steps(rungs):
    """[(rung, the rung that it changes)]: views, stain and fine-tuning start from the plain probe.

    ValueError unless the ladder starts with the probe.
    """
    if list(rungs[:1]) != ["probe"] or not set(rungs) <= set(RUNGS):
        raise ValueError(f"RUNGS = {rungs}: 'probe', then any of {', '.join(RUNGS[1:])}.")
    plain = [rung for rung in rungs if rung in PLAIN]
    above = [rung for rung in rungs if rung in TUNED or rung == "ensemble"]
    sides = [(rung, plain[-1]) for rung in rungs if rung in PROBES and rung not in PLAIN]
    pairs = [*zip(plain[1:], plain[:-1], strict=True), *sides]
    lower = [plain[-1], *above][: len(above)]
    return [*pairs, *zip(above, lower, strict=True)]


def held_out(index, fold, model, p_val, p_test, seed):
    """[validation, test]: prediction tables of a fold (protocol, fold, train, val, test)."""
    about = {"task": "malignancy", "protocol": fold[0], "fold": fold[1], "seed": seed}
    parts = zip(fold[3:], (p_val, p_test), strict=True)
    return [
        index.iloc[rows][FACTS].assign(**about, model=model, p_malignant=p) for rows, p in parts
    ]


def probe_fold(x, y, accession, fold, refit, seed):
    """(P(malignant) of the validation part, of the test part, the probe that gave the latter).

    x: (n, d) features of all rows; y: int (n,); fold: (protocol, fold, train, val, test). refit:
    the test part is predicted after a second fit with the same penalty, on training and validation
    patients.
    """
    train, val, test = fold[2:]
    first = last = probe.fit_probe(x[train], y[train], accession[train], seed=seed)
    if refit:
        known = np.concatenate([train, val])
        last = probe.fit_probe(x[known], y[known], accession[known], first.C, n_inner=1, repeats=1)
    return probe.predict(first, x[val])[:, 1], probe.predict(last, x[test])[:, 1], last


def probe_tables(index, x, y, folds, refit, seed):
    """(validation, test): prediction tables of a plain probe on features x (n, d) in all folds."""
    parts = []
    for fold in folds:
        *p, _ = probe_fold(x, y, index["accession"].to_numpy(), fold, refit, seed)
        parts.append(held_out(index, fold, "probe", *p, seed))
    return [pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)]


def patient_loss(predictions):
    """Log-loss of patients, a float: the mean probability of a patient's images in a fold.

    Both classes weigh the same; smaller is better; always one half scores 0.693. Probabilities are
    kept 0.01 from 0 and 1, so that no single patient decides. NaN for an empty table.
    """
    frame = predictions.assign(truth=predictions["tumor_class"].eq("malignant"))
    p = frame.groupby(["fold", "accession", "truth"])["p_malignant"].mean().reset_index("truth")
    right = p["p_malignant"].where(p["truth"], 1 - p["p_malignant"]).clip(0.01, 0.99)
    return float((-np.log(right)).groupby(p["truth"].to_numpy()).mean().mean())


def blend(predictions, members, seed, model="ensemble"):
    """The mean probability of several models and seeds for each image and fold, as a new model."""
    frame = predictions[predictions["model"].isin(members)]
    keys = [*FACTS, "task", "protocol", "fold"]
    mean = frame.groupby(keys, as_index=False, sort=False)["p_malignant"].mean()
    return mean.assign(model=model, seed=seed)


def select(val, test):
    """Add the model "selected" to both tables: in each fold the model with the least loss.

    The loss is that of the fold's own validation patients, and of no others: models of other folds
    have learnt from patients that this fold tests. Returns val, test and the choices: protocol,
    fold, model.
    """
    rows = []
    for (protocol, fold), part in val.groupby(["protocol", "fold"]):
        losses = {model: patient_loss(one) for model, one in part.groupby("model", sort=False)}
        rows.append((protocol, fold, min(losses, key=losses.get)))
    best = pd.DataFrame(rows, columns=["protocol", "fold", "model"])
    parts = [
        pd.concat([t, t.merge(best).assign(model="selected")], ignore_index=True)
        for t in (val, test)
    ]
    return *parts, best


def ladder_table(overall, val, models, seconds):
    """A row a protocol and model: validation loss beside test scores with their intervals."""
    rows = []
    for protocol in overall["protocol"].unique():
        for model in models:
            mine = overall[overall["model"].eq(model) & overall["protocol"].eq(protocol)]
            checked = val[val["model"].eq(model) & val["protocol"].eq(protocol)]
            row = {"split": label(protocol), "model": charts.spell(model)}
            row["validation loss"] = patient_loss(checked)
            for name, (level, metric) in SCORES.items():
                found = mine[mine["level"].eq(level) & mine["metric"].eq(metric)]
                row[name] = metrics.as_text(found.iloc[0]) if len(found) else "–"
            rows.append(row | {"seconds": seconds.get(model, np.nan)})
    return pd.DataFrame(rows)


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
    """Paired bootstrap of each pair of models, patients' AUC and balanced accuracy: a row each."""
    rows = []
    for (upper, lower), metric in [(p, m) for p in pairs for m in ("auc", "balanced_accuracy")]:
        names = {"rung": charts.spell(upper), "against": charts.spell(lower), "metric": metric}
        found = metrics.compare(
            predictions, upper, lower, metric, protocol=protocol, n_boot=n_boot, seed=seed
        )
        rows.append({**names, **found})
    return pd.DataFrame(rows)


def tell_steps(compared):
    """Sentences on the AUC of each step in the table of `differences`, and how many are clear."""
    gaps = compared[compared["metric"].eq("auc")]
    clear = (gaps["ci_low"] > 0) | (gaps["ci_high"] < 0)
    verdict = {True: "distinguishable", False: "these patients cannot tell them apart"}
    sentences = [
        f"{row.rung} against {row.against}: AUC {row.difference:+.2f} ({row.ci_low:+.2f} to "
        f"{row.ci_high:+.2f}, p = {row.p_value:.3f}): {verdict[bool(told)]}."
        for row, told in zip(gaps.itertuples(), clear, strict=True)
    ]
    return sentences, int(clear.sum())


def compare_rules(val, test):
    """A row a rule that combines a patient's images: loss and balanced accuracy on both parts."""
    rows = []
    for rule in decisions.RULES:
        row = {"rule": rule}
        for role, frame in (("validation", val), ("test", test)):
            patients = decisions.aggregate(frame, rule)
            truth = patients["tumor_class"].eq("malignant")
            right = patients["p_malignant"].ge(0.5) == truth
            row[f"{role} loss"] = patient_loss(patients)
            row[f"{role} balanced accuracy"] = right.groupby(truth).mean().mean()
        rows.append(row)
    return pd.DataFrame(rows)


def cost_plot(cost):
    """AUC of patients against images per second; a dot with its interval for each row."""
    fig, ax = plt.subplots(figsize=(6.5, 3.2))
    known = cost.dropna(subset="value").reset_index(drop=True)
    for number, row in known.iterrows():
        spread = [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
        name = f"{row['backbone']}, {row['size']} px"
        marker = "osD^v<>P"[number % 8]
        ax.errorbar(row["images per second"], row["value"], spread, fmt=marker, label=name)
    ax.set(xlabel="images per second on this machine", ylabel="AUC of patients", ylim=(0, 1.02))
    ax.set_xlim(0, 1.15 * cost["images per second"].max())
    ax.axhline(0.5, color=charts.REFERENCE, lw=1, ls="--")
    ax.legend(loc="lower left", fontsize=8)
    return fig
