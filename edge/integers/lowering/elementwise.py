"""ADD, SUB, MUL, PRELU, and between float32 and int8 QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.lowering.checks import all_constant, computed, result
from fedsys.edge.integers.lowering.lookup import LOWERINGS as LOOKUPS
from fedsys.edge.integers.lowering.lookup import SPAN, requantize
from fedsys.edge.integers.lowering.shared import (
    INT8,
    METHOD,
    Lowering,
    affine,
    fixed,
    input_tensor,
    limits,
    refusal,
    require_arity,
    require_shape,
)
from fedsys.edge.integers.program import Add, Dequantize, Multiply, Node, Operand, Prelu, Quantize
from fedsys.edge.integers.walks import broadcast, merge, within
from fedsys.edge.tflite.model import Model, Operator, Tensor

# Both sides of an ADD are shifted left by this many bits before they are scaled: 9 bits of a
# value less its zero point, and 20, leave room in 32 for their sum.
ADD_BITS = 20


def _add(model: Model, operator: Operator) -> Sequence[Node]:
    return _sum(model, operator, minus=False)


def _subtract(model: Model, operator: Operator) -> Sequence[Node]:
    return _sum(model, operator, minus=True)


def _sum(model: Model, operator: Operator, minus: bool) -> Sequence[Node]:
    output, sides, shape, strides = _pair(model, operator)
    scales = [affine(model, operator, side) for side in sides]
    after = affine(model, operator, output)
    low, high = limits(model, operator, after)
    # In float64: older versions of the reference worked out SUB's factors in float32, which
    # changes results that lie half way between two.
    twice = 2 * max(scales[0].scale, scales[1].scale)
    ratios = [before.scale / twice for before in scales]
    operands = [
        _operand(
            model,
            operator,
            side,
            shape,
            step,
            before.zero_point,
            *_fraction(model, operator, ratio),
        )
        for side, step, before, ratio in zip(sides, strides, scales, ratios, strict=True)
    ]
    multiplier, shift = _fraction(model, operator, twice / (2**ADD_BITS * after.scale))
    return [
        Add(
            operator,
            _inputs(operands),
            output.index,
            shape=shape,
            first=operands[0],
            second=operands[1],
            minus=minus,
            left=ADD_BITS,
            multiplier=multiplier,
            shift=shift,
            output_offset=after.zero_point,
            low=low,
            high=high,
        )
    ]


def _fraction(model: Model, operator: Operator, factor: float) -> tuple[int, int]:
    """A factor that must be below 1 as (multiplier, shift), the shift not above 0."""
    multiplier, shift = fixed(model, operator, factor, 1)
    if shift > 0:
        raise refusal(
            model,
            operator,
            "the scale of its output is so small beside those of its inputs that sums leave "
            "32 bits",
            "calibrate on more varied rows, or remove the layer",
        )
    return multiplier, shift


def _multiply(model: Model, operator: Operator) -> Sequence[Node]:
    output, sides, shape, strides = _pair(model, operator)
    first, second = (affine(model, operator, side) for side in sides)
    after = affine(model, operator, output)
    low, high = limits(model, operator, after)
    factor = first.scale * second.scale / after.scale
    multiplier, shift = fixed(model, operator, factor, SPAN * SPAN)
    operands = [
        _operand(model, operator, side, shape, step, before.zero_point)
        for side, step, before in zip(sides, strides, (first, second), strict=True)
    ]
    return [
        Multiply(
            operator,
            _inputs(operands),
            output.index,
            shape=shape,
            first=operands[0],
            second=operands[1],
            multiplier=multiplier,
            shift=shift,
            output_offset=after.zero_point,
            low=low,
            high=high,
        )
    ]


def _prelu(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 2)
    source, slopes = computed(model, operator, 0), input_tensor(model, operator, 1)
    output = result(model, operator, source.shape)
    before, after = affine(model, operator, source), affine(model, operator, output)
    slope = affine(model, operator, slopes)
    _require_broadcast(model, operator, slopes, output)
    shape, (steps,) = merge(output.shape, [broadcast(slopes.shape, output.shape)])
    operand = _operand(model, operator, slopes, shape, steps, slope.zero_point)
    return [
        Prelu(
            operator,
            (operator.inputs[0], *_inputs([operand])),
            output.index,
            shape=shape,
            slope=operand,
            positive=fixed(model, operator, before.scale / after.scale, SPAN),
            negative=fixed(model, operator, before.scale * slope.scale / after.scale, SPAN * SPAN),
            input_offset=-before.zero_point,
            output_offset=after.zero_point,
            low=INT8.min,
            high=INT8.max,
        )
    ]


def _pair(
    model: Model, operator: Operator
) -> tuple[Tensor, list[Tensor], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The output, both inputs, and the merged walk: its shape and the inputs' strides."""
    require_arity(model, operator, 2)
    sides = [input_tensor(model, operator, place) for place in range(2)]
    if all(side.constant for side in sides):
        raise all_constant(model, operator)
    try:
        shape = np.broadcast_shapes(sides[0].shape, sides[1].shape)
    except ValueError:
        raise refusal(
            model,
            operator,
            f"inputs have shapes {list(sides[0].shape)} and {list(sides[1].shape)}, which do not "
            "go together",
        ) from None
    output = result(model, operator, shape)
    merged, strides = merge(shape, [broadcast(side.shape, shape) for side in sides])
    return output, sides, merged, strides


