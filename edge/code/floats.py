"""C at the borders to float: Quantize and Dequantize, without a math library."""

from __future__ import annotations

import numpy as np

from fedsys.edge.code.unit import Unit
from fedsys.edge.integers.program import Dequantize, Quantize

QUANTIZE = """
/* Rounded to nearest, halves away from zero. */
static void quantize(const int8_t *x, int8_t *y, int32_t count, float scale, int32_t zero)
{
    for (int32_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, x + 4 * i, sizeof value);
        value /= scale;
        /* Limited first, so that the conversion is defined; what is no number becomes the least. */
        value = value > -512.0f ? value : -512.0f;
        value = value < 512.0f ? value : 512.0f;
        const int32_t whole = (int32_t)value;
        const float rest = value - (float)whole;
        int32_t result = zero + whole + (rest >= 0.5f) - (rest <= -0.5f);
        result = result < -128 ? -128 : result;
        y[i] = (int8_t)(result > 127 ? 127 : result);
    }
}
"""

DEQUANTIZE = """
static void dequantize(const int8_t *x, int8_t *y, int32_t count, float scale, int32_t zero)
{
    for (int32_t i = 0; i < count; i++) {
        const float value = (float)(x[i] - zero) * scale;
        memcpy(y + 4 * i, &value, sizeof value);
    }
}
"""


def quantize(unit: Unit, node: Quantize) -> str:
    """The call of a Quantize."""
    unit.function("quantize", QUANTIZE)
    return _call(unit, "quantize", node)


def dequantize(unit: Unit, node: Dequantize) -> str:
    """The call of a Dequantize."""
    unit.function("dequantize", DEQUANTIZE)
    return _call(unit, "dequantize", node)


def literal(value: float) -> str:
    """A C literal of exactly this float32."""
    # Nine significant digits tell every float32 from its neighbours.
    return f"{np.float32(value):.8e}f"


def _call(unit: Unit, name: str, node: Quantize | Dequantize) -> str:
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    count = unit.tensor(node.output).size
    return f"{name}({source}, {target}, {count}, {literal(node.scale)}, {node.zero_point});"
