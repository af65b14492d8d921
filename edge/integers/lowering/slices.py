"""What cuts pieces out of a tensor: SLICE, STRIDED_SLICE, SPLIT, UNPACK, GATHER, REVERSE."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.lowering.checks import (
    computed,
    dimension,
    integers,
    one_integer,
    require_same_quantization,
    result,
)
from fedsys.edge.integers.lowering.copies import copy, part
from fedsys.edge.integers.lowering.shared import Lowering, input_tensor, refusal, require_arity
from fedsys.edge.integers.program import Node
from fedsys.edge.integers.walks import contiguous
from fedsys.edge.tflite.model import Model, Operator, Tensor

# A run of a GATHER is a loop of its own in the code.
MOST_RUNS = 64


def _slice(model: Model, operator: Operator) -> Sequence[Node]:
    """`size` elements from `begin` in each dimension; -1: all that are left."""
    require_arity(model, operator, 3)
    source = computed(model, operator, 0)
    begin = integers(model, operator, 1, "begin")
    size = integers(model, operator, 2, "size")
    if not len(begin) == len(size) == len(source.shape):
        raise refusal(
            model, operator, f"cuts {size} from {begin} out of shape {list(source.shape)}"
        )
    shape = [
        whole - first if count == -1 else count
        for first, count, whole in zip(begin, size, source.shape, strict=True)
    ]
    for first, count, whole in zip(begin, shape, source.shape, strict=True):
        if first < 0 or count < 1 or first + count > whole:
            raise refusal(model, operator, f"cuts {count} from {first} out of {whole} elements")
    return [_piece(model, operator, source, begin, [1] * len(shape), shape, shape)]


def _strided_slice(model: Model, operator: Operator) -> Sequence[Node]:
    """x[begin:end:stride, ...] with masks, a bit for each entry, as NumPy reads such an index.

    Masks of begin and end leave these out, an ellipsis stands for dimensions in between, a new
    axis adds a dimension of one, and a shrunk one takes a single index.
    """
    require_arity(model, operator, 4)
    source = computed(model, operator, 0)
    begin, end, strides = (
        integers(model, operator, place, what)
        for place, what in ((1, "begin"), (2, "end"), (3, "strides"))
    )
    if not len(begin) == len(end) == len(strides):
        raise refusal(model, operator, f"its begin {begin}, end {end} and strides {strides} differ")
    masks = {
        name: int(operator.options.get(f"{name}_mask", 0))
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if operator.options.get("offset", False):
        end = [first + length for first, length in zip(begin, end, strict=True)]

    def masked(name: str, place: int) -> bool:
        return bool(masks[name] >> place & 1)

    fixed = sum(
        not masked("new_axis", place) and not masked("ellipsis", place)
        for place in range(len(begin))
    )
    left_out = len(source.shape) - fixed
    if left_out < 0 or bin(masks["ellipsis"]).count("1") > 1:
        raise refusal(model, operator, f"cuts {fixed} dimensions out of {list(source.shape)}")
    starts: list[int] = []
    steps: list[int] = []
    counts: list[int] = []
    shape: list[int] = []

    def take_all(number: int) -> None:
        for _ in range(number):
            size = source.shape[len(starts)]
            starts.append(0)
            steps.append(1)
            counts.append(size)
            shape.append(size)

    for place in range(len(begin)):
        if masked("ellipsis", place):
            take_all(left_out)
            left_out = 0
        elif masked("new_axis", place):
            shape.append(1)
        else:
            size, step = source.shape[len(starts)], strides[place]
            if step == 0:
                raise refusal(model, operator, "has a stride of zero")
            first = None if masked("begin", place) else begin[place]
            if masked("shrink_axis", place):
                first = 0 if first is None else first
                if not -size <= first < size:
                    raise refusal(model, operator, f"takes element {first} of {size}")
                chosen = range(first % size, first % size + 1)
                step = 1
            else:
                last = None if masked("end", place) else end[place]
                chosen = range(*slice(first, last, step).indices(size))
                shape.append(len(chosen))
            starts.append(chosen.start if chosen else 0)
            steps.append(step)
            counts.append(len(chosen))
    take_all(left_out)
    return [_piece(model, operator, source, starts, steps, counts, shape)]


def _piece(
    model: Model,
    operator: Operator,
    source: Tensor,
    starts: Sequence[int],
    steps: Sequence[int],
    counts: Sequence[int],
    shape: Sequence[int],
    place: int = 0,
) -> Node:
    """`counts` elements of each dimension, from `starts` in `steps`, as an output of `shape`."""
    output = result(model, operator, shape, place)
    require_same_quantization(model, operator, [source, output])
    strides = contiguous(source.shape)
    piece = part(
        source,
        counts,
        [step * stride for step, stride in zip(steps, strides, strict=True)],
        contiguous(counts),
        sum(start * stride for start, stride in zip(starts, strides, strict=True)),
    )
    return copy(model, operator, output, [piece])


def _split(model: Model, operator: Operator) -> Sequence[Node]:
    """Equal lengths along a dimension, an output each."""
    require_arity(model, operator, 2, len(operator.outputs))
    source = computed(model, operator, 1)
    axis = dimension(model, operator, one_integer(model, operator, 0, "axis"), len(source.shape))
    count = len(operator.outputs)
    if count == 0 or source.shape[axis] % count:
        raise refusal(model, operator, f"splits {source.shape[axis]} elements into {count}")
    return _cut(model, operator, source, axis, [source.shape[axis] // count] * count)


def _split_v(model: Model, operator: Operator) -> Sequence[Node]:
    """Given lengths along a dimension, one of which may be -1: what is left."""
    require_arity(model, operator, 3, len(operator.outputs))
    source = computed(model, operator, 0)
    axis = dimension(model, operator, one_integer(model, operator, 2, "axis"), len(source.shape))
    lengths, whole = integers(model, operator, 1, "lengths"), source.shape[axis]
    if lengths.count(-1) == 1:
        lengths[lengths.index(-1)] = whole - sum(lengths) - 1
    fits = len(lengths) == len(operator.outputs) and sum(lengths) == whole
    if not fits or min(lengths, default=0) < 1:
        raise refusal(model, operator, f"splits {whole} elements into {lengths}")
    return _cut(model, operator, source, axis, lengths)


def _cut(
    model: Model, operator: Operator, source: Tensor, axis: int, lengths: Sequence[int]
) -> Sequence[Node]:
    """An output for each of the lengths along a dimension."""
    nodes = []
    for place, start in enumerate(itertools.accumulate(lengths[:-1], initial=0)):
        starts, counts = [0] * len(source.shape), list(source.shape)
        starts[axis], counts[axis] = start, lengths[place]
        ones = [1] * len(counts)
        nodes.append(_piece(model, operator, source, starts, ones, counts, counts, place))
    return nodes


def _unpack(model: Model, operator: Operator) -> Sequence[Node]:
    """Every index of a dimension as an output without that dimension."""
    require_arity(model, operator, 1, len(operator.outputs))
    source = computed(model, operator, 0)
    rank = len(source.shape)
    axis = dimension(model, operator, int(operator.options.get("axis", 0)), rank)
    if source.shape[axis] != len(operator.outputs):
        raise refusal(
            model,
            operator,
            f"splits {source.shape[axis]} elements into {len(operator.outputs)} outputs",
        )
    shape = [*source.shape[:axis], *source.shape[axis + 1 :]]
    counts = [1 if place == axis else size for place, size in enumerate(source.shape)]
    nodes = []
    for number in range(len(operator.outputs)):
        starts = [number if place == axis else 0 for place in range(rank)]
        nodes.append(_piece(model, operator, source, starts, [1] * rank, counts, shape, number))
    return nodes


def _gather(model: Model, operator: Operator) -> Sequence[Node]:
    """Chosen indices of a dimension, known when the model is converted."""
    require_arity(model, operator, 2)
    source, indices = computed(model, operator, 0), input_tensor(model, operator, 1)
    if int(operator.options.get("batch_dims", 0)):
        raise refusal(model, operator, "gathers by batch")
    rank = len(source.shape)
    axis = dimension(model, operator, int(operator.options.get("axis", 0)), rank)
    if indices.data is None:
        raise refusal(
            model,
            operator,
            f"its indices {indices.name!r} are computed",
            "feed vectors to the model instead of an Embedding",
        )
    numbers = integers(model, operator, 1, "indices")
    if not all(0 <= number < source.shape[axis] for number in numbers):
        raise refusal(model, operator, f"an index is outside of {source.shape[axis]} elements")
    shape = (*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :])
    output = result(model, operator, shape)
    require_same_quantization(model, operator, [source, output])
    written = (*source.shape[:axis], len(numbers), *source.shape[axis + 1 :])
    from_steps, to_steps = contiguous(source.shape), contiguous(written)
    parts = []
    for start, stop in _runs(numbers):
        counts = [stop - start if place == axis else size for place, size in enumerate(written)]
        parts.append(
            part(
                source,
                counts,
                from_steps,
                to_steps,
                numbers[start] * from_steps[axis],
                start * to_steps[axis],
            )
        )
    if len(parts) > MOST_RUNS:
        raise refusal(
            model,
            operator,
            f"gathers {len(parts)} separate runs, which would be as many loops",
            "order the inputs so, or take at most 64 runs of neighbours",
        )
    return [copy(model, operator, output, parts)]


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of the stretches in which each number follows the one before."""
    breaks = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    return list(itertools.pairwise(breaks))


def _reverse(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, 2)
    source = computed(model, operator, 0)
    rank = len(source.shape)
    axes = {dimension(model, operator, axis, rank) for axis in integers(model, operator, 1, "axes")}
    starts = [size - 1 if place in axes else 0 for place, size in enumerate(source.shape)]
    steps = [-1 if place in axes else 1 for place in range(rank)]
    return [_piece(model, operator, source, starts, steps, source.shape, source.shape)]


LOWERINGS: Mapping[str, Lowering] = {
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "UNPACK": _unpack,
    "GATHER": _gather,
    "REVERSE_V2": _reverse,
}
