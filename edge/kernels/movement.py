"""What moves and computes nothing: copies, and images enlarged by repeating pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.kernels import Kernel
from fedsys.edge.program import Copy, Node, Resize
from fedsys.edge.walks import places


def copy(node: Copy, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Every part from its tensor or its constant to its place."""
    n = len(values[0])
    if node.alias:
        return values[0].reshape(n, *shape)
    given = dict(zip(node.inputs, values, strict=True))
    result = np.empty((n, *shape), values[0].dtype)
    if node.fill is not None:
        result.fill(node.fill)
    flat = result.reshape(n, -1)
    for part in node.parts:
        if part.tensor is not None:
            source = given[part.tensor].reshape(n, -1)
        else:
            assert part.data is not None, "lowering gave a tensor or data"
            source = part.data.reshape(1, -1)
        taken = source[:, places(part.shape, part.from_start, part.from_strides).ravel()]
        flat[:, places(part.shape, part.to_start, part.to_strides).ravel()] = taken
    return result


def resize(node: Resize, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Each output pixel shows one of the input's. values: [n, 1, rows, columns, channels]."""
    return values[0][:, :, node.rows][:, :, :, node.columns]


KERNELS: Mapping[type[Node], Kernel] = {Copy: copy, Resize: resize}
