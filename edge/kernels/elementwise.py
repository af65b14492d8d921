"""ADD, SUB, MUL, PRELU, tables, QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedsys.edge.fixed import scaled
from fedsys.edge.kernels import Kernel
from fedsys.edge.program import (
    Add,
    Dequantize,
    Lookup,
    Multiply,
    Node,
    Operand,
    Prelu,
    Quantize,
)
from fedsys.edge.walks import places

# Every stored value, in the order of unsigned bytes: a table in this order is indexed by bytes.
BYTES = np.arange(256, dtype=np.uint8).view(np.int8)


def add(node: Add, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Both sides from tables of 256, since a side's scaled value depends on one byte alone."""
    sides = []
    for operand, found in zip((node.first, node.second), _gathered(node, values), strict=True):
        stored = BYTES.astype(np.int64) + operand.offset
        table = scaled(stored * 2**node.left, operand.multiplier, operand.shift)
        sides.append(table[found.view(np.uint8)])
    total = sides[0] - sides[1] if node.minus else sides[0] + sides[1]
    return _stored(node, scaled(total, node.multiplier, node.shift), shape)


def multiply(node: Multiply, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The product less both zero points, scaled."""
    first, second = _gathered(node, values)
    product = (first.astype(np.int64) + node.first.offset) * (
        second.astype(np.int64) + node.second.offset
    )
    return _stored(node, scaled(product, node.multiplier, node.shift), shape)


def prelu(node: Prelu, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Above zero a table of 256; below, the product with the slope."""
    source = values[0].reshape(len(values[0]), *node.shape)
    slope = _places(node.slope, node.shape, iter(values[1:])).astype(np.int64) + node.slope.offset
    centred = source.astype(np.int64) + node.input_offset
    above = scaled(BYTES.astype(np.int64) + node.input_offset, *node.positive)
    chosen = np.where(
        centred >= 0,
        above[source.view(np.uint8)],
        scaled(np.minimum(centred, 0) * slope, *node.negative),
    )
    return _stored(node, chosen, shape)


def lookup(node: Lookup, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The table's entry for each byte."""
    # From the order of stored values to that of unsigned bytes.
    return np.roll(node.table, 128)[values[0].view(np.uint8)].reshape(-1, *shape)


def quantize(node: Quantize, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Halves away from zero. What is too large ends at the limits of int8; NaN gives -128.

    The reference leaves both undefined.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = (values[0] / np.float32(node.scale)).astype(np.float64)
        rounded = np.copysign(np.floor(np.abs(ratio) + 0.5), ratio) + node.zero_point
    limited = np.clip(np.nan_to_num(rounded, nan=-128, posinf=127, neginf=-128), -128, 127)
    return limited.astype(np.int8).reshape(-1, *shape)


def dequantize(
    node: Dequantize, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """One float32 product."""
    centred = (values[0].astype(np.int32) - node.zero_point).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        return (np.float32(node.scale) * centred).reshape(-1, *shape)


def _stored(node: Add | Multiply | Prelu, real: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scaled results, limited, in the tensor's shape."""
    limited = np.clip(real + node.output_offset, node.low, node.high)
    return limited.astype(np.int8).reshape(-1, *shape)


def _gathered(node: Add | Multiply, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Both sides as [n or 1, *node.shape] int8."""
    given = iter(values)
    return [_places(operand, node.shape, given) for operand in (node.first, node.second)]


def _places(operand: Operand, shape: tuple[int, ...], given: Iterator[np.ndarray]) -> np.ndarray:
    """One side as [n, *shape] int8, or [1, *shape] where it is a constant."""
    source = next(given) if operand.data is None else operand.data[np.newaxis]
    flat = source.reshape(len(source), -1)
    if flat.shape[1] == math.prod(shape):
        # As many elements as results: nothing is repeated.
        return flat.reshape(-1, *shape)
    return flat[:, places(shape, 0, operand.strides)]


KERNELS: Mapping[type[Node], Kernel] = {
    Add: add,
    Multiply: multiply,
    Prelu: prelu,
    Lookup: lookup,
    Quantize: quantize,
    Dequantize: dequantize,
}
