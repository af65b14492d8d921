"""Softmax in fixed point: exponentials from a table, over their sum by Newton's reciprocal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.fixed import INT32, high_product, rounded_shift
from fedsys.edge.integers.kernels import Kernel
from fedsys.edge.integers.program import Node, Softmax

# The sum of exponentials keeps 12 bits before its point.
SUM_BITS = 12
# First guess of 1 / x for x in [1/2, 1]: 48/17 - 32/17 x, with 2 bits before the point.
GUESS, SLOPE = 1515870810, -1010580540
ONE = 1 << 29  # with 2 bits before the point


def softmax(node: Softmax, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Each row by itself."""
    (given,) = values
    rows = given.reshape(-1, node.length).astype(np.int64)
    powers = node.exponential[rows.max(axis=1, keepdims=True) - rows].astype(np.int64)
    sums = rounded_shift(powers, SUM_BITS).sum(axis=1, keepdims=True)
    # Zeros before the sum's first bit, of 32; frexp is exact for integers of int32.
    zeros = 32 - np.frexp(sums.astype(np.float64))[1].astype(np.int64)
    inverse = reciprocal((sums << zeros) - (1 << 31))
    shares = high_product(inverse, powers)
    result = rounded_shift(shares, SUM_BITS - zeros + 31 - 8) - 128
    return np.clip(result, -128, 127).astype(np.int8).reshape(len(given), *shape)


def reciprocal(x: np.ndarray) -> np.ndarray:
    """1 / (1 + x) for x in [0, 1) in Q0.31, by three of Newton's steps; int64 of int32 range."""
    half = (x + INT32.max + 1) // 2
    guess = GUESS + high_product(half, SLOPE)
    for _ in range(3):
        error = ONE - high_product(half, guess)
        step = high_product(guess, error)
        guess = guess + np.clip(step << 2, INT32.min, INT32.max)
    return np.clip(guess << 1, INT32.min, INT32.max)


KERNELS: Mapping[type[Node], Kernel] = {Softmax: softmax}
