"""ADD, SUB, MUL, PRELU, QUANTIZE and DEQUANTIZE have the bits of TensorFlow Lite Micro."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import run
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Add
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .agreement import STORED, assert_agrees, program, scales, stored, zero_points
from .build import Op, Value, build, constant, one_operator

ACTIVATIONS = ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]

quick = settings(deadline=None, max_examples=100)


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
@quick
@given(
    st.tuples(scales(), zero_points),
    st.tuples(scales(), zero_points),
    st.tuples(scales(), zero_points),
    st.sampled_from(ACTIVATIONS),
)
def test_all_pairs_of_stored_values_agree(
    code: str,
    first: tuple[float, int],
    second: tuple[float, int],
    output: tuple[float, int],
    activation: str,
) -> None:
    data = one_operator(
        code,
        [Value([1, 256, 1], "int8", *first), Value([1, 1, 256], "int8", *second)],
        Value([1, 256, 256], "int8", *output),
        {"fused_activation_function": activation},
    )
    assert_agrees(data, [STORED.reshape(1, 256, 1), STORED.reshape(1, 1, 256)])


@st.composite
def broadcasts(draw: Any) -> tuple[list[int], list[int]]:
    """Two shapes of one to four dimensions that NumPy broadcasts to one."""
    whole = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    sides = []
    for _ in range(2):
        kept = [size if draw(st.booleans()) else 1 for size in whole]
        sides.append(kept[draw(st.integers(0, len(kept) - 1)) :])
    return sides[0], sides[1]


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
@quick
@given(broadcasts(), st.sampled_from([None, 0, 1]), st.integers(0, 2**32))
def test_any_broadcast_and_constant_sides_agree(
    code: str, shapes: tuple[list[int], list[int]], fixed: int | None, seed: int
) -> None:
    values = [stored(seed + side, shape) for side, shape in enumerate(shapes)]
    tensors = [
        constant(value, "int8", 0.03, 5) if side == fixed else Value(value.shape, "int8", 0.02, -7)
        for side, value in enumerate(values)
    ]
    output = Value(np.broadcast_shapes(*shapes), "int8", 0.04, 3)
    data = one_operator(code, tensors, output)
    assert_agrees(data, [value for side, value in enumerate(values) if side != fixed])


@quick
@given(
    st.tuples(scales(), zero_points),
    st.tuples(scales(), zero_points),
    st.tuples(scales(), zero_points),
    st.booleans(),
)
def test_prelu_agrees_for_all_values_and_slopes(
    before: tuple[float, int], slope: tuple[float, int], after: tuple[float, int], fixed: bool
) -> None:
    slopes = STORED.reshape(1, 1, 256)
    data = one_operator(
        "PRELU",
        [
            Value([1, 256, 256], "int8", *before),
            constant(slopes, "int8", *slope) if fixed else Value(slopes.shape, "int8", *slope),
        ],
        Value([1, 256, 256], "int8", *after),
    )
    values = np.tile(STORED.reshape(1, 256, 1), (1, 1, 256))
    assert_agrees(data, [values] if fixed else [values, slopes])


@quick
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.data(), st.integers(0, 2**32))
def test_prelu_repeats_slopes_along_any_dimension(
    shape: list[int], draw: st.DataObject, seed: int
) -> None:
    kept = [size if draw.draw(st.booleans()) else 1 for size in shape]
    values = stored(seed, [1, *shape])
    data = one_operator(
        "PRELU",
        [Value(values.shape, "int8", 0.02, 3), constant(stored(seed + 1, kept), "int8", 0.01, -4)],
        Value(values.shape, "int8", 0.03, 9),
    )
    assert_agrees(data, values)


@quick
@given(scales(1e-6, 1e4), zero_points, st.integers(0, 2**32))
def test_quantising_floats_agrees(scale: float, zero_point: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    halves = (np.arange(-300, 300) + 0.5) * np.float64(scale)
    near = np.concatenate([halves, generator.normal(0, 200 * scale, 400)]).astype(np.float32)
    around = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), -near])
    data = one_operator(
        "QUANTIZE",
        [Value([1, around.size], "float32")],
        Value([1, around.size], "int8", scale, zero_point),
    )
    assert_agrees(data, around.reshape(1, -1))


@pytest.mark.parametrize(
    "value, expected", [(1e30, 127), (-1e30, -128), (np.inf, 127), (-np.inf, -128), (np.nan, -128)]
)
def test_quantising_what_is_no_int8_ends_at_its_limits(value: float, expected: int) -> None:
    """The reference leaves these undefined."""
    lowered = program("QUANTIZE", [Value([1, 1], "float32")], Value([1, 1], "int8", 0.5, 100))
    assert run(lowered, np.array([[value]], np.float32)) == expected


@quick
@given(scales(1e-30, 1e30), zero_points)
def test_dequantising_agrees(scale: float, zero_point: int) -> None:
    data = one_operator(
        "DEQUANTIZE",
        [Value([1, 256], "int8", scale, zero_point)],
        Value([1, 256], "float32"),
    )
    assert_agrees(data, STORED.reshape(1, 256))


def test_rows_are_computed_each_by_itself() -> None:
    side = Value([1, 3, 4], "int8", 0.02, 1)
    bias = constant(stored(5, [4]), "int8", 0.01, 2)
    lowered = program("ADD", [side, bias], Value([1, 3, 4], "int8", 0.03, -1))
    rows = stored(1, [9, 3, 4])
    together = run(lowered, rows)
    assert together.shape == (9, 3, 4)
    np.testing.assert_array_equal(
        together, np.concatenate([run(lowered, rows[i : i + 1]) for i in range(9)])
    )


def test_neighbouring_dimensions_are_one_loop() -> None:
    side = Value([1, 4, 5, 6], "int8", 0.02, 1)
    bias = constant(stored(5, [6]), "int8", 0.01, 2)
    (node,) = program("ADD", [side, bias], Value([1, 4, 5, 6], "int8", 0.03)).nodes
    assert isinstance(node, Add)
    assert node.shape == (20, 6)
    assert (node.first.strides, node.second.strides) == ((6, 1), (0, 1))


SIDE = Value([1, 4], "int8", 0.1, 0)


@pytest.mark.parametrize(
    "code, inputs, output, message",
    [
        ("ADD", [SIDE, Value([1, 3], "int8", 0.1)], SIDE, "do not go together"),
        ("ADD", [SIDE, SIDE], Value([1, 5], "int8", 0.1), r"shape \[1, 5\], not \[1, 4\]"),
        ("ADD", [SIDE], SIDE, "has 1 inputs"),
        ("ADD", [SIDE, None], SIDE, "input 1 is missing"),
        ("SUB", [SIDE, Value([1, 4], "float32")], SIDE, "float32"),
        ("MUL", [SIDE, Value([1, 4], "int8")], SIDE, "no quantisation"),
        ("ADD", [SIDE, Value([1, 4], "int8", [0.1] * 4, 0, 1)], SIDE, "for each channel"),
        ("ADD", [SIDE, SIDE], Value([1, 4], "int8", 1e-8), "leave 32 bits"),
        ("SUB", [SIDE, SIDE], Value([1, 4], "int8", 1e-8), "leave 32 bits"),
        ("MUL", [SIDE, SIDE], Value([1, 4], "int8", 1e-8), "leave 32 bits"),
        ("PRELU", [SIDE, SIDE], Value([1, 4], "int8", 1e-9), "leave 32 bits"),
        ("PRELU", [SIDE, Value([2, 4], "int8", 0.1)], SIDE, r"not \[1, 4\]"),
        ("QUANTIZE", [Value([1, 4], "int32")], SIDE, "int32"),
        ("DEQUANTIZE", [SIDE], SIDE, "int8"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    code: str, inputs: list[Value | None], output: Value, message: str
) -> None:
    data = one_operator(code, inputs, output)
    with pytest.raises(ExportError, match=message) as caught:
        lower(read(data))
    assert "\n" not in str(caught.value)
    assert code in str(caught.value)


KNOWN = constant([[1] * 4], scale=0.1)


@pytest.mark.parametrize(
    "code, inputs, output, message",
    [
        ("ADD", [KNOWN, KNOWN], SIDE, "from constants"),
        ("PRELU", [KNOWN, KNOWN], SIDE, "from constants"),
        ("RELU", [KNOWN], SIDE, "from constants"),
        ("RESHAPE", [KNOWN, constant([1, 4], "int32")], SIDE, "from constants"),
        ("CONCATENATION", [KNOWN], SIDE, "from constants"),
        ("DEQUANTIZE", [KNOWN], Value([1, 4], "float32"), "hybrid"),
    ],
)
def test_what_is_computed_from_constants_is_refused(
    code: str, inputs: list[Value], output: Value, message: str
) -> None:
    """Beside an operator that reads the model's input."""
    tensors = [SIDE, SIDE, output, *inputs]
    data = build(
        tensors,
        [Op(code, range(3, len(tensors)), [2]), Op("RELU", [0], [1])],
        [0],
        [1, 2],
    )
    with pytest.raises(ExportError, match=message):
        lower(read(data))
