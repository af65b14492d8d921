"""Partitions as values: what they hold, refuse and amount to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys import partition as module
from fedsys.errors import DataError
from fedsys.partition import Partition, Summary, has_classes

# Client 0 owns labels 0, 0, 1; client 1 owns label 1; client 2 owns nothing.
LABELS = np.array([0, 1, 1, 0])
SMALL = Partition.of(np.array([0, 0, 1, 0]), 3)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """An owner and a label for each row, and the number of clients."""
    clients = draw(st.integers(1, 8))
    rows = draw(st.lists(st.tuples(st.integers(0, clients - 1), st.integers(0, 4)), min_size=1))
    owner, labels = np.array(rows).T
    return owner, labels, clients


@given(partitions())
def test_of_gives_each_client_its_rows_in_ascending_order(drawn):
    owner, _, clients = drawn
    partition = Partition.of(owner, clients)
    assert len(partition) == len(list(partition)) == clients
    for client in range(clients):
        np.testing.assert_array_equal(partition[client], np.flatnonzero(owner == client))
    np.testing.assert_array_equal(partition.sizes, [len(rows) for rows in partition])


@given(partitions(), st.integers(1, 40))
def test_counts_and_summary_agree_with_a_plain_loop(drawn, block):
    owner, labels, clients = drawn
    partition = Partition.of(owner, clients)
    classes = labels.max() + 1
    counts = np.array(
        [[np.sum((owner == i) & (labels == j)) for j in range(classes)] for i in range(clients)]
    )
    everyone = counts.sum(axis=0) / counts.sum()
    held = [row for row in counts if row.sum()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        np.testing.assert_array_equal(partition.counts(labels), counts)
        summary = partition.summary(labels)
    assert (summary.clients, summary.rows) == (clients, len(labels))
    assert summary.empty == clients - len(held)
    assert summary.single == sum(np.count_nonzero(row) == 1 for row in held)
    assert summary.labels == pytest.approx(np.mean([np.count_nonzero(row) for row in held]))
    distances = [np.abs(row / row.sum() - everyone).sum() / 2 for row in held]
    assert summary.heterogeneity == pytest.approx(np.mean(distances), abs=1e-12)


def test_counts_of_a_worked_example():
    np.testing.assert_array_equal(SMALL.counts(LABELS), [[2, 1], [0, 1], [0, 0]])


def test_summary_of_a_worked_example():
    summary = SMALL.summary(LABELS)
    # All rows: (1/2, 1/2). Client 0: (2/3, 1/3), 1/6 away. Client 1: (0, 1), 1/2 away.
    assert summary.heterogeneity == pytest.approx((1 / 6 + 1 / 2) / 2)
    assert summary == Summary(
        clients=3,
        rows=4,
        smallest=0,
        median=1.0,
        largest=3,
        empty=1,
        single=1,
        labels=1.5,
        heterogeneity=summary.heterogeneity,
    )
    assert str(summary).splitlines() == [
        "3 clients, 4 rows",
        "rows a client: 0 to 3, median 1; 1 without a row",
        "labels a client: 1.5 on average; 1 with only one",
        "heterogeneity: 0.333 (0: all alike, 1: nothing in common)",
    ]


def test_heterogeneity_is_0_for_mirrors_of_the_whole_and_large_for_strangers():
    labels = np.repeat(np.arange(10), 10)
    mirrors = Partition.of(np.tile(np.arange(10), 10), 10)
    strangers = Partition.of(labels, 10)
    assert mirrors.summary(labels).heterogeneity == pytest.approx(0, abs=1e-12)
    assert strangers.summary(labels).heterogeneity == pytest.approx(0.9)


def test_targets_are_summarised_by_size_alone():
    summary = SMALL.summary(LABELS.astype(np.float32))
    assert (summary.smallest, summary.largest, summary.empty) == (0, 3, 1)
    assert summary.single is summary.labels is summary.heterogeneity is None
    assert len(summary.lines()) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, np.bool_])
def test_labels_may_be_any_integers(dtype):
    assert has_classes(LABELS.astype(dtype))
    np.testing.assert_array_equal(SMALL.counts(LABELS.astype(dtype)), SMALL.counts(LABELS))
    assert SMALL.summary(LABELS.astype(dtype)) == SMALL.summary(LABELS)


def test_narrow_labels_do_not_overflow_with_many_clients():
    """Client * classes + label passes 8 bits, and the owner numbers 16, at once."""
    partition = Partition.of(np.arange(70_000), 70_000)
    labels = (np.arange(70_000) % 10).astype(np.uint8)
    np.testing.assert_array_equal(partition.counts(labels).argmax(axis=1), labels)


def test_a_partition_is_two_small_read_only_arrays():
    partition = Partition.of(np.arange(1000) % 10, 10)
    assert partition.order.dtype == np.int32
    assert partition.start.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        partition[3][0] = 7
    with pytest.raises(ValueError, match="read-only"):
        partition.start[0] = 7


def test_the_arrays_that_were_given_stay_writeable():
    order, start = np.arange(4, dtype=np.int32), np.array([0, 4])
    Partition(order, start)
    order[0], start[1] = 1, 5


@pytest.mark.parametrize("client", [-1, 3])
def test_a_client_that_does_not_exist_is_an_index_error(client):
    with pytest.raises(IndexError, match=f"client {client} of 3"):
        SMALL[client]


@pytest.mark.parametrize("start", [[1, 4], [0, 3], [0, 5], [0, 3, 2, 4], [0], [], [[0, 4]]])
def test_a_start_that_does_not_cut_the_rows_is_refused(start):
    with pytest.raises(ValueError, match="start"):
        Partition(np.arange(4), np.array(start))


@pytest.mark.parametrize("owner, clients", [([0, 3], 3), ([-1, 0], 3), ([], 0)])
def test_owners_that_are_no_clients_are_refused(owner, clients):
    with pytest.raises(ValueError, match="owners must be clients from 0 to"):
        Partition.of(np.array(owner, int), clients)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels \(3,\) for a partition of 4 rows"):
        SMALL.counts(LABELS[:3])
    with pytest.raises(ValueError, match="for a partition of 4 rows"):
        SMALL.summary(LABELS[:3] * 1.0)
    with pytest.raises(DataError, match="found -1"):
        SMALL.counts(LABELS - 1)
    with pytest.raises(DataError, match="not float64"):
        SMALL.counts(LABELS * 1.0)


def test_no_rows_at_all():
    nothing = Partition.of(np.array([], int), 2)
    assert nothing.counts(np.array([], int)).shape == (2, 0)
    assert nothing.summary(np.array([], int)).empty == 2
