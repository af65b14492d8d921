"""How elements of tensors lie, for nodes that walk through several tensors at once.

A walk is a shape and, for each tensor, strides: how many elements its place moves for a step in
each dimension. Fewer dimensions are fewer loops on the chip, so walks are merged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor whose last dimension lies closest together."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def broadcast(shape: Sequence[int], onto: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor of `shape` in a walk over `onto`: 0 where it is repeated.

    shape: what NumPy would broadcast to `onto`.
    """
    own = contiguous(shape)
    strides = [0 if size == 1 else step for size, step in zip(shape, own, strict=True)]
    return (0,) * (len(onto) - len(shape)) + tuple(strides)


def merge(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The same walk in as few dimensions as can be: ones dropped, neighbours merged.

    strides: of each tensor that is walked through. Two neighbours merge where every tensor's
    outer step is as long as all its inner steps. A walk of one element has shape (1,), strides 1.
    """
    sizes: list[int] = []
    steps: list[list[int]] = []
    for place, size in enumerate(shape):
        if size == 1:
            continue
        step = [tensor[place] for tensor in strides]
        if steps and all(
            outer == inner * size for outer, inner in zip(steps[-1], step, strict=True)
        ):
            sizes[-1], steps[-1] = sizes[-1] * size, step
        else:
            sizes.append(size)
            steps.append(step)
    if not sizes:
        return (1,), tuple((1,) for _ in strides)
    return tuple(sizes), tuple(
        tuple(step[tensor] for step in steps) for tensor in range(len(strides))
    )


def within(shape: Sequence[int], start: int, strides: Sequence[int], size: int) -> bool:
    """Whether every place of a walk from `start` lies in a tensor of `size` elements."""
    ends = [(count - 1) * step for count, step in zip(shape, strides, strict=True)]
    lowest = start + sum(end for end in ends if end < 0)
    highest = start + sum(end for end in ends if end > 0)
    return min(shape, default=1) > 0 and lowest >= 0 and highest < size


def places(shape: Sequence[int], start: int, strides: Sequence[int]) -> np.ndarray:
    """Every place of a walk, [*shape] int64: start + sum of index * stride."""
    found = np.full(tuple(shape), start, np.int64)
    for dimension, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        steps = np.arange(size, dtype=np.int64) * stride
        found += steps.reshape(-1, *(1,) * (len(shape) - dimension - 1))
    return found
