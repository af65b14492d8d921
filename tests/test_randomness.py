"""Randomness: known answers, uniformity, and global generators that nobody touches."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedsys.randomness import Purpose, generator, hashed, seeded_globals, shuffled_segments

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """SplitMix64 (Steele et al. 2014) on Python's integers."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_hashed_gives_the_published_numbers_of_splitmix64():
    assert int(hashed(0)) == 0xE220A8397B1DCDAF
    assert int(hashed(1234567)) == 6457827717110365317


def test_hashed_gives_what_it_always_gave():
    """Pinned: the order of rows, dropout and faults follow from these."""
    assert int(hashed(0, 0)) == 12035550249420947055
    assert int(hashed(1, 2, 3)) == 7702586659592502839
    assert int(hashed(0, Purpose.ORDER, 1, 0, 0)) == 11716119640685645918
    assert int(hashed(2**63, 7)) == 4384659894096827455


@given(st.lists(st.integers(0, MASK), min_size=1, max_size=5))
def test_hashed_chains_splitmix_over_its_parts(parts):
    state = 0
    for part in parts:
        state = splitmix((state + part) & MASK)
    assert int(hashed(*(np.uint64(part) for part in parts))) == state


def test_hashed_is_elementwise_over_the_broadcast_shape():
    table = hashed(5, np.arange(3)[:, None], np.arange(4))
    assert table.shape == (3, 4) and table.dtype == np.uint64
    assert table[2, 1] == hashed(5, 2, 1)


def test_the_order_of_the_parts_counts():
    values = hashed(np.arange(50)[:, None], np.arange(50))
    assert len(np.unique(values)) == 2500


@pytest.mark.parametrize("shift", [0, 24, 32, 56])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_hashed_is_uniform_over_small_neighbouring_numbers(shift, part):
    parts = [3, 1, 4]
    values = hashed(*(np.arange(51_200) if i == part else p for i, p in enumerate(parts)))
    cells = (values >> np.uint64(shift)).astype(np.uint8)
    assert chisquare(np.bincount(cells, minlength=256)).pvalue > 1e-4


def test_one_bit_changes_half_of_the_bits():
    base = np.arange(2000, dtype=np.uint64)
    for bit in range(0, 64, 7):
        changed = hashed(base) ^ hashed(base ^ np.uint64(1 << bit))
        assert 31.5 < np.bitwise_count(changed).mean() < 32.5


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(0, 99))
def test_shuffled_segments_sorts_within_each_segment(sizes, seed):
    keys = hashed(seed, np.arange(sum(sizes)))
    positions = shuffled_segments(keys, np.array(sizes, int))
    start = 0
    for size in sizes:
        segment = positions[start : start + size]
        assert sorted(segment) == list(range(start, start + size))
        assert (np.diff((keys[segment] >> np.uint64(24)).astype(float)) >= 0).all()
        start += size


def test_equal_keys_keep_their_order():
    np.testing.assert_array_equal(
        shuffled_segments(np.zeros(5, np.uint64), np.array([2, 3])), np.arange(5)
    )


def test_generators_differ_by_seed_purpose_and_path_and_by_nothing_else():
    paths = [(0, Purpose.COHORT, 1), (0, Purpose.COHORT, 2), (1, Purpose.COHORT, 1),
             (0, Purpose.FAULTS, 1), (0, Purpose.COHORT)]  # fmt: skip
    first = [generator(*path).integers(2**60) for path in paths]
    assert len(set(first)) == len(paths)
    assert first == [generator(*path).integers(2**60) for path in paths]


def test_purposes_keep_their_numbers():
    assert {p.name: p.value for p in Purpose} == {
        "PARTITION": 0, "COHORT": 1, "ORDER": 2, "LAYERS": 3, "FAULTS": 4, "MODEL": 5
    }  # fmt: skip


def states():
    return random.getstate(), repr(np.random.get_state())


def test_global_generators_are_put_back():
    before = states()
    with seeded_globals(1):
        random.random()
        np.random.random(7)
        assert states() != before
    assert states() == before


def test_global_generators_are_put_back_after_an_error():
    before = states()
    with pytest.raises(RuntimeError), seeded_globals(1):
        raise RuntimeError
    assert states() == before


def test_a_models_first_weights_follow_from_the_seed():
    def kernel(seed):
        with seeded_globals(seed):
            layer = keras.layers.Dense(4)
            layer.build((None, 3))
        return np.asarray(layer.kernel)

    random.seed(9)
    first = kernel(5)
    random.seed(10)
    np.random.seed(10)
    np.testing.assert_array_equal(first, kernel(5))
    assert np.abs(first - kernel(6)).max() > 0.01
