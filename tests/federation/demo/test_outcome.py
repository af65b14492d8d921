"""The demonstration's result, as a table for people and as one for machines."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedsys.federation.demo.fraud import fraud
from fedsys.federation.demo.outcome import Outcome

LABELS = np.array([0, 0, 1, 1, 0, 1, 1, 0])
SCORES = {
    "bank-a": np.array([1, 2, 3, 4, 5, 6, 7, 8.0]),
    "bank-b": np.array([1, 2, 3, 4, 5, 6, 7, 3.5]),
    "pooled": np.array([1, 2, 5, 6, 3, 7, 8, 4.0]),
    "federated": np.array([1, 2, 5, 6, 3, 7, 4, 4.5]),
}


def outcome(scores):
    demo = replace(fraud(2), request=replace(fraud(2).request, rounds=7))
    rows = {"bank-a": 10, "bank-b": 1200}
    return Outcome.of(demo, rows, LABELS, scores, "1,210 customers", 31.4)


def test_the_table_is_readable():
    lines = outcome(SCORES).text().splitlines()
    assert lines[0].split() == ["customers", "AUC", "95", "%"]
    for line, name, rows in zip(
        lines[1:5], ["bank-a", "bank-b", "federated", "pooled"], ["10", "1,200", "1,210", "1,210"],
        strict=True,
    ):  # fmt: skip
        assert line.startswith(name)
        area, margin = line.split(rows)[1].split()
        assert float(area) == pytest.approx(roc_auc_score(LABELS, SCORES[name]), abs=5e-5)
        assert margin.startswith("±")
    assert len({line.index(".") for line in lines[1:5]}) == 1, "numbers stand below each other"
    assert lines[5].startswith("federated - pooled:      -0.0625 ±")
    assert lines[6].startswith("federated - best alone:  +0.1250 ±")
    assert lines[6].endswith("(bank-b)")
    assert "8 customers of all kinds" in lines[7]
    assert lines[-1] == "1,210 customers; 7 rounds, 31 s"


def test_an_owner_who_is_better_alone_is_named():
    scores = {**SCORES, "bank-a": SCORES["pooled"]}
    lines = outcome(scores).text().splitlines()
    assert lines[6].startswith("federated - best alone:  -0.0625 ±")
    assert lines[6].endswith("bank-a alone is better here")


def test_as_plain_values():
    table = json.loads(json.dumps(outcome(SCORES).table()))
    assert set(table["alone"]) == {"bank-a", "bank-b"}
    assert table["federated"] == pytest.approx(roc_auc_score(LABELS, SCORES["federated"]))
    assert table["ahead"]["pooled"][0] == pytest.approx(table["federated"] - table["pooled"])
    assert set(table["margins"]) == {*SCORES}
    assert (table["demo"], table["rounds"], table["test"]) == ("fraud", 7, 8)
    assert table["rows"] == {"bank-a": 10, "bank-b": 1200}
