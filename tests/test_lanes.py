"""Lanes: nobody is lost, nobody is overloaded, and small work stays together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.lanes import STEP, WORTHWHILE, lanes

COHORT = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 5000)), max_size=30)


def cost(steps, rows, accumulates):
    return steps * STEP + rows * accumulates


@given(COHORT, st.integers(0, 10**6), st.integers(1, 8))
def test_every_client_is_in_one_lane_in_ascending_order(cohort, accumulates, workers):
    steps, rows = np.array(cohort, int).reshape(-1, 2).T
    cut = lanes(steps, rows, accumulates, workers)
    assert len(cut) <= workers
    assert sorted(position for lane in cut for position in lane) == list(range(len(cohort)))
    assert all(len(lane) and (np.diff(lane) > 0).all() for lane in cut)


@given(COHORT, st.integers(0, 10**6), st.integers(1, 8))
def test_loads_differ_by_no_more_than_the_longest_client(cohort, accumulates, workers):
    steps, rows = np.array(cohort, int).reshape(-1, 2).T
    cut = lanes(steps, rows, accumulates, workers)
    if len(cut) > 1:
        each = cost(steps, rows, float(accumulates))
        loads = [each[lane].sum() for lane in cut]
        assert max(loads) - min(loads) <= each.max() * (1 + 1e-9)


def test_little_work_stays_in_one_lane():
    cut = lanes(np.full(10, 6), np.full(10, 60), 650, 4)
    assert [lane.tolist() for lane in cut] == [list(range(10))]


def test_much_work_uses_every_worker():
    assert len(lanes(np.full(10, 60), np.full(10, 600), 200_000, 4)) == 4


def test_a_lane_is_only_opened_for_work_that_is_worth_it():
    each = np.array([WORTHWHILE / STEP * 0.6] * 5)  # three lanes' worth in all
    assert len(lanes(each, 0 * each, 0, 8)) == 3


def test_the_longest_client_goes_first():
    steps = np.array([10, 10, 10, 30]) * 100
    cut = lanes(steps, 0 * steps, 0, 2)
    assert sorted(lane.tolist() for lane in cut) == [[0, 1, 2], [3]]


def test_no_clients_need_no_lane():
    assert lanes(np.array([], int), np.array([], int), 10, 4) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_cut_follows_from_the_arguments_alone(workers):
    steps, rows = np.arange(20) * 50, np.arange(20) * 70
    one, other = (lanes(steps, rows, 5000, workers) for _ in range(2))
    assert [lane.tolist() for lane in one] == [lane.tolist() for lane in other]
