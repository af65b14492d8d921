"""Makes `Copy` nodes: parts merged to few loops, every place they reach checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsys.edge.integers.lowering.checks import all_constant
from fedsys.edge.integers.lowering.shared import refusal
from fedsys.edge.integers.program import Copy, Part
from fedsys.edge.integers.walks import contiguous, merge, places, within
from fedsys.edge.tflite.model import Model, Operator, Tensor


def part(
    source: Tensor,
    shape: Sequence[int],
    from_strides: Sequence[int],
    to_strides: Sequence[int],
    from_start: int = 0,
    to_start: int = 0,
) -> Part:
    """Elements of a tensor, computed or constant, to places of the output."""
    return Part(
        tensor=None if source.constant else source.index,
        shape=tuple(shape),
        from_start=from_start,
        from_strides=tuple(from_strides),
        to_start=to_start,
        to_strides=tuple(to_strides),
        data=source.data,
    )


def merged(part: Part) -> Part:
    """The same copy in as few dimensions as can be."""
    shape, (from_strides, to_strides) = merge(part.shape, [part.from_strides, part.to_strides])
    return replace(part, shape=shape, from_strides=from_strides, to_strides=to_strides)


def copy(
    model: Model,
    operator: Operator,
    output: Tensor,
    parts: Sequence[Part],
    fill: int | None = None,
) -> Copy:
    """The node of an operator that copies parts into its output; empty parts are dropped.

    fill: what is put where no part writes; None where the parts, which must not overlap, write
    all of it.
    """
    kept = [merged(part) for part in parts if 0 not in part.shape]
    for each in kept:
        _require_within(model, operator, each, output)
    read = tuple(dict.fromkeys(each.tensor for each in kept if each.tensor is not None))
    if not read:
        raise all_constant(model, operator)
    written = sum(int(np.prod(each.shape, dtype=np.int64)) for each in kept)
    if written == output.size:
        fill = None
    elif fill is None or written > output.size:
        raise refusal(
            model, operator, f"writes {written} elements of {output.name!r}, not {output.size}"
        )
    alone = kept[0]
    same = (
        len(kept) == 1
        and alone.shape == (output.size,)
        and (alone.from_start, alone.to_start) == (0, 0)
        and alone.from_strides == alone.to_strides == (1,)
        and output.size == model.tensors[read[0]].size
    )
    return Copy(
        operator,
        read,
        output.index,
        parts=tuple(_dense(each) for each in kept),
        fill=fill,
        alias=same,
    )


def _require_within(model: Model, operator: Operator, part: Part, output: Tensor) -> None:
    """Refuse a part that reads or writes outside of its tensors."""
    if part.tensor is not None:
        size = model.tensors[part.tensor].size
    else:
        assert part.data is not None, "a part copies a tensor or data"
        size = part.data.size
    inside = within(part.shape, part.from_start, part.from_strides, size) and within(
        part.shape, part.to_start, part.to_strides, output.size
    )
    if not inside:
        raise refusal(model, operator, "reaches outside of its tensors")


def _dense(part: Part) -> Part:
    """The same part with just the constants that it copies, in the order in which it does."""
    if part.data is None:
        return part
    taken = part.data.ravel()[places(part.shape, part.from_start, part.from_strides)]
    dense = replace(part, data=taken.ravel(), from_start=0, from_strides=contiguous(part.shape))
    return merged(dense)
