"""Functions of one stored int8 value, as tables of 256 worked out by the reference's arithmetic.

LOGISTIC, TANH, RELU, RELU6, HARD_SWISH, LEAKY_RELU, ELU, ABS, RSQRT and QUANTIZE from int8 to
int8. A table costs 256 bytes of flash and no arithmetic on the chip. RELU_N1_TO_1, RELU_0_TO_1,
NEG, EXP, LOG and SQRT are not here: TensorFlow Lite Micro does not compute them in int8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.edge.integers.fixed import INT32, rounded_shift, scaled
from fedsys.edge.integers.lowering.checks import computed, result
from fedsys.edge.integers.lowering.curves import inverse_root, logistic, tanh
from fedsys.edge.integers.lowering.shared import (
    INT8,
    Affine,
    Lowering,
    affine,
    fixed,
    refusal,
    require_arity,
    stored,
)
from fedsys.edge.integers.program import Lookup, Node
from fedsys.edge.tflite.model import Model, Operator
from fedsys.errors import ExportError

# Every stored value, in the order of a table.
STORED = np.arange(INT8.min, INT8.max + 1, dtype=np.int64)

# The largest distance of a stored value from a zero point.
SPAN = 255


@dataclass(frozen=True)
class Unary:
    """An operator of one input and one output. before, after: their quantisation."""

    model: Model
    operator: Operator
    before: Affine
    after: Affine

    @property
    def centred(self) -> np.ndarray:
        """[256] stored values less the zero point."""
        return STORED - self.before.zero_point

    @property
    def ratio(self) -> float:
        """Input scale / output scale, in float64.

        Older versions of the reference divide in float32 for RELU, LEAKY_RELU and ABS, which
        changes results that lie half way between two.
        """
        return self.before.scale / self.after.scale

    def refuse(self, problem: str, remedy: str = "") -> ExportError:
        """The error that names the operator."""
        return refusal(self.model, self.operator, problem, remedy)

    def factor(self, real: float, largest: int = SPAN) -> tuple[int, int]:
        """A real factor as (multiplier, shift)."""
        return fixed(self.model, self.operator, real, largest)


# Results for the 256 stored values as integers, not yet limited to int8.
Table = Callable[[Unary], np.ndarray]


def lookup(table: Table) -> Lowering:
    """The lowering of an operator with this table."""

    def lower(model: Model, operator: Operator) -> Sequence[Node]:
        require_arity(model, operator, 1)
        source = computed(model, operator, 0)
        output = result(model, operator, source.shape)
        unary = Unary(
            model, operator, affine(model, operator, source), affine(model, operator, output)
        )
        values = np.clip(table(unary), INT8.min, INT8.max).astype(np.int8)
        return [Lookup(operator, (source.index,), output.index, table=values)]

    return lower


def _requantized(unary: Unary) -> np.ndarray:
    factor = unary.factor(unary.ratio)
    return scaled(unary.centred, *factor) + unary.after.zero_point


def _relu(unary: Unary) -> np.ndarray:
    values = scaled(unary.centred, *unary.factor(unary.ratio)) + unary.after.zero_point
    return np.maximum(values, unary.after.zero_point)


def _relu6(unary: Unary) -> np.ndarray:
    """The reference limits stored values and scales nothing."""
    if unary.before != unary.after:
        raise unary.refuse(
            "its input and output have different scales, which TensorFlow Lite Micro ignores",
            "put ReLU6 right behind a convolution or dense layer, so that it is fused, or use ReLU",
        )
    return np.clip(STORED, unary.before.zero_point, min(INT8.max, stored(6.0, unary.before)))


def _leaky_relu(unary: Unary) -> np.ndarray:
    alpha = float(unary.operator.options["alpha"])
    slope = unary.before.scale * alpha / unary.after.scale
    below = scaled(unary.centred, *unary.factor(abs(slope)))
    above = scaled(unary.centred, *unary.factor(unary.ratio))
    signed = -below if slope < 0 else below
    return np.where(unary.centred >= 0, above, signed) + unary.after.zero_point


def _absolute(unary: Unary) -> np.ndarray:
    distance = np.abs(unary.centred)
    if unary.before.scale != unary.after.scale:
        distance = scaled(distance, *unary.factor(unary.ratio))
    return distance + unary.after.zero_point


def _logistic(unary: Unary) -> np.ndarray:
    _require_output(unary, Affine(1 / 256, -128))
    real, beyond = _q4(unary)
    return _ended(rounded_shift(logistic(real), 23) - 128, beyond)


def _tanh(unary: Unary) -> np.ndarray:
    _require_output(unary, Affine(1 / 128, 0))
    real, beyond = _q4(unary)
    return _ended(rounded_shift(tanh(real), 24), beyond)


def _ended(values: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Values, or the ends of int8 where the input lies beyond Q4.27."""
    return np.where(beyond < 0, INT8.min, np.where(beyond > 0, INT8.max, values))


def _require_output(unary: Unary, needed: Affine) -> None:
    """Refuse an output that is not quantised as TensorFlow Lite fixes it for this function."""
    if unary.after != needed:
        raise unary.refuse(
            f"its output has scale {unary.after.scale:g} and zero point {unary.after.zero_point}, "
            f"not {needed.scale:g} and {needed.zero_point}",
            "the file breaks the format's rule for it",
        )


