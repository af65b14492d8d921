"""C of Softmax in fixed point: exponentials from a table, a reciprocal by Newton's method."""

from __future__ import annotations

import numpy as np

from fedsys.edge.code import scaling
from fedsys.edge.code.unit import Unit
from fedsys.edge.integers.program import Softmax

SATURATED = """
static int32_t shifted_left(int32_t x, int32_t bits)
{
    const int32_t most = (int32_t)(0x7fffffffu >> bits);
    return x > most ? 0x7fffffff : x < -most - 1 ? -0x7fffffff - 1 : x * (1 << bits);
}
"""

SOFTMAX = """
/* Softmax of rows. table: exponentials in Q0.31 by the distance below the row's largest value, up
   to `known`; farther ones are zero. Sums are kept with 12 integer bits. */
static void softmax(const int32_t *table, int32_t known, const int8_t *x, int8_t *y, int32_t rows,
    int32_t length)
{
    for (; rows > 0; rows--) {
        int32_t largest = -128;
        for (int32_t i = 0; i < length; i++) {
            largest = x[i] > largest ? x[i] : largest;
        }
        uint32_t sum = 0;
        for (int32_t i = 0; i < length; i++) {
            const int32_t below = largest - x[i];
            sum += below < known ? (uint32_t)rounded_shift(table[below], 12) : 0;
        }
        int32_t zeros = 0; /* bits above the sum's first one */
        while (!(sum & 0x80000000u)) {
            sum <<= 1;
            zeros++;
        }
        /* 1 / (1 + f) for the fraction f of the sum, from 48/17 - 32/17 d, with d = (1 + f) / 2;
           in Q2.29, three steps. */
        const int32_t fraction = (int32_t)(sum & 0x7fffffffu);
        const int32_t half = (int32_t)(((int64_t)fraction + 0x7fffffff + 1) / 2);
        int32_t inverse = 1515870810 + high_product(half, -1010580540);
        for (int32_t step = 0; step < 3; step++) {
            const int32_t rest = (1 << 29) - high_product(half, inverse);
            inverse += shifted_left(high_product(inverse, rest), 2);
        }
        inverse = shifted_left(inverse, 1);
        for (int32_t i = 0; i < length; i++) {
            const int32_t below = largest - x[i];
            int32_t result = -128;
            if (below < known) {
                result += rounded_shift(high_product(inverse, table[below]), 35 - zeros);
            }
            y[i] = limited(result, -128, 127);
        }
        x += length;
        y += length;
    }
}
"""


def softmax(unit: Unit, node: Softmax) -> str:
    """The call of a Softmax."""
    unit.function("high_product", scaling.HIGH_PRODUCT)
    unit.function("rounded_shift", scaling.ROUNDED_SHIFT)
    unit.function("limited", scaling.LIMITED)
    unit.function("shifted_left", SATURATED)
    unit.function("softmax", SOFTMAX)
    table = node.exponential
    known = int(np.flatnonzero(table)[-1]) + 1
    name = unit.array(table[:known].astype(np.int32), "exponentials")
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return f"softmax({name}, {known}, {source}, {target}, {node.rows}, {node.length});"
