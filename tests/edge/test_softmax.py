from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import run
from fedsys.edge.integers.kernels.softmax import reciprocal
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.lowering.softmax import FRACTION_BITS, exponential
from fedsys.edge.integers.program import Softmax
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .agreement import STORED, assert_agrees, program, scales, zero_points
from .build import Value, one_operator
from .layers import Case, numbers, stored


def softmax(shape: Any, scale: float = 0.1, beta: float = 1.0, **output: Any) -> bytes:
    result = {"scale": 1 / 256, "zero_point": -128, "name": "model/softmax", **output}
    return one_operator(
        "SOFTMAX", [Value(shape, scale=scale)], Value(shape, **result), {"beta": beta}
    )


@st.composite
def cases(draw: Any) -> Case:
    length = draw(st.one_of(st.integers(1, 20), st.integers(1, 511)))
    shape = draw(st.sampled_from([(1, length), (3, length), (1, 2, 2, length), (length,)]))
    file = one_operator(
        "SOFTMAX",
        [Value(shape, scale=draw(scales(1e-5, 20.0)), zero_point=draw(zero_points))],
        Value(shape, scale=1 / 256, zero_point=-128),
        {"beta": draw(st.sampled_from([1.0, 0.5, 0.3, 1.7]))},
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_softmax_has_the_bits_of_the_reference(case):
    for row in case.rows:
        assert_agrees(case.file, row)


@pytest.mark.parametrize("scale", [1e-4, 0.003, 0.0175, 0.1, 0.125, 0.7, 3.0])
def test_every_difference_of_two_values_has_the_bits_of_the_reference(scale):
    pairs = np.stack([np.full(256, 127, np.int8), STORED], axis=1)
    assert_agrees(softmax((256, 2), scale), pairs)
    assert_agrees(softmax((256, 2), scale), pairs[:, ::-1].copy())


@pytest.mark.parametrize("length", [255, 256, 257, 511])
def test_long_rows_of_equal_values_have_the_bits_of_the_reference(length):
    for value in (-128, 0, 127):
        assert_agrees(softmax((1, length)), np.full((1, length), value, np.int8))


@given(st.floats(-31.9, 0))
def test_the_exponential_is_near_the_exponential(x):
    stored_x = np.array([round(x * 2**FRACTION_BITS)])
    exact = math.exp(stored_x[0] / 2**FRACTION_BITS) * 2**31
    assert abs(exponential(stored_x)[0] - exact) <= 2**10


@given(st.integers(0, 2**31 - 1))
def test_the_reciprocal_is_near_the_reciprocal(x):
    exact = 2.0**31 / (1 + x / 2.0**31)
    assert abs(reciprocal(np.array([x]))[0] - exact) <= 16


def test_probabilities_are_those_of_the_real_softmax():
    random = np.random.default_rng(0)
    logits = random.integers(-128, 128, (500, 10)).astype(np.int8)
    lowered = lower(read(softmax((1, 10), 0.05)))
    (node,) = lowered.nodes
    assert isinstance(node, Softmax) and (node.rows, node.length) == (1, 10)
    assert node.exponential.dtype == np.int32 and node.exponential[0] == 2**31 - 1
    real = np.exp(logits * 0.05)
    real /= real.sum(axis=1, keepdims=True)
    found = (run(lowered, logits).astype(float) + 128) / 256
    assert np.abs(found - real).max() <= 1 / 256


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"shape": (1, 512)}, "leave the softmax out"),
        ({"shape": (1, 4), "zero_point": 0}, "zero point 0"),
        ({"shape": (1, 4), "scale": 0.1, "beta": -1.0}, "beta -1"),
        ({"shape": (1, 4), "scale": 0.1, "beta": 0.0}, "beta 0"),
    ],
)
def test_a_softmax_that_cannot_be_computed_is_refused_by_name(arguments, words):
    with pytest.raises(ExportError, match=f"SOFTMAX of layer 'model/softmax': .*{words}"):
        lower(read(softmax(**arguments)))


def test_a_softmax_to_another_shape_is_refused():
    with pytest.raises(ExportError, match=r"\[4, 1\], not \[1, 4\]"):
        program(
            "SOFTMAX",
            [Value((1, 4), scale=0.1)],
            Value((4, 1), scale=1 / 256, zero_point=-128),
            {"beta": 1.0},
        )
