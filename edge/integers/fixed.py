"""Fixed-point scaling, as TensorFlow Lite Micro's kernels do it, on NumPy integers.

A real factor is a Q0.31 multiplier and a power of two. Scaling rounds twice: in the doubling high
product and in the shift (Jacob et al. 2018, section 2.2; the *double rounding* of the reference
kernels). Results are the same bits as on the chip.
"""

from __future__ import annotations

import math

import numpy as np

INT32 = np.iinfo(np.int32)


def quantized_multiplier(factor: float) -> tuple[int, int]:
    """The factor as (multiplier, shift): factor = multiplier / 2^31 * 2^shift, rounded.

    Factors too small for 31 bits of shift become zero. ValueError where it is negative or not
    finite.
    """
    if not math.isfinite(factor) or factor < 0:
        raise ValueError(f"a scale must be finite and not negative, not {factor}")
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        multiplier, shift = 0, 0
    return multiplier, shift


def high_product(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """a * b / 2^31, rounded to nearest, halves up; int64 of int32 range.

    The one product that does not fit, of the two smallest integers, saturates. (The reference
    adds a nudge by the product's sign and divides towards zero: the same for every product.)
    """
    product = np.multiply(a, b, dtype=np.int64)
    product += 1 << 30
    product >>= 31
    return np.minimum(product, INT32.max)


def rounded_shift(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """x / 2^exponent, rounded to nearest, halves away from zero; int64. exponent: 0 to 31."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    # Half of a negative number goes down (its sign is -1); what is not shifted is not rounded.
    sign = np.asarray(x >> 63)
    sign &= -(exponent > 0).astype(np.int64)
    sign += (np.int64(1) << exponent) >> 1
    sign += x
    sign >>= exponent
    return sign


def scaled(x: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """x times the factor, as int64 of int32 range; x must keep within int32 when shifted left."""
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    x = np.asarray(x, np.int64)
    return rounded_shift(high_product(x << left if left.any() else x, multiplier), right)


def limited(x: np.ndarray, output_offset: int, low: int, high: int) -> np.ndarray:
    """x + output_offset within low to high, as int8."""
    return np.clip(x + output_offset, low, high).astype(np.int8)
