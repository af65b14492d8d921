"""Stratified splits and owners."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from fedsys.task import Examples
from fedsys.tasks.splits import owned, shown, stratified


@given(some.lists(some.integers(0, 4), min_size=1, max_size=200), some.floats(0.01, 0.99))
def test_every_class_is_shared_out_alike(labels, share):
    labels = np.array(labels)
    train, test = stratified(labels, share)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(test) == round(len(labels) * share)
    for label in np.unique(labels):
        expected = (labels == label).sum() * len(test) / len(labels)
        assert abs((labels[test] == label).sum() - expected) < 1 + 1e-9


def test_a_split_is_fixed_and_mixed():
    labels = np.zeros(1000, dtype=int)
    np.random.seed(1)
    test = stratified(labels, 0.2)[1]
    np.random.seed(2)
    assert (stratified(labels, 0.2)[1] == test).all()
    assert (stratified(labels, 0.2, seed=1)[1] != test).any()
    # Not every fifth row: gaps between test rows are as irregular as in a random draw.
    assert np.diff(test).std() > 3
    assert abs(test.mean() - 500) < 60


def test_real_targets_are_shared_out_by_size():
    targets = np.random.default_rng(0).exponential(size=500)
    train, test = stratified(targets, 0.2)
    assert abs(np.median(targets[test]) - np.median(targets[train])) < 0.05


def test_text_labels():
    labels = np.array(["b", "a"] * 5)
    assert sorted(labels[stratified(labels, 0.4)[1]]) == ["a", "a", "b", "b"]


def test_owners_are_those_with_training_rows():
    everyone = Examples(np.arange(6.0)[:, None], np.arange(6))
    values = np.array(["b", "c", "b", "a", "c", "a"])
    names, train, client_test = owned(everyone, values, np.array([0, 1, 4]), np.array([2, 3, 5]))
    assert names == ("b", "c")
    assert train.owners.tolist() == [0, 1, 1]
    assert train.labels.tolist() == [0, 1, 4]
    assert client_test.labels.tolist() == [2]
    assert client_test.owners.tolist() == [0]
    assert owned(everyone, values, np.array([0]), np.array([3]))[2] is None


def test_whole_numbers_are_shown_without_a_point():
    assert [shown(value) for value in (np.float64(3), 2.5, "x", np.str_("y"))] == [
        "3",
        "2.5",
        "x",
        "y",
    ]
