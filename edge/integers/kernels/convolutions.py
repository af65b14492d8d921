"""Convolutions and dense layers: sums of products as floating-point matrix products.

A sum of products of small integers is exact in floating point as long as no partial sum leaves
the mantissa: 24 bits in float32, 53 in float64. That is many times faster in NumPy than integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedsys.edge.integers.fixed import limited, scaled
from fedsys.edge.integers.kernels import Kernel
from fedsys.edge.integers.program import (
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Node,
    TransposedConvolution,
)

# Numbers of a matrix of patches made at once.
PATCHES = 2**18
# Sums that are scaled at once.
PIECE = 2**15


def convolution(
    node: Convolution, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Patches times the kernel, group by group, in blocks of rows."""
    (given,) = values
    out, rows, columns, depth = node.kernel.shape
    _, high, wide, _ = shape
    n, groups = len(given), given.shape[-1] // depth
    kind = _exact_float(node)
    matrices = node.kernel.reshape(groups, out // groups, -1).transpose(0, 2, 1).astype(kind)
    result = np.empty((n, *shape), np.int8)
    step = max(1, PATCHES // (high * wide * rows * columns * groups * depth))
    for first in range(0, n, step):
        block = given[first : first + step, 0]
        patches = _patches(_padded(block, node, (rows, columns), (high, wide), kind), node,
                           (rows, columns), (high, wide))  # fmt: skip
        # [n, high, wide, channels, rows, columns] -> groups of [places, rows * columns * depth].
        count = len(block)
        patches = patches.reshape(count, high, wide, groups, depth, rows, columns)
        patches = patches.transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, count * high * wide, -1)
        sums = np.matmul(patches, matrices).transpose(1, 0, 2)
        sums = sums.reshape(count, 1, high, wide, out)
        result[first : first + step] = _finished(node, sums)
    return result


def depthwise(
    node: DepthwiseConvolution, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """One multiply-add over the image for each place in the kernel."""
    (given,) = values
    rows, columns, out = node.kernel.shape
    _, high, wide, _ = shape
    n = len(given)
    kind = _exact_float(node)
    kernel = node.kernel.astype(kind)
    result = np.empty((n, *shape), np.int8)
    step = max(1, PIECE // (high * wide * out))
    for first in range(0, n, step):
        block = given[first : first + step, 0]
        image = _padded(block, node, (rows, columns), (high, wide), kind)
        if node.depth > 1:
            image = image.repeat(node.depth, axis=3)
        sums = np.zeros((len(block), 1, high, wide, out), kind)
        product = np.empty((len(block), high, wide, out), kind)
        for row in range(rows):
            down = _every(row * node.dilation[0], node.stride[0], high)
            for column in range(columns):
                right = _every(column * node.dilation[1], node.stride[1], wide)
                np.multiply(image[:, down, right], kernel[row, column], out=product)
                sums[:, 0] += product
        result[first : first + step] = _finished(node, sums)
    return result


def transposed(
    node: TransposedConvolution, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Each input position's products, added where they belong on a canvas that is then cut."""
    (given,) = values
    out, rows, columns, depth = node.kernel.shape
    _, high, wide, _ = shape
    n, _, given_high, given_wide, _ = given.shape
    kind = _exact_float(node)
    matrix = node.kernel.reshape(-1, depth).T.astype(kind)
    result = np.empty((n, *shape), np.int8)
    step = max(1, PATCHES // (given_high * given_wide * matrix.shape[1]))
    for first in range(0, n, step):
        image = given[first : first + step, 0].astype(kind) + kind(node.input_offset)
        count = len(image)
        products = (image.reshape(-1, depth) @ matrix).reshape(
            count, given_high, given_wide, out, rows, columns
        )
        canvas = np.zeros(
            (
                count,
                max((given_high - 1) * node.stride[0] + rows, node.pad[0] + high),
                max((given_wide - 1) * node.stride[1] + columns, node.pad[1] + wide),
                out,
            ),
            kind,
        )
        for row in range(rows):
            for column in range(columns):
                canvas[
                    :,
                    _every(row, node.stride[0], given_high),
                    _every(column, node.stride[1], given_wide),
                ] += products[..., row, column]
        top, left = node.pad
        sums = canvas[:, None, top : top + high, left : left + wide]
        result[first : first + step] = _finished(node, sums)
    return result


def fully_connected(
    node: FullyConnected, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Vectors times the kernel."""
    (given,) = values
    kind = _exact_float(node)
    vectors = given.reshape(len(given) * node.rows, -1).astype(kind) + kind(node.input_offset)
    sums = vectors @ node.kernel.T.astype(kind)
    return _finished(node, sums).reshape(len(given), *shape)


def _exact_float(node: Any) -> type[np.floating[Any]]:
    """The smaller floating type in which every partial sum of the node is exact."""
    reach = max(abs(-128 + node.input_offset), abs(127 + node.input_offset))
    channels = 2 if isinstance(node, DepthwiseConvolution) else 0
    others = tuple(i for i in range(node.kernel.ndim) if i != channels)
    largest = int(np.abs(node.kernel.astype(np.int64)).sum(axis=others).max()) * reach
    return np.float32 if largest < 2**24 else np.float64


def _every(first: int, step: int, count: int) -> slice:
    """`count` places from `first`, `step` apart."""
    return slice(first, first + (count - 1) * step + 1, step)


def _padded(
    image: np.ndarray,
    node: Convolution | DepthwiseConvolution,
    size: tuple[int, int],
    places: tuple[int, int],
    kind: type[np.floating[Any]],
) -> np.ndarray:
    """[n, rows, columns, channels] with the offset added and zeros as far as windows reach."""
    n, rows, columns, channels = image.shape
    top, left = node.pad
    reach = [
        (places[i] - 1) * node.stride[i] + (size[i] - 1) * node.dilation[i] + 1 for i in (0, 1)
    ]
    padded = np.zeros((n, max(top + rows, reach[0]), max(left + columns, reach[1]), channels), kind)
    inside = padded[:, top : top + rows, left : left + columns]
    np.add(image, kind(node.input_offset), out=inside, dtype=kind)
    return padded


def _patches(
    image: np.ndarray, node: Convolution, size: tuple[int, int], places: tuple[int, int]
) -> np.ndarray:
    """A view [n, high, wide, channels, rows, columns] of what each window sees."""
    reach = tuple((size[i] - 1) * node.dilation[i] + 1 for i in (0, 1))
    seen = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    return seen[
        :,
        _every(0, node.stride[0], places[0]),
        _every(0, node.stride[1], places[1]),
        :,
        :: node.dilation[0],
        :: node.dilation[1],
    ]


def _finished(node: Any, sums: np.ndarray) -> np.ndarray:
    """Exact sums [..., channels] with bias, scaled, moved and limited.

    A piece at a time, which stays in the processor's cache through all the steps.
    """
    flat = sums.reshape(-1, sums.shape[-1])
    result = np.empty(flat.shape, np.int8)
    step = max(1, PIECE // flat.shape[1])
    bias = node.bias.astype(np.int64)
    for first in range(0, len(flat), step):
        whole = flat[first : first + step].astype(np.int64)
        whole += bias
        whole = scaled(whole, node.multiplier, node.shift)
        result[first : first + step] = limited(whole, node.output_offset, node.low, node.high)
    return result.reshape(sums.shape)


KERNELS: Mapping[type[Node], Kernel] = {
    Convolution: convolution,
    DepthwiseConvolution: depthwise,
    TransposedConvolution: transposed,
    FullyConnected: fully_connected,
}
