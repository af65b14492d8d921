from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.integers.fixed import (
    INT32,
    high_product,
    limited,
    quantized_multiplier,
    rounded_shift,
    scaled,
)

int32 = st.one_of(
    st.integers(INT32.min, INT32.max),
    st.sampled_from([INT32.min, INT32.min + 1, -(1 << 30), -1, 0, 1, 1 << 30, INT32.max]),
)


def towards_zero(dividend: int, divisor: int) -> int:
    """C's division."""
    return abs(dividend) // divisor * (1 if dividend >= 0 else -1)


@given(int32, int32)
def test_high_product_is_the_reference_with_its_nudge_and_division_towards_zero(a, b):
    product = a * b
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    expected = min(towards_zero(product + nudge, 1 << 31), INT32.max)
    assert high_product(np.array([a]), b)[0] == expected


@given(int32, st.integers(0, 31))
def test_shift_rounds_to_nearest_and_halves_away_from_zero(x, exponent):
    exact = Fraction(x, 1 << exponent)
    size = (abs(exact) + Fraction(1, 2)).__floor__()
    assert rounded_shift(np.array([x]), exponent)[0] == (size if x >= 0 else -size)


def test_shift_takes_an_exponent_for_each_number_and_leaves_its_input_alone():
    x = np.array([-5, -5, 5, 5])
    assert rounded_shift(x, np.array([0, 1, 0, 1])).tolist() == [-5, -3, 5, 3]
    assert x.tolist() == [-5, -5, 5, 5]


@given(st.floats(2.0**-31, 2.0**30))
def test_multiplier_and_shift_stand_for_the_factor(factor):
    multiplier, shift = quantized_multiplier(factor)
    assert 1 << 30 <= multiplier < 1 << 31
    assert abs(multiplier * 2.0 ** (shift - 31) / factor - 1) <= 2.0**-31


def test_a_factor_just_below_a_power_of_two_rounds_to_the_power():
    assert quantized_multiplier(1 - 2.0**-40) == (1 << 30, 1)


def test_a_factor_of_nothing_or_too_small_is_zero():
    assert quantized_multiplier(0.0) == (0, 0)
    assert quantized_multiplier(2.0**-33) == (0, 0)
    assert quantized_multiplier(2.0**-32) == (1 << 30, -31)


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_scale_is_an_error(factor):
    with pytest.raises(ValueError, match="finite"):
        quantized_multiplier(factor)


@given(st.integers(-(2**20), 2**20), st.floats(2.0**-25, 2.0**10))
def test_scaling_is_within_a_rounding_of_the_product(x, factor):
    # Half a unit for each of two roundings, and the multiplier's own.
    result = scaled(np.array([x]), *quantized_multiplier(factor))[0]
    assert abs(result - x * factor) <= 1 + abs(x * factor) * 2.0**-30


def test_scaling_with_a_factor_for_each_channel_is_that_of_each_alone():
    x = np.arange(-6000, 6000).reshape(-1, 3)
    pairs = [quantized_multiplier(factor) for factor in (0.0013, 0.7, 3.5)]
    multiplier, shift = np.array(pairs, np.int32).T
    together = scaled(x, multiplier, shift)
    for channel, pair in enumerate(pairs):
        np.testing.assert_array_equal(together[:, channel], scaled(x[:, channel], *pair))


def test_scaling_rounds_twice():
    # 1.4999.. after one rounding is 1.5 after the first of two, and that goes up.
    multiplier, shift = (1 << 30) - 1, -1
    x = np.array([6])
    assert round(6 * multiplier / 2**31 / 2) == 1
    assert scaled(x, multiplier, shift)[0] == 2


def test_limits_hold_and_the_type_is_int8():
    result = limited(np.array([-1000, 0, 1000]), 10, -5, 100)
    assert result.dtype == np.int8 and result.tolist() == [-5, 10, 100]
