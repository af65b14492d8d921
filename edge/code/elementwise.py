"""C of what is done to each element: sums, products, tables and PReLU."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from fedsys.edge.code import scaling
from fedsys.edge.code.unit import Unit, Value, loops, padded, place
from fedsys.edge.integers.program import Add, Lookup, Multiply, Operand, Prelu

# Operands that are broadcast have steps of zero. An output may lie over an operand.
ADD = """
/* Sums of two operands, whose elements lie `steps` apart in each dimension of the output. */
struct add {{
    int32_t shape[{rank}], a_steps[{rank}], b_steps[{rank}];
    int32_t a_offset, a_multiplier, a_shift;
    int32_t b_offset, b_multiplier, b_shift;
    int32_t sign, left; /* sign: of the second operand */
    int32_t multiplier, shift, offset, low, high;
}};

static void add(const struct add *n, const int8_t *a, const int8_t *b, int8_t *y)
{{
{body}
}}
"""

ADD_BODY = """
const int32_t p = (a[{a}] + n->a_offset) * (1 << n->left);
const int32_t q = (b[{b}] + n->b_offset) * (1 << n->left);
const int32_t sum = scaled(p, n->a_multiplier, n->a_shift)
    + n->sign * scaled(q, n->b_multiplier, n->b_shift);
*y++ = stored(scaled(sum, n->multiplier, n->shift), n->offset, n->low, n->high);
"""

MULTIPLY = """
/* Products of two operands, whose elements lie `steps` apart in each dimension of the output. */
struct multiply {{
    int32_t shape[{rank}], a_steps[{rank}], b_steps[{rank}];
    int32_t a_offset, b_offset, multiplier, shift, offset, low, high;
}};

static void multiply(const struct multiply *n, const int8_t *a, const int8_t *b, int8_t *y)
{{
{body}
}}
"""

MULTIPLY_BODY = """
const int32_t product = (a[{a}] + n->a_offset) * (b[{b}] + n->b_offset);
*y++ = stored(scaled(product, n->multiplier, n->shift), n->offset, n->low, n->high);
"""

PRELU = """
struct prelu {{
    int32_t shape[{rank}], steps[{rank}]; /* steps: from one slope to the next */
    int32_t x_offset, slope_offset;
    int32_t multiplier, shift; /* at or above zero */
    int32_t slope_multiplier, slope_shift; /* below */
    int32_t offset, low, high;
}};

static void prelu(const struct prelu *n, const int8_t *x, const int8_t *slope, int8_t *y)
{{
{body}
}}
"""

PRELU_BODY = """
const int32_t value = *x++ + n->x_offset;
const int32_t result = value >= 0
    ? scaled(value, n->multiplier, n->shift)
    : scaled(value * (slope[{at}] + n->slope_offset), n->slope_multiplier, n->slope_shift);
*y++ = stored(result, n->offset, n->low, n->high);
"""

LOOKUP = """
/* The table begins with the result for -128. */
static void lookup(const int8_t *table, const int8_t *x, int8_t *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = table[x[i] + 128];
    }
}
"""


def add(unit: Unit, node: Add) -> str:
    """The call of an Add."""
    rank = _rank([other.shape for other in unit.nodes(Add)])
    scaling.define_scaled(unit)
    body = ADD_BODY.format(a=place("n->a_steps", rank), b=place("n->b_steps", rank))
    unit.function("add", ADD.format(rank=rank, body=_walk(rank, body)))
    fields: dict[str, Value] = {
        "shape": padded(node.shape, rank, 1),
        "a_steps": padded(node.first.strides, rank, 0),
        "b_steps": padded(node.second.strides, rank, 0),
        "a_offset": node.first.offset,
        "a_multiplier": node.first.multiplier,
        "a_shift": node.first.shift,
        "b_offset": node.second.offset,
        "b_multiplier": node.second.multiplier,
        "b_shift": node.second.shift,
        "sign": -1 if node.minus else 1,
        "left": node.left,
        "multiplier": node.multiplier,
        "shift": node.shift,
        "offset": node.output_offset,
        "low": node.low,
        "high": node.high,
    }
    struct = unit.struct("add", fields)
    sides = f"{_operand(unit, node.first)}, {_operand(unit, node.second)}"
    return f"add({struct}, {sides}, {unit.bytes(node.output)});"


def multiply(unit: Unit, node: Multiply) -> str:
    """The call of a Multiply."""
    rank = _rank([other.shape for other in unit.nodes(Multiply)])
    scaling.define_scaled(unit)
    body = MULTIPLY_BODY.format(a=place("n->a_steps", rank), b=place("n->b_steps", rank))
    unit.function("multiply", MULTIPLY.format(rank=rank, body=_walk(rank, body)))
    fields: dict[str, Value] = {
        "shape": padded(node.shape, rank, 1),
        "a_steps": padded(node.first.strides, rank, 0),
        "b_steps": padded(node.second.strides, rank, 0),
        "a_offset": node.first.offset,
        "b_offset": node.second.offset,
        "multiplier": node.multiplier,
        "shift": node.shift,
        "offset": node.output_offset,
        "low": node.low,
        "high": node.high,
    }
    struct = unit.struct("multiply", fields)
    sides = f"{_operand(unit, node.first)}, {_operand(unit, node.second)}"
    return f"multiply({struct}, {sides}, {unit.bytes(node.output)});"


def prelu(unit: Unit, node: Prelu) -> str:
    """The call of a Prelu."""
    rank = _rank([other.shape for other in unit.nodes(Prelu)])
    scaling.define_scaled(unit)
    body = PRELU_BODY.format(at=place("n->steps", rank))
    unit.function("prelu", PRELU.format(rank=rank, body=_walk(rank, body)))
    fields: dict[str, Value] = {
        "shape": padded(node.shape, rank, 1),
        "steps": padded(node.slope.strides, rank, 0),
        "x_offset": node.input_offset,
        "slope_offset": node.slope.offset,
        "multiplier": node.positive[0],
        "shift": node.positive[1],
        "slope_multiplier": node.negative[0],
        "slope_shift": node.negative[1],
        "offset": node.output_offset,
        "low": node.low,
        "high": node.high,
    }
    struct = unit.struct("prelu", fields)
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return f"prelu({struct}, {source}, {_operand(unit, node.slope)}, {target});"


def lookup(unit: Unit, node: Lookup) -> str:
    """The call of a Lookup."""
    unit.function("lookup", LOOKUP)
    table = unit.array(node.table.astype(np.int8), "table")
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return f"lookup({table}, {source}, {target}, {unit.tensor(node.output).size});"


def _rank(shapes: Sequence[tuple[int, ...]]) -> int:
    return max(1, *(len(shape) for shape in shapes))


def _walk(rank: int, body: str) -> str:
    return textwrap.indent(loops("n->shape", rank, body), "    ")


def _operand(unit: Unit, side: Operand) -> str:
    if side.tensor is not None:
        return unit.bytes(side.tensor)
    assert side.data is not None, "an operand is a tensor or constant values"
    return unit.array(np.asarray(side.data).astype(np.int8).reshape(-1), "values")
