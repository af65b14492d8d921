"""Average and largest of a window, and the mean over whole dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.fixed import limited, scaled
from fedsys.edge.integers.kernels import Kernel
from fedsys.edge.integers.program import Mean, Node, Pool


def pool(node: Pool, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """One pass over the image for each place in the window."""
    (given,) = values
    image = given[:, 0]
    n, rows, columns, channels = image.shape
    _, high, wide, _ = shape
    sums = np.zeros((n, high, wide, channels), np.int32)
    if not node.mean:
        sums[:] = np.iinfo(np.int8).min
    counts = np.zeros((high, wide, 1), np.int32)
    for row in range(node.window[0]):
        down = _inside(row - node.pad[0], node.stride[0], rows, high)
        for column in range(node.window[1]):
            right = _inside(column - node.pad[1], node.stride[1], columns, wide)
            if down is None or right is None:
                continue
            (to_rows, from_rows), (to_columns, from_columns) = down, right
            seen, place = image[:, from_rows, from_columns], sums[:, to_rows, to_columns]
            if node.mean:
                place += seen
                counts[to_rows, to_columns] += 1
            else:
                np.maximum(place, seen, out=place)
    if node.mean:
        # Halves away from zero: round the size and give the sign back.
        sums = np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)
    return limited(sums, 0, node.low, node.high).reshape(n, *shape)


def mean(node: Mean, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Sums over the reduced dimensions, scaled."""
    (given,) = values
    axes = tuple(1 + axis for axis, gone in enumerate(node.reduced) if gone)
    sums = given.sum(axis=axes, dtype=np.int64) if axes else given.astype(np.int64)
    result = scaled(sums + node.bias, node.multiplier, node.shift)
    return limited(result, node.output_offset, node.low, node.high).reshape(len(given), *shape)


def _inside(first: int, stride: int, length: int, places: int) -> tuple[slice, slice] | None:
    """Of places first, first + stride, ..: which lie in 0 to length - 1, and where they lie."""
    begin = max(0, -(first // stride))
    end = min(places, (length - 1 - first) // stride + 1)
    if begin >= end:
        return None
    start = first + begin * stride
    return slice(begin, end), slice(start, start + (end - begin - 1) * stride + 1, stride)


KERNELS: Mapping[type[Node], Kernel] = {Pool: pool, Mean: mean}
