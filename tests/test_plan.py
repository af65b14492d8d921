"""Plans: what each step of each client reads, and that nothing else decides it."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.plan import draw_plan, steps_of

from .federations import by_sizes

SIZES = st.lists(st.integers(0, 17), min_size=1, max_size=8)
BATCH = st.integers(0, 20)
LENGTH = st.one_of(
    st.builds(lambda epochs: {"epochs": epochs}, st.integers(1, 4)),
    st.builds(lambda steps: {"steps": steps}, st.integers(1, 12)),
)


def expected_lengths(size: int, local: Local) -> list[int]:
    """The batch sizes of a client, counted out by hand."""
    if not size:
        return []
    batch = local.batch or size
    epoch = [min(batch, size - low) for low in range(0, size, batch)]
    if local.steps is None:
        return epoch * local.epochs
    return (epoch * local.steps)[: local.steps]


@given(SIZES, BATCH, LENGTH, st.integers(0, 5), st.integers(1, 3))
def test_every_epoch_is_a_permutation_of_the_clients_rows_cut_into_batches(
    sizes, batch, length, seed, round
):
    local, partition = Local(batch=batch, **length), by_sizes(sizes)
    plan = draw_plan(local, partition, np.arange(len(sizes)), seed, round)
    assert len(plan) == len(sizes)
    np.testing.assert_array_equal(plan.steps, steps_of(local, np.array(sizes)))
    for client, size in enumerate(sizes):
        batches = plan.batches(client)
        assert [len(rows) for rows in batches] == expected_lengths(size, local)
        seen = [row for rows in batches for row in rows]
        for low in range(0, len(seen), size or 1):
            epoch = seen[low : low + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(partition[client].tolist())


@given(SIZES, BATCH, LENGTH, st.randoms(use_true_random=False))
def test_a_clients_batches_do_not_depend_on_who_else_is_in_the_cohort(sizes, batch, length, random):
    local, partition = Local(batch=batch, **length), by_sizes(sizes)
    together = draw_plan(local, partition, np.arange(len(sizes)), 3, 2)
    some = random.sample(range(len(sizes)), random.randint(1, len(sizes)))
    shuffled = draw_plan(local, partition, np.array(some), 3, 2)
    for place, client in enumerate(some):
        assert_same(shuffled.batches(place), together.batches(client))


@given(SIZES, BATCH, LENGTH, st.data())
def test_between_is_the_plan_of_some_clients_alone(sizes, batch, length, data):
    local, partition = Local(batch=batch, **length), by_sizes(sizes)
    plan = draw_plan(local, partition, np.arange(len(sizes)), 3, 2)
    low = data.draw(st.integers(0, len(sizes)))
    high = data.draw(st.integers(low, len(sizes)))
    part = plan.between(low, high)
    assert len(part) == high - low
    assert part.first[0] == 0 and part.first[-1] == len(part.begin) == len(part.length)
    for client in range(low, high):
        assert_same(part.batches(client - low), plan.batches(client))
    owners = {row for client in range(low, high) for row in partition[client].tolist()}
    assert set(part.rows.tolist()) <= owners, "no row of another client is at hand"


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_between_is_a_view_and_copies_nothing():
    plan = draw_plan(Local(), by_sizes([20, 30, 10]), np.arange(3), 0, 1)
    assert np.shares_memory(plan.between(1, 2).rows, plan.rows)


def test_the_order_is_new_in_every_epoch_round_client_and_seed():
    """Clients 0 and 1 own the same places of the data, in partitions of their own."""
    local = Local(epochs=2, batch=50)
    one = Partition(np.arange(100), np.array([0, 50, 100]))

    def epochs(seed=0, round=1, client=0):
        plan = draw_plan(local, one, np.array([client]), seed, round)
        return [tuple(rows - 50 * client) for rows in plan.batches(0)]

    orders = [*epochs(), *epochs(seed=1), *epochs(round=2), *epochs(client=1)]
    assert len(set(orders)) == len(orders) == 8
    assert epochs() == epochs()


def test_the_order_stays_what_it_always_was():
    """Pinned: another order would change every result that was ever published."""
    partition = Partition(np.arange(9), np.array([0, 6, 9]))
    plan = draw_plan(Local(epochs=1, batch=4), partition, np.array([1, 0]), 7, 5)
    assert [rows.tolist() for rows in plan.batches(0)] == [[8, 7, 6]]
    assert [rows.tolist() for rows in plan.batches(1)] == [[1, 5, 3, 2], [4, 0]]


@pytest.mark.parametrize("over", ["clients", "rounds", "epochs", "seeds"])
def test_all_orders_are_equally_likely(over):
    """Chi-square over the 24 orders of four rows; all numbers are fixed, so it passes for good."""
    draws = 6000
    if over == "clients":
        partition = Partition(np.arange(4 * draws), np.arange(draws + 1) * 4)
        plan = draw_plan(Local(epochs=1, batch=4), partition, np.arange(draws), 0, 1)
        orders = plan.rows.reshape(-1, 4) - 4 * np.arange(draws)[:, None]
    elif over == "epochs":
        plan = draw_plan(Local(epochs=draws, batch=4), by_sizes([4]), np.array([0]), 0, 1)
        orders = plan.rows.reshape(-1, 4)
    else:
        local, one, client = Local(epochs=1, batch=4), by_sizes([4]), np.array([0])
        varied = [(0, i) if over == "rounds" else (i, 1) for i in range(1, draws // 4)]
        orders = np.array([draw_plan(local, one, client, *which).rows for which in varied])
    counted = Counter(map(tuple, orders.tolist()))
    assert set(counted) == set(permutations(range(4)))
    assert chisquare(list(counted.values())).pvalue > 1e-3


def test_a_row_is_in_every_place_equally_often_in_a_large_client():
    plan = draw_plan(Local(epochs=3000, batch=0), by_sizes([20]), np.array([0]), 1, 1)
    places = np.argsort(plan.rows.reshape(-1, 20), axis=1)
    for row in range(20):
        assert chisquare(np.bincount(places[:, row], minlength=20)).pvalue > 1e-4


def test_arrays_are_small_integers():
    plan = draw_plan(Local(), by_sizes([5, 0, 9]), np.arange(3), 0, 1)
    assert {a.dtype for a in (plan.rows, plan.begin, plan.length, plan.first)} == {
        np.dtype("int32")
    }


@pytest.mark.parametrize("clients", [[], [1], [1, 3]])
@pytest.mark.parametrize("local", [Local(), Local(steps=4), Local(batch=0)])
def test_clients_without_rows_take_no_step(clients, local):
    plan = draw_plan(local, by_sizes([3, 0, 2, 0]), np.array(clients, int), 0, 1)
    assert len(plan) == len(clients)
    assert all(plan.batches(client) == [] for client in range(len(clients)))
    assert not len(plan.rows) and not len(plan.begin)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 10))
def test_steps_without_an_end_of_epoch_go_on_into_the_next(size, batch):
    """Twice as many steps begin with the same ones."""
    partition = by_sizes([size])
    short, long = (
        draw_plan(Local(steps=steps, batch=batch), partition, np.array([0]), 0, 1).batches(0)
        for steps in (5, 10)
    )
    assert_same(short, long[:5])
