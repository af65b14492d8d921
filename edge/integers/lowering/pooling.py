"""AVERAGE_POOL_2D, MAX_POOL_2D, MEAN and SUM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.fixed import INT32
from fedsys.edge.integers.lowering.images import window
from fedsys.edge.integers.lowering.shared import (
    INT8,
    Lowering,
    affine,
    constant,
    fixed,
    input_tensor,
    limits,
    output_tensor,
    refusal,
    require_arity,
    require_shape,
)
from fedsys.edge.integers.program import Mean, Node, Pool
from fedsys.edge.tflite.model import Model, Operator

# Numbers that an average may be over: their sum keeps within int32.
LARGEST = INT32.max // 256


def _pool(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 1)
    image, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    given, result = affine(model, operator, image), affine(model, operator, output)
    if given.zero_point != result.zero_point or not math.isclose(
        given.scale, result.scale, rel_tol=1e-6
    ):
        raise refusal(
            model, operator, "input and output differ in scale or zero point", "convert it anew"
        )
    size = tuple(int(operator.options.get(name, 1)) for name in ("filter_height", "filter_width"))
    places = window(model, operator, image, (size[0], size[1]), dilated=False)
    require_shape(model, operator, output, (1, *places.output, image.shape[3]))
    if size[0] * size[1] > LARGEST:
        raise refusal(model, operator, f"a window of {size[0]} x {size[1]}")
    low, high = limits(model, operator, result)
    return [
        Pool(
            operator,
            (image.index,),
            output.index,
            mean=operator.code == "AVERAGE_POOL_2D",
            window=(size[0], size[1]),
            stride=places.stride,
            pad=places.pad,
            low=low,
            high=high,
        )
    ]


def _mean(model: Model, operator: Operator) -> Sequence[Node]:
    """MEAN and SUM: the sum less its zero points, scaled; MEAN has 1 / count in the factor."""
    require_arity(model, operator, 2)
    given, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    source, target = affine(model, operator, given), affine(model, operator, output)
    axes = constant(model, operator, 1, np.int32, "dimensions")
    rank = len(given.shape)
    if not all(-rank <= axis < rank for axis in axes.ravel()) or given.size == 0:
        raise refusal(
            model,
            operator,
            f"dimensions {axes.ravel().tolist()} of an input of shape {list(given.shape)}",
        )
    chosen = {int(axis) % rank for axis in axes.ravel()}
    reduced = tuple(axis in chosen for axis in range(rank))
    kept = bool(operator.options.get("keep_dims", False))
    shape = [
        1 if gone else size
        for size, gone in zip(given.shape, reduced, strict=True)
        if kept or not gone
    ]
    require_shape(model, operator, output, shape)
    count = math.prod(size for size, gone in zip(given.shape, reduced, strict=True) if gone)
    if count > LARGEST:
        raise refusal(model, operator, f"{count} numbers in one sum, which leaves 32 bits")
    reach = max(abs(INT8.min - source.zero_point), abs(INT8.max - source.zero_point))
    multiplier, shift = fixed(model, operator, source.scale / target.scale, reach)
    if operator.code == "MEAN":
        multiplier, shift = _divided(multiplier, shift, count)
    if multiplier and (reach * count) << max(shift, 0) > INT32.max - 2**8:
        raise refusal(model, operator, "its sums leave 32 bits")
    return [
        Mean(
            operator,
            (given.index,),
            output.index,
            shape=given.shape,
            reduced=reduced,
            bias=-source.zero_point * count,
            multiplier=multiplier,
            shift=shift,
            output_offset=target.zero_point,
            low=INT8.min,
            high=INT8.max,
        )
    ]


def _divided(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """The factor over `count`, in the integers of the reference: cut off, not rounded."""
    more = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << more) // count, shift - more


LOWERINGS: Mapping[str, Lowering] = {
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "SUM": _mean,
}
