"""Compares the executor with TensorFlow Lite Micro, and draws what models of one operator need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.reader import read

from .build import Value, constant, one_operator, tflm

# Every stored value.
STORED = np.arange(-128, 128).astype(np.int8)

zero_points = st.one_of(st.sampled_from([-128, -1, 0, 1, 127]), st.integers(-128, 127))


def scales(low: float = 1e-4, high: float = 4.0) -> st.SearchStrategy[float]:
    """float32 scales, as many small as large ones.

    Among them simple ones, whose ratios make many results lie half way between two: there the
    last bit of a factor counts.
    """
    exponents = st.floats(float(np.log(low)), float(np.log(high)))
    even = exponents.map(lambda exponent: float(np.float32(np.exp(exponent))))
    simple = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.1, 0.12, 0.15, 0.3, 0.5, 0.6, 0.7, 1.0, 1.5]
    inside = [float(np.float32(scale)) for scale in simple if low <= scale <= high]
    return st.one_of(st.sampled_from(inside), even)


def program(*arguments: Any, **options: Any) -> Program:
    """The program of a model of one operator; arguments as for `one_operator`."""
    return lower(read(one_operator(*arguments, **options)))


def assert_agrees(data: bytes, inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every output of the executor has the bits of TensorFlow Lite Micro's; gives the outputs.

    inputs: an array an input, in the shape that the file gives it.
    """
    inputs = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    lowered = lower(read(data))
    found = trace(lowered, [_row(array) for array in inputs])
    expected = tflm(data, inputs)
    for number, reference in zip(lowered.model.outputs, expected, strict=True):
        ours = found[number].reshape(lowered.model.tensors[number].shape)
        assert ours.dtype == reference.dtype
        np.testing.assert_array_equal(ours, reference)
    return expected


def _row(array: np.ndarray) -> np.ndarray:
    """One row for the executor, whose tensors' leading one is that of the rows."""
    return array if array.ndim and array.shape[0] == 1 else array[np.newaxis]


def stored(seed: int, shape: Sequence[int]) -> np.ndarray:
    """int8 values drawn evenly."""
    return np.random.default_rng(seed).integers(-128, 128, tuple(shape)).astype(np.int8)


# For tests of what moves bytes.

quick = settings(deadline=None, max_examples=60)

SCALE = 0.05
seeds = st.integers(0, 2**32)


def shapes(least: int = 1, most: int = 4) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 4), min_size=least, max_size=most)


def int8(shape: Sequence[int], zero_point: int = 3) -> Value:
    return Value(list(shape), "int8", SCALE, zero_point)


def integers(*values: int) -> Value:
    return constant(np.array(values), "int32")


def assert_gives(
    code: str,
    inputs: Sequence[Value | None],
    values: Sequence[np.ndarray],
    expected: np.ndarray | Sequence[np.ndarray],
    options: dict[str, Any] | None = None,
) -> bytes:
    """The executor, TensorFlow Lite Micro and NumPy agree; gives the file."""
    expected = [expected] if isinstance(expected, np.ndarray) else list(expected)
    data = one_operator(code, inputs, [int8(array.shape) for array in expected], options)
    for result, array in zip(assert_agrees(data, values), expected, strict=True):
        np.testing.assert_array_equal(result, array)
    return data
