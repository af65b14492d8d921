"""Copies, and images in another size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.kernels import Kernel
from fedsys.edge.integers.program import Copy, Interpolate, Node, Resize


def copy(node: Copy, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Every part from its tensor or its constant to its place."""
    n = len(values[0])
    if node.alias:
        return values[0].reshape(n, *shape)
    given = dict(zip(node.inputs, values, strict=True))
    result = np.empty((n, *shape), values[0].dtype)
    if node.fill is not None:
        result.fill(node.fill)
    for part in node.parts:
        if part.tensor is not None:
            source = np.ascontiguousarray(given[part.tensor])
        else:
            assert part.data is not None, "lowering gave a tensor or data"
            source = part.data[np.newaxis]
        seen = _walked(source, part.shape, part.from_start, part.from_strides)
        _walked(result, part.shape, part.to_start, part.to_strides)[:] = seen
    return result


def _walked(
    rows: np.ndarray, shape: tuple[int, ...], start: int, strides: tuple[int, ...]
) -> np.ndarray:
    """A walk through each row as a view, [n, *shape]. rows: [n, ...], contiguous.

    ValueError where it would leave the array.
    """
    size, item = rows[0].size, rows.itemsize
    steps = tuple(step * item for step in (size, *strides))
    return np.ndarray((len(rows), *shape), rows.dtype, rows, start * item, steps)


def resize(node: Resize, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Each output pixel shows one of the input's. values: [n, 1, rows, columns, channels]."""
    return values[0][:, :, node.rows][:, :, :, node.columns]


def interpolate(
    node: Interpolate, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Rows first, then columns, in whole numbers: the sum is exact whatever the order."""
    wide = values[0].astype(np.int32)
    # [n, 1, rows, columns, channels]
    tall = _weighted(wide, node.rows, 2)
    total = _weighted(tall, node.columns, 3)
    nudged = total + np.where(total > 0, 1 << 19, -(1 << 19)).astype(np.int32)
    # Division towards zero, as C has it.
    return np.where(nudged >= 0, nudged >> 20, -(-nudged >> 20)).astype(np.int8)


def _weighted(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Sums of two neighbours along a dimension, in 1024ths."""
    first, second, weight = places.T.astype(np.int32)
    weights = weight.reshape(-1, *(1,) * (values.ndim - axis - 1))
    return values.take(first, axis) * (1024 - weights) + values.take(second, axis) * weights


KERNELS: Mapping[type[Node], Kernel] = {Copy: copy, Resize: resize, Interpolate: interpolate}
