"""SOFTMAX: its exponentials worked out in fixed point, once for each difference of two values.

The reference computes exp(beta * scale * difference) in Q0.31 by a polynomial near zero and a
product of constants for the powers of two (the scheme of gemmlowp's fixed-point functions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.fixed import INT32, high_product, quantized_multiplier, rounded_shift
from fedsys.edge.integers.lowering.shared import (
    Lowering,
    affine,
    input_tensor,
    output_tensor,
    refusal,
    require_arity,
    require_shape,
)
from fedsys.edge.integers.program import Node, Softmax
from fedsys.edge.tflite.model import Model, Operator

INTEGER_BITS = 5  # of the scaled difference: up to 32 below the largest
FRACTION_BITS = 31 - INTEGER_BITS

# More vectors than this long could overflow the reference's sum or its last shift.
LONGEST = 511

# exp(-1/8) and 1/3 in Q0.31.
EXP_EIGHTH = round(math.exp(-1 / 8) * 2**31)
THIRD = round(2**31 / 3)
# exp(-2^k) in Q0.31 for k = -2 to 4.
POWERS = tuple(round(math.exp(-(2.0**k)) * 2**31) for k in range(-2, 5))


def _softmax(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 1)
    given, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    source, target = affine(model, operator, given), affine(model, operator, output)
    require_shape(model, operator, output, given.shape)
    if not given.shape or given.size == 0:
        raise refusal(model, operator, f"its input has shape {list(given.shape)}")
    if target.zero_point != -128 or not math.isclose(target.scale, 1 / 256, rel_tol=1e-3):
        raise refusal(
            model,
            operator,
            f"its output has scale {target.scale:g} and zero point {target.zero_point}",
            "the int8 softmax gives probabilities as 1/256 and -128",
        )
    length = given.shape[-1]
    if length > LONGEST:
        raise refusal(
            model,
            operator,
            f"its vectors of {length} numbers overflow TensorFlow Lite Micro's 32 bits "
            f"beyond {LONGEST}",
            "leave the softmax out: the largest logit is the same class",
        )
    beta = float(np.float32(operator.options.get("beta", 1.0)))
    factor = beta * source.scale * 2**FRACTION_BITS
    if not (math.isfinite(factor) and factor >= 1):
        raise refusal(model, operator, f"beta {beta:g} with an input scale of {source.scale:g}")
    return [
        Softmax(
            operator,
            (given.index,),
            output.index,
            rows=given.size // length,
            length=length,
            exponential=_table(min(factor, float(INT32.max))),
        )
    ]


def _table(factor: float) -> np.ndarray:
    """[256] int32: exp(-difference * factor / 2^26) in Q0.31 for differences of 0 to 255."""
    multiplier, shift = quantized_multiplier(factor)
    farthest = math.floor((2**INTEGER_BITS - 1) * 2.0**FRACTION_BITS / 2.0**shift)
    difference = np.arange(256, dtype=np.int64)
    near = difference <= farthest
    # Beyond the farthest the product would leave int32; those count as nothing.
    shifted = np.where(near, -difference << shift, 0)
    scaled = high_product(shifted, multiplier)
    return np.where(near, exponential(scaled), 0).astype(np.int32)


def exponential(x: np.ndarray) -> np.ndarray:
    """exp of numbers at or below zero with 26 bits of fraction, as Q0.31; all int64."""
    quarter = 1 << (FRACTION_BITS - 2)
    rest = (x & (quarter - 1)) - quarter  # in [-1/4, 0)
    result = _near_zero(rest << INTEGER_BITS)
    whole = rest - x  # a multiple of 1/4
    for place, power in enumerate(POWERS):
        bit = (whole >> (FRACTION_BITS - 2 + place)) & 1
        result = np.where(bit == 1, high_product(result, power), result)
    return np.where(x == 0, INT32.max, result)


def _near_zero(x: np.ndarray) -> np.ndarray:
    """exp of Q0.31 numbers in [-1/4, 0): Taylor's polynomial around -1/8."""
    x = x + (1 << 28)
    square = high_product(x, x)
    cube = high_product(square, x)
    fourth = rounded_shift(high_product(square, square), 2)
    higher = rounded_shift(high_product(fourth + cube, THIRD) + square, 1)
    return np.minimum(EXP_EIGHTH + high_product(x + higher, EXP_EIGHTH), INT32.max)


LOWERINGS: Mapping[str, Lowering] = {"SOFTMAX": _softmax}
