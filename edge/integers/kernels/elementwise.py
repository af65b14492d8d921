"""ADD, SUB, MUL, PRELU, tables, QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedsys.edge.integers.fixed import scaled
from fedsys.edge.integers.kernels import Kernel
from fedsys.edge.integers.program import (
    Add,
    Dequantize,
    Lookup,
    Multiply,
    Node,
    Operand,
    Prelu,
    Quantize,
)
from fedsys.edge.integers.walks import places

# Every stored value, in the order of unsigned bytes: a table in this order is indexed by bytes.
BYTES = np.arange(256, dtype=np.uint8).view(np.int8)


def paired(
    node: Add | Multiply | Prelu, values: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """A result depends on two bytes alone, hence is looked up among all 65,536."""
    given = iter(values)
    if isinstance(node, Prelu):
        source = next(given)
        first = source.reshape(len(source), *node.shape)
        second = _side(node.slope, node.shape, given)
    else:
        first = _side(node.first, node.shape, given)
        second = _side(node.second, node.shape, given)
    pairs = first.view(np.uint8).astype(np.uint16) << 8 | second.view(np.uint8)
    return results(node)[pairs].reshape(-1, *shape)


@functools.lru_cache(maxsize=64)
def results(node: Add | Multiply | Prelu) -> np.ndarray:
    """[65536] int8: the result for each pair of bytes, the first side's in the high eight bits."""
    first, second = BYTES.astype(np.int64)[:, np.newaxis], BYTES.astype(np.int64)
    if isinstance(node, Add):
        real = _sum(node, first, second)
    elif isinstance(node, Multiply):
        product = (first + node.first.offset) * (second + node.second.offset)
        real = scaled(product, node.multiplier, node.shift)
    else:
        real = _sloped(node, first + node.input_offset, second + node.slope.offset)
    return np.clip(real + node.output_offset, node.low, node.high).astype(np.int8).ravel()


def _sum(node: Add, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Both sides shifted left and scaled, added or subtracted, scaled back."""
    a, b = (
        scaled((stored + side.offset) * 2**node.left, side.multiplier, side.shift)
        for stored, side in ((first, node.first), (second, node.second))
    )
    return scaled(a - b if node.minus else a + b, node.multiplier, node.shift)


def _sloped(node: Prelu, value: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """A value at or above zero scaled, one below scaled with its slope."""
    below = scaled(np.minimum(value, 0) * slope, *node.negative)
    return np.where(value >= 0, scaled(value, *node.positive), below)


def lookup(node: Lookup, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The table's entry for each byte."""
    # From the order of stored values to that of unsigned bytes.
    table = np.roll(node.table, 128).tobytes()
    return np.frombuffer(values[0].tobytes().translate(table), np.int8).reshape(-1, *shape)


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


def _side(operand: Operand, shape: tuple[int, ...], given: Iterator[np.ndarray]) -> np.ndarray:
    """One side as [n, *shape] int8, or [1, *shape] where it is a constant."""
    source = next(given) if operand.data is None else operand.data[np.newaxis]
    flat = source.reshape(len(source), -1)
    if flat.shape[1] == math.prod(shape):
        # As many elements as results: nothing is repeated.
        return flat.reshape(-1, *shape)
    return flat[:, places(shape, 0, operand.strides)]


KERNELS: Mapping[type[Node], Kernel] = {
    Add: paired,
    Multiply: paired,
    Prelu: paired,
    Lookup: lookup,
    Quantize: quantize,
    Dequantize: dequantize,
}