def _require_broadcast(model: Model, operator: Operator, tensor: Tensor, onto: Tensor) -> None:
    """Refuse a tensor that cannot be repeated to the shape of another."""
    try:
        fits = np.broadcast_shapes(tensor.shape, onto.shape) == onto.shape
    except ValueError:
        fits = False
    if not fits:
        require_shape(model, operator, tensor, onto.shape)


def _operand(
    model: Model,
    operator: Operator,
    tensor: Tensor,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    zero_point: int,
    multiplier: int = 0,
    shift: int = 0,
) -> Operand:
    """One side of a walk over `shape` with `strides` on this side."""
    # True by how strides are made; asked again since the chip asks nothing.
    if not within(shape, 0, strides, tensor.size):
        raise refusal(model, operator, f"reads outside of {tensor.name!r}")
    return Operand(
        tensor=None if tensor.constant else tensor.index,
        data=tensor.data,
        strides=strides,
        offset=-zero_point,
        multiplier=multiplier,
        shift=shift,
    )


def _inputs(operands: Sequence[Operand]) -> tuple[int, ...]:
    """The tensors that operands read."""
    return tuple(operand.tensor for operand in operands if operand.tensor is not None)


def _quantize(model: Model, operator: Operator) -> Sequence[Node]:
    """From float32, which the program that calls the model has, or from int8 to int8."""
    require_arity(model, operator, 1)
    source = computed(model, operator, 0)
    if source.dtype == np.int8:
        return requantize(model, operator)
    _require_float(model, operator, source)
    output = result(model, operator, source.shape)
    after = affine(model, operator, output)
    return [
        Quantize(
            operator, (source.index,), output.index, scale=after.scale, zero_point=after.zero_point
        )
    ]


def _dequantize(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 1)
    source = input_tensor(model, operator, 0)
    if source.constant:
        raise refusal(
            model,
            operator,
            f"weights {source.name!r} are turned back to float32: a hybrid model",
            METHOD,
        )
    before = affine(model, operator, source)
    output = result(model, operator, source.shape)
    _require_float(model, operator, output)
    return [
        Dequantize(
            operator,
            (source.index,),
            output.index,
            scale=before.scale,
            zero_point=before.zero_point,
        )
    ]


def _require_float(model: Model, operator: Operator, tensor: Tensor) -> None:
    if tensor.dtype != np.float32:
        raise refusal(model, operator, f"tensor {tensor.name!r} is {tensor.dtype.name}", METHOD)


LOWERINGS: Mapping[str, Lowering] = {
    **LOOKUPS,
    "ADD": _add,
    "SUB": _subtract,
    "MUL": _multiply,
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
