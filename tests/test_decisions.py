"""Operating point, net benefit, referral and aggregation: planted and worked by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from helpers import decisions

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0.02, 0.98, 20000)
Y = (RNG.random(20000) < TRUE).astype(int)


def test_operating_point_is_the_highest_that_keeps_the_sensitivity():
    p, y = np.arange(1, 21) / 20, np.ones(20, int)
    assert decisions.operating_point(p, y, 0.95) == pytest.approx(0.1)
    assert decisions.operating_point(p, y, 1.0) == pytest.approx(0.05)
    assert decisions.operating_point([0.5, 0.5, 0.9], [1, 1, 0]) == 0.5
    with pytest.raises(ValueError, match="malignant"):
        decisions.operating_point([0.5], [0])


def test_at_threshold_by_hand():
    found = decisions.at_threshold([0.9, 0.4, 0.3, 0.1], [1, 1, 0, 0], 0.35).set_index("metric")
    assert found.loc["sensitivity", "value"] == 1.0
    assert found.loc["specificity", "value"] == 1.0
    found = decisions.at_threshold([0.9, 0.4], [1, 1], 0.5, accession=[1, 2], n_boot=200)
    assert list(found["metric"]) == ["sensitivity"]
    assert found["value"].item() == 0.5
    assert (found["ci_low"].item(), found["ci_high"].item()) == (0.0, 1.0)


def test_decision_curve_has_intervals_over_accessions():
    p, y, who = [0.9, 0.8, 0.7, 0.2] * 5, [1, 1, 0, 0] * 5, np.repeat(np.arange(10), 2)
    found = decisions.decision_curve(p, y, [0.5], accession=who)
    row = found.iloc[0]
    assert row["net_benefit"] == pytest.approx(0.25)
    assert row["ci_low"] < 0.25 < row["ci_high"]
    alone = decisions.decision_curve(p, y, [0.5], accession=np.arange(20) // 4)
    assert alone["ci_low"][0] == alone["ci_high"][0] == pytest.approx(0.25)  # all groups alike


def test_decision_curve_by_hand():
    found = decisions.decision_curve([0.9, 0.6, 0.7, 0.1], [1, 1, 0, 0], [0.5, 0.8])
    assert found["net_benefit"].tolist() == pytest.approx([2 / 4 - 1 / 4, 1 / 4])
    assert found["treat_all"].tolist() == pytest.approx([0.5 - 0.5, 0.5 - 0.5 * 4])
    perfect = decisions.decision_curve([1, 1, 0, 0], [1, 1, 0, 0])
    assert (perfect["net_benefit"] == 0.5).all()


def test_risk_coverage_of_planted_models():
    y = np.array([1, 0, 1, 0])
    perfect = decisions.risk_coverage([0.9, 0.2, 0.7, 0.4], y)
    assert perfect["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert (perfect["risk"] == 0).all()
    assert (decisions.risk_coverage([0.1, 0.8, 0.3, 0.6], y)["risk"] == 1).all()
    tied = decisions.risk_coverage(np.full(4, 0.7), y)
    assert tied["coverage"].tolist() == [1.0]
    assert tied["risk"].tolist() == [0.5]
    one_wrong = decisions.risk_coverage([0.9, 0.2, 0.4, 0.4], y)
    assert one_wrong["coverage"].tolist() == [0.25, 0.5, 1.0]
    assert one_wrong["risk"].tolist() == pytest.approx([0, 0, 0.25])


def test_area_under_risk():
    y = np.array([1, 0, 1, 0])
    assert decisions.area_under_risk([0.9, 0.2, 0.7, 0.4], y) == 0
    assert decisions.area_under_risk([0.1, 0.8, 0.3, 0.6], y) == 1
    assert decisions.area_under_risk(np.full(4, 0.7), y) == pytest.approx(0.5)
    assert decisions.area_under_risk([0.9, 0.2, 0.4, 0.05], [1, 0, 1, 0]) == pytest.approx(0.25 / 4)


def test_risk_intervals_hold_the_risk():
    accession = np.arange(2000) % 40
    table = decisions.risk_coverage(TRUE[:2000], Y[:2000], accession, n_boot=300)
    inside = table["risk"].between(table["ci_low"], table["ci_high"])
    assert inside.iloc[50:].mean() > 0.95
    assert table["coverage"].is_monotonic_increasing
    assert table["coverage"].iloc[-1] == 1


def test_aggregation_rules_by_hand():
    p = [0.9, 0.6, 0.2, 0.1, 0.4]
    rows = pd.DataFrame({"p_malignant": p, "accession": [1, 1, 1, 1, 2], "fold": 1, "seed": 0})
    rows = rows.assign(model="m", task="malignancy", protocol="accession", tumor_class="benign")
    got = {
        rule: decisions.aggregate(rows, rule)["p_malignant"].tolist() for rule in decisions.RULES
    }
    assert got["mean"] == pytest.approx([0.45, 0.4])
    assert got["majority"] == [0.5, 0.0]
    assert got["top"] == [0.9, 0.4]
    expected = expit(np.mean(logit(p[:4])))
    assert got["logodds"] == pytest.approx([expected, 0.4])
    assert decisions.aggregate(rows)["n_images"].tolist() == [4, 1]
    with pytest.raises(ValueError, match="majority"):
        decisions.aggregate(rows, "median")
