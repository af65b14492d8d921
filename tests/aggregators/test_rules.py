"""Each rule against its paper, and what each promises whoever sends what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsys.aggregators import AGGREGATORS, Clipped, Krum, Mean, Median, TrimmedMean, named
from fedsys.aggregators.coordinates import BLOCK
from fedsys.engine import Partial

from . import oracle

NUMBERS = st.floats(-100, 100, width=32)
SMALL = st.integers(1, 3)


@st.composite
def updates_for(draw, needs, dtype=np.float32):
    """[clients, numbers]: as many as are needed, or up to three more."""
    shape = draw(st.integers(needs, needs + 3)), draw(st.integers(1, 4))
    return draw(arrays(dtype, shape, elements=NUMBERS))


@st.composite
def rules(draw):
    """A rule, and its oracle."""
    faulty, keep = draw(SMALL), draw(SMALL)
    return draw(
        st.sampled_from(
            [
                (Median(), oracle.median),
                (TrimmedMean(faulty), lambda given: oracle.trimmed(given, faulty)),
                (Krum(faulty), lambda given: oracle.krum(given, faulty)),
                (Krum(faulty, keep), lambda given: oracle.krum(given, faulty, keep)),
            ]
        )
    )


@settings(deadline=None)
@given(rules(), st.data())
def test_a_rule_is_its_papers(rule, data):
    ours, papers = rule
    given_ = data.draw(updates_for(ours.needs))
    np.testing.assert_allclose(ours.combine(given_), papers(given_), rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(rules(), st.data())
def test_the_order_of_clients_does_not_matter(rule, data):
    """Where scores are equal Krum takes the lower number, so there all are compared that it may
    take."""
    ours, _ = rule
    given_ = data.draw(updates_for(ours.needs))
    shuffled = data.draw(st.permutations(range(len(given_))))
    if isinstance(ours, Krum):
        scores = oracle.krum_scores(given_, ours.faulty)
        ranked = sorted(scores)
        if ranked[ours.keep - 1] == ranked[ours.keep]:
            return
    np.testing.assert_allclose(
        ours.combine(given_[shuffled]), ours.combine(given_), rtol=1e-12, atol=1e-12
    )


def test_all_numbers_of_a_long_model_are_looked_at():
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(9, 2 * BLOCK + 5)).astype("f4")
    np.testing.assert_array_equal(Median().combine(updates), oracle.median(updates))
    np.testing.assert_allclose(
        TrimmedMean(2).combine(updates), oracle.trimmed(updates, 2), rtol=1e-12, atol=1e-15
    )
    for tell in (slice(0, 5), slice(-5, None)):  # who has company, and no other number does
        few = np.zeros_like(updates)
        few[:, tell] = updates[:, tell]
        few[4, tell] = updates[:, tell].mean(axis=0)
        np.testing.assert_array_equal(oracle.krum(few, 2), few[4])
        np.testing.assert_array_equal(Krum(2).combine(few), few[4])


# --- what is promised ----------------------------------------------------------------------------

EVIL = st.one_of(
    st.sampled_from([-3e38, -1e30, -1e4, 0.0, 1e4, 1e30, 3e38]), st.floats(-1e6, 1e6, width=32)
)


@settings(deadline=None)
@given(st.sampled_from([1, 2, 3]), st.booleans(), st.data())
def test_no_number_leaves_the_range_of_the_honest(faulty, by_median, data):
    """Median and trimmed mean, at their bound n = 2f + 1, whatever f clients send."""
    honest = data.draw(arrays(np.float32, (faulty + 1, 3), elements=NUMBERS))
    evil = data.draw(arrays(np.float32, (faulty, 3), elements=EVIL))
    everybody = np.concatenate([evil, honest])
    rule = Median() if by_median else TrimmedMean(faulty)
    moved = rule.combine(data.draw(st.permutations(list(everybody))) * np.ones(1, np.float32))
    assert (moved >= honest.min(axis=0)).all() and (moved <= honest.max(axis=0)).all()


@settings(deadline=None)
@given(st.sampled_from([1, 2, 3]), st.integers(0, 2), st.integers(0, 1000), st.data())
def test_krum_takes_none_of_far_away_updates(faulty, more, seed, data):
    """At its bound and above: f updates that agree with each other, but with nobody else."""
    rule = Krum(faulty, 1 + more)
    honest = np.random.default_rng(seed).normal(size=(rule.needs - faulty, 4))
    far = np.full((faulty, 4), data.draw(st.sampled_from([-1e9, -50.0, 50.0, 1e9])))
    everybody = np.concatenate([far, honest])[data.draw(st.permutations(range(rule.needs)))]
    moved = rule.combine(everybody.astype("f4"))
    assert np.abs(moved).max() <= np.abs(honest).max() * (1 + 1e-6)


def test_below_its_bound_krum_could_be_led_away():
    """Why n >= 2f + 3: with one fewer, two that agree are as near to each other as honest ones."""
    honest, evil = np.array([[0.0], [1.0], [2.0]]), np.array([[90.0]])
    assert Krum(1).combine(np.concatenate([honest, [[3.0]], evil]))[0] in (1, 2)
    colluding = np.concatenate([honest, evil, evil])  # f is 2, and 7 were needed
    assert Krum(2).combine(colluding)[0] == 90


@settings(deadline=None)
@given(
    arrays(np.float32, st.tuples(st.just(3), st.integers(1, 4)), elements=EVIL),
    st.floats(1e-3, 1e3),
)
def test_a_clipped_update_is_no_longer_than_the_bound_and_points_where_it_did(updates, bound):
    for update in updates.astype(np.float64):
        left = Clipped(bound).limit(update)
        assert np.linalg.norm(left) <= bound * (1 + 1e-12)
        np.testing.assert_allclose(left, oracle.clipped([update], [1.0], bound), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_of_zeros_stays_one(dtype):
    with np.errstate(all="raise"):
        left = Clipped(1.0).limit(np.zeros(5, dtype))
    assert left.dtype == dtype and not left.any()


def test_an_update_within_the_bound_keeps_its_bits():
    update = np.array([0.6, -0.8], np.float32)
    assert Clipped(1.5).limit(update) is update
    assert Mean().limit(update) is update


# --- how many are needed -------------------------------------------------------------------------

NEEDS = {
    "mean": 1,
    "clipped:2": 1,
    "median": 3,
    "trimmed:1": 3,
    "trimmed:2": 5,
    "krum:1": 5,
    "krum:2": 7,
    "krum:1,2": 5,
    "krum:1,3": 6,
    "krum:2,5": 9,
}


@pytest.mark.parametrize("name", NEEDS)
def test_the_updates_that_are_needed(name):
    rule = AGGREGATORS.parse(name)
    assert rule.needs == NEEDS[name]
    assert named(rule) == name
    assert AGGREGATORS.decode(AGGREGATORS.encode(rule)) == rule


@pytest.mark.parametrize("name", ["median", "trimmed:1", "krum:1"])
def test_fewer_updates_than_are_needed_make_no_movement(name):
    rule = AGGREGATORS.parse(name)
    for clients in range(rule.needs + 1):
        updates = np.ones((clients, 2), np.float32)
        partial = Partial(
            total=np.full(2, float(clients)),
            weight=float(clients),
            clients=np.arange(clients),
            losses=np.zeros(clients),
            updates=updates if clients else None,
        )
        moved = partial.aggregate(np.dtype("f4"), rule)
        assert moved.delta.tolist() == [float(clients == rule.needs)] * 2
        assert len(moved.admitted) == clients


def test_equal_scores_go_to_the_lower_client_number_however_answers_came():
    clients = np.array([4, 2, 3, 0, 1])
    values = np.array([50.0, -1.0, 1.0, 1.0, -1.0])[:, None]  # all but 50 have a score of 4
    partial = Partial(values.sum(axis=0), 5.0, clients, np.zeros(5), updates=values)
    assert oracle.krum_scores(values, 1)[1:] == [4, 4, 4, 4]
    assert partial.aggregate(np.dtype("f8"), Krum(1)).delta.tolist() == [1.0]