def _q4(unary: Unary) -> tuple[np.ndarray, np.ndarray]:
    """Real inputs in Q4.27, and where they lie outside of it: -1 below, 1 above, 0 inside."""
    fraction, exponent = math.frexp(unary.before.scale * 2**27)
    if exponent < 0:
        raise unary.refuse(
            f"the scale {unary.before.scale:g} of its input is too small",
            "its input hardly moved in calibration: calibrate on more varied rows",
        )
    # From here on the function has reached its end.
    radius = math.floor(15 * 2**27 / 2**exponent)
    centred = unary.centred
    beyond = np.where(centred <= -radius, -1, np.where(centred >= radius, 1, 0))
    if radius == 0:
        return np.zeros_like(centred), beyond
    # A float32 has 24 bits: the multiplier of 31 is exact.
    inside = np.where(beyond == 0, centred, 0)
    return scaled(inside, int(fraction * 2**31), exponent), beyond


def _hard_swish(unary: Unary) -> np.ndarray:
    """x * relu6(x + 3) / 6 in 16 bits, each step saturating as the reference has it."""
    fine = unary.before.scale / 128
    output_multiplier, output_shift = _int16_factor(unary, fine / unary.after.scale)
    gate_multiplier, gate_shift = _int16_factor(unary, fine / (3 / 32768))
    if output_shift > 0:
        raise unary.refuse(
            "the scale of its output is so small that 16 bits do not hold it",
            "calibrate on more varied rows, or use ReLU",
        )
    if output_shift < -15 or not -15 <= gate_shift <= 31:
        raise unary.refuse(
            f"its scales {unary.before.scale:g} and {unary.after.scale:g} do not fit 16 bits",
            "calibrate on more varied rows, or use ReLU",
        )
    x = unary.centred * 128
    numerator = _high_product16(x, output_multiplier)
    gate = _saturated16(x << max(gate_shift - 1, 0))
    gate = _high_product16(gate, gate_multiplier)
    gate = _saturated16(gate << 1) if gate_shift > 0 else rounded_shift(gate, -gate_shift)
    gate = (gate + 2**15) >> 1
    product = gate * numerator
    # Division towards zero, where every other step rounds to nearest.
    towards_zero = np.where(product >= 0, product >> 15, -((-product) >> 15))
    return rounded_shift(towards_zero, -output_shift) + unary.after.zero_point


def _int16_factor(unary: Unary, real: float) -> tuple[int, int]:
    """A real factor with a multiplier of 15 bits."""
    multiplier, shift = unary.factor(real, 0)
    return min((multiplier + 2**15) >> 16, 2**15 - 1), shift


def _high_product16(a: np.ndarray, b: int) -> np.ndarray:
    """a * b / 2^15, rounded to nearest, halves away from zero."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return np.where(nudged >= 0, nudged >> 15, -((-nudged) >> 15))


def _saturated16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -(2**15), 2**15 - 1)


def _elu(unary: Unary) -> np.ndarray:
    """In float32, as the reference fills its own table when a model is loaded."""
    one = np.float32(1)
    with np.errstate(all="ignore"):
        real = np.float32(unary.before.scale) * unary.centred.astype(np.float32)
        # exp is worked out in float64 and rounded: what a good expf gives.
        exponential = np.exp(np.minimum(real, 0).astype(np.float64)).astype(np.float32)
        curve = np.where(real < 0, exponential - one, real)
        stretched = curve * (one / np.float32(unary.after.scale))
    return _rounded(unary, stretched) + unary.after.zero_point


def _rounded(unary: Unary, real: np.ndarray) -> np.ndarray:
    """Integers nearest to float32 numbers, halves away from zero; refuses what leaves 32 bits."""
    wide = real.astype(np.float64)
    if not (np.isfinite(wide).all() and np.abs(wide).max() < INT32.max - SPAN):
        raise unary.refuse(
            f"its scales {unary.before.scale:g} and {unary.after.scale:g} leave 32 bits",
            "calibrate on more varied rows",
        )
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide).astype(np.int64)


def _inverse_root(unary: Unary) -> np.ndarray:
    if unary.before.zero_point != INT8.min:
        raise unary.refuse(
            "its input can be below zero, which has no root",
            "LayerNormalization and GroupNormalization need float: use BatchNormalization",
        )
    # Scales are floats of 32 bits in the file, and doubles from here on: so the reference has it.
    root = math.sqrt(np.float32(unary.before.scale)) * float(np.float32(unary.after.scale))
    real = 1 / root if root > 0 else math.inf
    # 1 / sqrt with 20 bits behind the point, which the output's factor takes off again.
    points = inverse_root(np.maximum(unary.centred, 1))
    values = scaled(points, *unary.factor(real / 2**20, 2**20)) + unary.after.zero_point
    # What lies near zero counts as the largest output.
    return np.where(unary.centred == 0, INT8.max, values)


requantize = lookup(_requantized)

LOWERINGS: Mapping[str, Lowering] = {
    "LOGISTIC": lookup(_logistic),
    "TANH": lookup(_tanh),
    "RELU": lookup(_relu),
    "RELU6": lookup(_relu6),
    "HARD_SWISH": lookup(_hard_swish),
    "LEAKY_RELU": lookup(_leaky_relu),
    "ELU": lookup(_elu),
    "ABS": lookup(_absolute),
    "RSQRT": lookup(_inverse_root),
}
