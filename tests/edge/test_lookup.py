"""Tables of functions of one byte equal TensorFlow Lite Micro's results for all 256 bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Lookup
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .agreement import STORED, assert_agrees, program, scales, zero_points
from .build import Value, one_operator

quick = settings(deadline=None, max_examples=150)

Quantised = tuple[float, int]


def model(
    code: str, before: Quantised, after: Quantised, options: Mapping[str, Any] | None = None
) -> bytes:
    """A file of one operator on all 256 bytes."""
    return one_operator(
        code, [Value([1, 256], "int8", *before)], Value([1, 256], "int8", *after), options
    )


def assert_table(*arguments: Any) -> np.ndarray:
    """All 256 results agree; gives them."""
    (expected,) = assert_agrees(model(*arguments), STORED.reshape(1, 256))
    return expected[0]


any_quantisation = st.tuples(scales(), zero_points)


@pytest.mark.parametrize("code", ["RELU", "ABS", "ELU", "QUANTIZE"])
@quick
@given(any_quantisation, any_quantisation)
def test_every_byte_agrees(code: str, before: Quantised, after: Quantised) -> None:
    assert_table(code, before, after)


@pytest.mark.parametrize("code, after", [("LOGISTIC", (1 / 256, -128)), ("TANH", (1 / 128, 0))])
@quick
@given(st.tuples(scales(1e-7, 100), zero_points))
def test_sigmoid_and_tanh_agree(code: str, after: Quantised, before: Quantised) -> None:
    assert_table(code, before, after)


@pytest.mark.parametrize("scale", [2**-26, 2**-20, 1 / 16, 1 / 8, 1.0, 4.0, 7.999, 8.0, 16.0, 1e6])
@pytest.mark.parametrize("code, after", [("LOGISTIC", (1 / 256, -128)), ("TANH", (1 / 128, 0))])
def test_sigmoid_and_tanh_agree_at_the_ends(code: str, after: Quantised, scale: float) -> None:
    for zero_point in (-128, 0, 127):
        assert_table(code, (scale, zero_point), after)


SIMPLE = [0.01, 0.02, 0.04, 0.06, 0.1, 0.3, 0.6, 1.5]


@pytest.mark.parametrize("code", ["RELU", "ABS", "ELU", "QUANTIZE", "HARD_SWISH", "LEAKY_RELU"])
def test_results_half_way_between_two_agree(code: str) -> None:
    """Simple scales: the last bit of a factor, worked out in float32 or float64, is seen."""
    options = {"alpha": 0.1} if code == "LEAKY_RELU" else {}
    for before in SIMPLE:
        for after in SIMPLE:
            if code != "HARD_SWISH" or 1 / 100 < after / before < 100:
                assert_table(code, (before, 3), (after, -7), options)


@quick
@given(any_quantisation)
def test_relu6_agrees(both: Quantised) -> None:
    assert_table("RELU6", both, both)


@quick
@given(any_quantisation, any_quantisation, st.floats(-4, 4, width=32))
def test_leaky_relu_agrees_for_slopes_of_either_sign(
    before: Quantised, after: Quantised, alpha: float
) -> None:
    assert_table("LEAKY_RELU", before, after, {"alpha": alpha})


@quick
@given(scales(1e-4, 100), zero_points, scales(1 / 90, 120), zero_points)
def test_hard_swish_agrees(scale: float, zero: int, ratio: float, after: int) -> None:
    """Its output's scale may not be below a 128th of its input's, and 16 bits must hold both."""
    assert_table("HARD_SWISH", (scale, zero), (float(np.float32(scale * ratio)), after))


@pytest.mark.parametrize(
    "before, after", [(0.156, 0.31322834), (2.359375, 4.7373276), (1.1640625, 2.3372908)]
)
def test_hard_swish_divides_its_scales_in_float64(before: float, after: float) -> None:
    """Scales for which a float32 division would change one of the 256 results."""
    assert_table("HARD_SWISH", (before, -128), (after, -128))


@quick
@given(scales(), any_quantisation)
@example(1.5, (0.001825037063099444, -128))  # where a factor in float32 rounds the other way
@example(0.0625, (0.5, 0))
def test_inverse_roots_agree(scale: float, after: Quantised) -> None:
    assert_table("RSQRT", (scale, -128), after)


def test_a_table_is_close_to_the_function() -> None:
    """Against the real function, so that the reference is not the only witness."""
    real = 0.05 * (STORED.astype(np.float64) - 3)
    table = assert_table("LOGISTIC", (0.05, 3), (1 / 256, -128))
    np.testing.assert_allclose((table + 128.0) / 256, 1 / (1 + np.exp(-real)), atol=1 / 256)
    table = assert_table("TANH", (0.05, 3), (1 / 128, 0))
    np.testing.assert_allclose(table / 128, np.tanh(real), atol=1.01 / 128)
    table = assert_table("HARD_SWISH", (0.05, 3), (0.03, -100))
    expected = real * np.clip(real + 3, 0, 6) / 6
    np.testing.assert_allclose((table + 100.0) * 0.03, np.minimum(expected, 227 * 0.03), atol=0.04)


def test_a_table_is_in_the_order_of_stored_values() -> None:
    (node,) = program(
        "QUANTIZE", [Value([1, 3], "int8", 0.5, 0)], Value([1, 3], "int8", 0.5, 1)
    ).nodes
    assert isinstance(node, Lookup)
    np.testing.assert_array_equal(node.table, np.minimum(STORED.astype(int) + 1, 127))


GOOD = (0.1, 0)


@pytest.mark.parametrize(
    "code, before, after, options, message",
    [
        ("LOGISTIC", GOOD, (1 / 128, -128), {}, "scale 0.0078125"),
        ("LOGISTIC", GOOD, (1 / 256, 0), {}, "zero point 0"),
        ("TANH", GOOD, (1 / 128, 1), {}, "zero point 1"),
        ("TANH", (1e-12, 0), (1 / 128, 0), {}, "too small"),
        ("RELU6", GOOD, (0.2, 0), {}, "TensorFlow Lite Micro ignores"),
        ("RELU", GOOD, (1e-9, 0), {}, "leave 32 bits"),
        ("QUANTIZE", GOOD, (1e-9, 0), {}, "leave 32 bits"),
        ("LEAKY_RELU", GOOD, (0.1, 0), {"alpha": 1e30}, "leave 32 bits"),
        ("ELU", GOOD, (1e-9, 0), {}, "leave 32 bits"),
        ("HARD_SWISH", GOOD, (1e-4, 0), {}, "16 bits do not hold"),
        ("HARD_SWISH", GOOD, (100, 0), {}, "do not fit 16 bits"),
        ("RSQRT", GOOD, (0.1, 0), {}, "below zero"),
        ("RSQRT", (1e-12, -128), (1e-12, 0), {}, "leave 32 bits"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    code: str, before: Quantised, after: Quantised, options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        lower(read(model(code, before, after, options)))


@pytest.mark.parametrize("code", ["NEG", "EXP", "SQRT", "LOG"])
def test_what_the_reference_does_not_compute_in_int8_is_refused(code: str) -> None:
    with pytest.raises(ExportError, match=code):
        lower(read(model(code, GOOD, GOOD)))


def test_another_shape_than_the_input_is_refused() -> None:
    data = one_operator("RELU", [Value([1, 4], "int8", 0.1)], Value([1, 400], "int8", 0.1))
    with pytest.raises(ExportError, match=r"\[1, 400\], not \[1, 4\]"):
        lower(read(data))
