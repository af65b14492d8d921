"""Exponential, logistic, tanh and 1 / sqrt in fixed point, to the bit as the reference has them.

Numbers are Qm.n: m integer bits, n = 31 - m fractional ones and a sign. A product of Qa and Qb is
Q(a + b): `high_product`. The exponential is a Taylor series on a quarter and factors of exp(-2^k)
for each bit of the rest; divisions are Newton's steps from 48/17 - 32/17 * d.
"""

from __future__ import annotations

import numpy as np

from fedsys.edge.integers.fixed import INT32, high_product, rounded_shift, scaled

ONE = INT32.max  # in Q0.31, which does not reach 1.


def _q31(real: float) -> int:
    return min(round(real * 2**31), ONE)


def _lifted(x: np.ndarray, bits: int) -> np.ndarray:
    """x * 2^bits, saturating."""
    return np.clip(np.asarray(x, np.int64) << bits, INT32.min, INT32.max)


def exponential(x: np.ndarray, integer_bits: int) -> np.ndarray:
    """exp(x) in Q0.31 for x at or below zero, in Q`integer_bits` of at most 5 bits."""
    point = 31 - integer_bits
    x = np.asarray(x, np.int64)
    quarter = 1 << (point - 2)
    # x is a whole number of quarters below a remainder within [-1/4, 0).
    near = (x & (quarter - 1)) - quarter
    rest = near - x
    value = _exponential_near(_lifted(near, integer_bits))
    for power in range(-2, integer_bits):
        factor = _q31(float(np.exp(-(2.0**power))))
        value = np.where((rest >> (point + power)) & 1, high_product(value, factor), value)
    return np.where(x == 0, ONE, value)


def _exponential_near(x: np.ndarray) -> np.ndarray:
    """exp(x) for x in [-1/4, 0), all Q0.31: Taylor's series about -1/8."""
    middle = _q31(float(np.exp(-1 / 8)))
    x = x + (1 << 28)
    square = high_product(x, x)
    cube = high_product(square, x)
    fourth = rounded_shift(high_product(square, square), 2)
    # x^4 / 24 + x^3 / 6 + x^2 / 2.
    tail = rounded_shift(high_product(fourth + cube, _q31(1 / 3)) + square, 1)
    return middle + high_product(middle + np.zeros_like(x), x + tail)


def _reciprocal_half(x: np.ndarray) -> np.ndarray:
    """2 / (1 + x) in Q2.29 for x in [0, 1) in Q0.31."""
    half = (x + ONE + 1) >> 1
    first, slope = round(48 / 17 * 2**29), -round(32 / 17 * 2**29)
    guess = first + high_product(half, slope)
    for _ in range(3):
        error = (1 << 29) - high_product(half, guess)
        guess = guess + _lifted(high_product(guess, error), 2)
    return guess


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in Q0.31 for x in Q4.27."""
    x = np.asarray(x, np.int64)
    # Half of 2 / (1 + e) in Q2.29 is the same bits in Q1.30.
    above = _lifted(_reciprocal_half(exponential(-np.abs(x), 4)), 1)
    return np.where(x == 0, 1 << 30, np.where(x > 0, above, ONE - above))


def tanh(x: np.ndarray) -> np.ndarray:
    """(1 - exp(-2x)) / (1 + exp(-2x)) in Q0.31 for x in Q4.27."""
    x = np.asarray(x, np.int64)
    # 2x in Q5.26 is the same bits.
    above = _lifted(_reciprocal_half(exponential(-np.abs(x), 5)) - (1 << 29), 2)
    return np.where(x == 0, 0, np.where(x > 0, above, -above))


def inverse_root(values: np.ndarray) -> np.ndarray:
    """1 / sqrt(value) with 20 bits behind the point, for whole numbers of 1 to 255."""
    values = np.asarray(values, np.int64)
    lengths = np.frexp(values.astype(np.float64))[1]
    # Scaled by fours into [2^27, 2^29), where Newton's steps for 1 / sqrt start from 1.
    pairs = (31 - lengths) // 2 - 1
    multiplier, right = _inverse_root_near(values << (2 * pairs)), 11 - pairs
    multiplier, right = multiplier << np.maximum(-right, 0), np.maximum(right, 0)
    one = values == 1
    multiplier, right = np.where(one, ONE, multiplier), np.where(one, 0, right)
    return scaled(np.ones_like(values), multiplier, 20 - right)


def _inverse_root_near(values: np.ndarray) -> np.ndarray:
    """1 / sqrt in Q3.28, times sqrt(1 / 2), for values in Q2.29."""
    half = rounded_shift(values >> 1, 1)
    guess = np.full_like(values, 1 << 28)
    for _ in range(5):
        cube = _lifted(high_product(high_product(guess, guess), guess), 6)
        # 1.5 x - v / 2 * x^3; products of two Q3 are Q6.
        guess = _lifted(high_product(guess, 3 << 27) - high_product(half, cube), 3)
    return high_product(guess, _q31(2**-0.5))
