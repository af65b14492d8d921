"""Areas under the curve: scikit-learn's, and margins like a double loop's and many draws'."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedsys.errors import DataError
from fedsys.federation.demo.areas import areas


def by_pairs(labels, scores):
    """DeLong 1988, equations 3 to 6, pair by pair: (values, covariance)."""
    kinds = [[row[labels == 1], row[labels == 0]] for row in scores]
    wins = [np.array([[(x > y) + (x == y) / 2 for y in low] for x in high]) for high, low in kinds]
    values = np.array([each.mean() for each in wins])
    covariance = np.zeros((len(scores), len(scores)))
    for i, one in enumerate(wins):
        for j, other in enumerate(wins):
            for axis in (0, 1):
                a, b = one.mean(axis=axis) - values[i], other.mean(axis=axis) - values[j]
                covariance[i, j] += (a * b).sum() / (len(a) - 1) / len(a)
    return values, covariance


def some(seed, rows=40, models=3):
    """Labels and scores, many of them equal."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3 == 0
    scores = np.round(rng.normal(size=(models, rows)) + labels, 1)
    return labels.astype(int), {f"model {number}": row for number, row in enumerate(scores)}


@given(st.integers(0, 2**32), st.integers(6, 60))
@settings(max_examples=50, deadline=None)
def test_values_are_scikit_learns_and_covariances_those_of_the_pairs(seed, rows):
    labels, scores = some(seed, rows)
    found = areas(labels, scores)
    values, covariance = by_pairs(labels, np.stack(list(scores.values())))
    for name, value in zip(scores, values, strict=True):
        assert found.of(name).value == pytest.approx(roc_auc_score(labels, scores[name]), abs=1e-12)
        assert found.of(name).value == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-14)


def test_margins_are_how_far_other_rows_of_the_same_kind_lead_apart():
    rng = np.random.default_rng(0)
    values, differences = [], []
    for _ in range(400):
        labels = rng.random(300) < 0.4
        hidden = rng.normal(size=300) + labels
        scores = {"a": hidden + 0.3 * rng.normal(size=300), "b": hidden}
        found = areas(labels.astype(int), scores)
        values.append(found.of("a").value)
        differences.append(found.difference("b", "a").value)
    assert found.of("a").margin == pytest.approx(1.96 * np.std(values), rel=0.2)
    apart = found.difference("b", "a")
    assert apart.margin == pytest.approx(1.96 * np.std(differences), rel=0.35)
    assert apart.margin < found.of("a").margin / 2, "the same rows, so the same luck"


def test_a_model_beside_itself_differs_by_nothing():
    labels, scores = some(1)
    found = areas(labels, {"one": scores["model 0"], "same": scores["model 0"] * 2})
    difference = found.difference("one", "same")
    assert (difference.value, difference.margin) == (0, pytest.approx(0, abs=1e-7))
    alone = areas(labels, {"one": scores["model 0"]})
    assert alone.of("one") == found.of("one")


def test_one_row_of_a_label_is_too_few():
    with pytest.raises(DataError, match="fewer than two rows of a label"):
        areas(np.array([0, 0, 1]), {"one": np.arange(3.0)})
