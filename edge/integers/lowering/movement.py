"""What moves bytes and computes nothing: reshaping, joining, padding and turning.

Cutting out is in `slices.py`, resizing in `resizing.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.lowering.checks import (
    computed,
    dimension,
    integers,
    require_same_quantization,
    result,
)
from fedsys.edge.integers.lowering.copies import copy, part
from fedsys.edge.integers.lowering.resizing import LOWERINGS as RESIZING
from fedsys.edge.integers.lowering.shared import (
    Lowering,
    absent,
    affine,
    constant,
    input_tensor,
    output_tensor,
    refusal,
    require_arity,
    require_shape,
)
from fedsys.edge.integers.lowering.slices import LOWERINGS as SLICES
from fedsys.edge.integers.program import Copy, Node
from fedsys.edge.integers.walks import contiguous
from fedsys.edge.tflite.model import Model, Operator, Tensor


def _reshape(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, range(1, 3))
    source = computed(model, operator, 0)
    output = output_tensor(model, operator)
    asked = list(operator.options.get("new_shape", ()))
    if not absent(operator, 1):
        asked = integers(model, operator, 1, "shape")
    elif not asked:
        asked = list(output.shape)
    if asked.count(-1) == 1:
        known = -math.prod(asked)
        asked[asked.index(-1)] = source.size // known if known > 0 else 0
    return _whole(model, operator, source, asked)


def _squeeze(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 1)
    source = computed(model, operator, 0)
    rank = len(source.shape)
    dropped = {
        dimension(model, operator, int(axis), rank)
        for axis in operator.options.get("squeeze_dims", ())
    }
    for axis in dropped:
        if source.shape[axis] != 1:
            raise refusal(model, operator, f"drops a dimension of {source.shape[axis]}")
    every = range(rank)
    gone = dropped or {axis for axis in every if source.shape[axis] == 1}
    return _whole(
        model, operator, source, [source.shape[axis] for axis in every if axis not in gone]
    )


def _expand_dims(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 2)
    source = computed(model, operator, 0)
    numbers = integers(model, operator, 1, "axis")
    if len(numbers) != 1:
        raise refusal(model, operator, f"its axis has {len(numbers)} numbers, not 1")
    axis = dimension(model, operator, numbers[0], len(source.shape) + 1)
    return _whole(model, operator, source, [*source.shape[:axis], 1, *source.shape[axis:]])


def _whole(
    model: Model, operator: Operator, source: Tensor, shape: Sequence[int]
) -> Sequence[Node]:
    """The same bytes in another shape."""
    if math.prod(shape) != source.size:
        raise refusal(
            model, operator, f"turns shape {list(source.shape)} into {list(shape)}, another size"
        )
    output = result(model, operator, shape)
    require_same_quantization(model, operator, [source, output])
    return [copy(model, operator, output, [part(source, (source.size,), (1,), (1,))])]


def _concatenate(model: Model, operator: Operator) -> Sequence[Node]:
    if operator.options.get("fused_activation_function", "NONE") != "NONE":
        raise refusal(model, operator, "has a fused activation", "use a layer of its own")
    sources = _sources(model, operator)
    rank = len(sources[0].shape)
    axis = dimension(model, operator, int(operator.options.get("axis", 0)), rank)
    for source in sources:
        expected = list(sources[0].shape)
        if len(source.shape) == rank:
            expected[axis] = source.shape[axis]
        require_shape(model, operator, source, expected)
    lengths = [source.shape[axis] for source in sources]
    shape = list(sources[0].shape)
    shape[axis] = sum(lengths)
    return [_joined(model, operator, sources, [source.shape for source in sources], shape, axis)]


def _pack(model: Model, operator: Operator) -> Sequence[Node]:
    """Inputs side by side along a new dimension."""
    sources = _sources(model, operator)
    shape = sources[0].shape
    for source in sources:
        require_shape(model, operator, source, shape)
    axis = dimension(model, operator, int(operator.options.get("axis", 0)), len(shape) + 1)
    seen = (*shape[:axis], 1, *shape[axis:])
    packed = (*shape[:axis], len(sources), *shape[axis:])
    return [_joined(model, operator, sources, [seen] * len(sources), packed, axis)]


def _sources(model: Model, operator: Operator) -> list[Tensor]:
    """All inputs, of which there is one at least."""
    require_arity(model, operator, range(1, max(2, len(operator.inputs) + 1)))
    return [input_tensor(model, operator, place) for place in range(len(operator.inputs))]


def _joined(
    model: Model,
    operator: Operator,
    sources: Sequence[Tensor],
    shapes: Sequence[Sequence[int]],
    whole: Sequence[int],
    axis: int,
) -> Copy:
    """Sources, seen in `shapes`, one behind the other along a dimension."""
    output = result(model, operator, whole)
    require_same_quantization(model, operator, [output, *sources])
    to_strides = contiguous(whole)
    parts, position = [], 0
    for source, shape in zip(sources, shapes, strict=True):
        start = position * to_strides[axis]
        parts.append(part(source, shape, contiguous(shape), to_strides, to_start=start))
        position += shape[axis]
    return copy(model, operator, output, parts)


def _pad(model: Model, operator: Operator) -> Sequence[Node]:
    """Around the input what stands for zero, or for PADV2 a constant."""
    require_arity(model, operator, 3 if operator.code == "PADV2" else 2)
    source = computed(model, operator, 0)
    before, after = _paddings(model, operator, source)
    shape = [sum(sizes) for sizes in zip(before, source.shape, after, strict=True)]
    output = result(model, operator, shape)
    require_same_quantization(model, operator, [source, output])
    fill = affine(model, operator, output).zero_point
    if operator.code == "PADV2":
        value = constant(model, operator, 2, np.int8, "value")
        require_same_quantization(model, operator, [output, input_tensor(model, operator, 2)])
        if value.size != 1:
            raise refusal(model, operator, f"its value has {value.size} numbers, not 1")
        fill = int(value.ravel()[0])
    steps = contiguous(shape)
    start = sum(count * step for count, step in zip(before, steps, strict=True))
    inner = part(source, source.shape, contiguous(source.shape), steps, to_start=start)
    return [copy(model, operator, output, [inner], fill)]


def _mirror_pad(model: Model, operator: Operator) -> Sequence[Node]:
    """Around the input its mirror image, without the edge (REFLECT) or with it (SYMMETRIC)."""
    require_arity(model, operator, 2)
    source = computed(model, operator, 0)
    before, after = _paddings(model, operator, source)
    edge = 0 if operator.options.get("mode", "REFLECT") == "SYMMETRIC" else 1
    shape = [sum(sizes) for sizes in zip(before, source.shape, after, strict=True)]
    output = result(model, operator, shape)
    require_same_quantization(model, operator, [source, output])
    # Of each dimension three runs: (first in the output, first in the input, length, step).
    runs = []
    for left, size, right in zip(before, source.shape, after, strict=True):
        if max(left, right) > size - edge:
            raise refusal(model, operator, f"mirrors {max(left, right)} of {size} elements")
        runs.append(
            [
                (0, left - 1 + edge, left, -1),
                (left, 0, size, 1),
                (left + size, size - 1 - edge, right, -1),
            ]
        )
    from_steps, to_steps = contiguous(source.shape), contiguous(shape)
    parts = [
        part(
            source,
            [run[2] for run in chosen],
            [run[3] * step for run, step in zip(chosen, from_steps, strict=True)],
            to_steps,
            sum(run[1] * step for run, step in zip(chosen, from_steps, strict=True)),
            sum(run[0] * step for run, step in zip(chosen, to_steps, strict=True)),
        )
        for chosen in itertools.product(*([run for run in each if run[2]] for each in runs))
    ]
    return [copy(model, operator, output, parts)]


def _paddings(model: Model, operator: Operator, source: Tensor) -> tuple[list[int], list[int]]:
    """How many elements are put before and behind in each dimension."""
    numbers = integers(model, operator, 1, "padding")
    if len(numbers) != 2 * len(source.shape) or min(numbers, default=0) < 0:
        raise refusal(model, operator, f"its padding {numbers} does not fit {list(source.shape)}")
    return numbers[::2], numbers[1::2]


def _transpose(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 2)
    source = computed(model, operator, 0)
    order = integers(model, operator, 1, "order of dimensions")
    if sorted(order) != list(range(len(source.shape))):
        raise refusal(
            model, operator, f"its order {order} is none of {len(source.shape)} dimensions"
        )
    steps = contiguous(source.shape)
    shape = [source.shape[axis] for axis in order]
    return _rearranged(model, operator, source, shape, shape, [steps[axis] for axis in order])


def _space_to_depth(model: Model, operator: Operator) -> Sequence[Node]:
    """Blocks of pixels become channels: row in the block, column in it, channel."""
    source, block = _blocks(model, operator)
    batch, rows, columns, channels = source.shape
    if rows % block or columns % block:
        raise refusal(model, operator, f"blocks of {block} do not fit {list(source.shape)}")
    walk = (batch, rows // block, columns // block, block, block, channels)
    row, column = columns * channels, channels
    steps = (rows * row, block * row, block * column, row, column, 1)
    shape = (*walk[:3], block * block * channels)
    return _rearranged(model, operator, source, shape, walk, steps)


def _depth_to_space(model: Model, operator: Operator) -> Sequence[Node]:
    """Channels become blocks of pixels."""
    source, block = _blocks(model, operator)
    batch, rows, columns, channels = source.shape
    if channels % (block * block):
        raise refusal(model, operator, f"blocks of {block} do not fit {list(source.shape)}")
    depth = channels // (block * block)
    walk = (batch, rows, block, columns, block, depth)
    row, column = columns * channels, channels
    steps = (rows * row, row, block * depth, column, depth, 1)
    shape = (batch, rows * block, columns * block, depth)
    return _rearranged(model, operator, source, shape, walk, steps)


def _blocks(model: Model, operator: Operator) -> tuple[Tensor, int]:
    """The image and the side of a block."""
    require_arity(model, operator, 1)
    source, block = computed(model, operator, 0), int(operator.options.get("block_size", 0))
    if len(source.shape) != 4 or block < 1:
        raise refusal(model, operator, f"blocks of {block} of shape {list(source.shape)}")
    return source, block


def _rearranged(
    model: Model,
    operator: Operator,
    source: Tensor,
    shape: Sequence[int],
    walk: Sequence[int],
    steps: Sequence[int],
) -> Sequence[Node]:
    """An output of `shape`, written in order while the input is walked through in `steps`."""
    output = result(model, operator, shape)
    require_same_quantization(model, operator, [source, output])
    return [copy(model, operator, output, [part(source, walk, steps, contiguous(walk))])]


LOWERINGS: Mapping[str, Lowering] = {
    **SLICES,
    **RESIZING,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "CONCATENATION": _concatenate,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _mirror_pad,
    "TRANSPOSE": _transpose,
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _depth_to_space,
}
