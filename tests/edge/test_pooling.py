from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import run
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Mean, Pool
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .agreement import assert_agrees, program, scales, zero_points
from .build import Value, constant, one_operator
from .layers import Case, activations, numbers, settings_of, stored, windows


def assert_rows_agree(case: Case) -> None:
    for row in case.rows:
        assert_agrees(case.file, row)


@st.composite
def pools(draw: Any) -> Case:
    code = draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    window = draw(windows(dilated=False))
    channels = draw(st.integers(1, 5))
    alike = {"scale": draw(scales()), "zero_point": draw(zero_points)}
    shape = (1, *window["length"], channels)
    file = one_operator(
        code,
        [Value(shape, **alike)],
        Value((1, *window["places"], channels), **alike),
        {
            **settings_of(window, draw(activations)),
            "filter_height": window["size"][0],
            "filter_width": window["size"][1],
        },
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@st.composite
def reductions(draw: Any) -> Case:
    code = draw(st.sampled_from(["MEAN", "MEAN", "SUM"]))
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=4))
    keep = draw(st.booleans())
    gone = {axis % len(shape) for axis in axes}
    result = [1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone]
    scale, zero_point = draw(scales()), draw(zero_points)
    output, output_zero = scale, zero_point
    if draw(st.booleans()):
        count = np.prod([shape[axis] for axis in gone]) if code == "SUM" else 1
        factor = draw(st.floats(0.2, 50.0)) * count
        output, output_zero = float(np.float32(scale * factor)), draw(zero_points)
    file = one_operator(
        code,
        [Value(shape, scale=scale, zero_point=zero_point), constant(axes, "int32")],
        Value(result, scale=output, zero_point=output_zero),
        {"keep_dims": keep},
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@settings(max_examples=250, deadline=None)
@given(pools())
def test_a_pool_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@settings(max_examples=300, deadline=None)
@given(reductions())
def test_a_mean_or_sum_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@pytest.mark.parametrize("code", ["MEAN", "SUM"])
@pytest.mark.parametrize("alike", [True, False], ids=["same-scale", "other-scale"])
def test_every_choice_of_dimensions_has_the_bits_of_the_reference(code, alike):
    random = np.random.default_rng(5)
    shape = (2, 7, 3, 5)
    for length in (1, 2, 3, 4):
        for axes in itertools.combinations(range(4), length):
            for keep in (True, False):
                result = [
                    1 if i in axes else size
                    for i, size in enumerate(shape)
                    if keep or i not in axes
                ]
                file = one_operator(
                    code,
                    [Value(shape, scale=0.05, zero_point=3), constant(axes, "int32")],
                    Value(result, scale=0.05 if alike else 0.031, zero_point=3 if alike else -7),
                    {"keep_dims": keep},
                )
                assert_agrees(file, random.integers(-128, 128, shape).astype(np.int8))


@pytest.mark.parametrize("count", [1, 2, 3, 49, 64, 1000, 4097])
def test_a_long_mean_has_the_bits_of_the_reference(count):
    random = np.random.default_rng(count)
    file = one_operator(
        "MEAN",
        [Value((1, count, 16), scale=0.1, zero_point=-128), constant([1], "int32")],
        Value((1, 16), scale=0.013, zero_point=5),
    )
    for top in (128, -100):
        assert_agrees(file, random.integers(-128, top, (1, count, 16)).astype(np.int8))


def test_an_average_at_the_edge_is_over_what_is_inside():
    lowered = program(
        "AVERAGE_POOL_2D",
        [Value((1, 2, 2, 1), scale=0.1)],
        Value((1, 2, 2, 1), scale=0.1),
        {"padding": "SAME", "stride_h": 1, "stride_w": 1, "filter_height": 2, "filter_width": 2},
    )
    (node,) = lowered.nodes
    assert isinstance(node, Pool) and node.mean and node.pad == (0, 0)
    image = np.array([[[[1], [2]], [[4], [-7]]]], np.int8)
    # (1 + 2 + 4 - 7) / 4, (2 - 7) / 2, (4 - 7) / 2 and -7: halves go away from zero.
    assert run(lowered, image).ravel().tolist() == [0, -3, -2, -7]


def test_the_node_of_a_mean_holds_the_count_and_both_zero_points():
    lowered = program(
        "MEAN",
        [Value((1, 4, 4, 2), scale=0.1, zero_point=3), constant([1, 2], "int32")],
        Value((1, 2), scale=0.1, zero_point=-5),
    )
    (node,) = lowered.nodes
    assert isinstance(node, Mean)
    assert node.reduced == (False, True, True, False)
    assert node.bias == -48 and node.output_offset == -5
    assert node.multiplier * 2.0 ** (node.shift - 31) == pytest.approx(1 / 16)


def pool(**changes: Any) -> bytes:
    given: dict[str, Any] = {"shape": (1, 4, 4, 2), "result": (1, 2, 2, 2), "scale": 0.1}
    options = {
        "padding": "VALID",
        "stride_h": 2,
        "stride_w": 2,
        "filter_height": 2,
        "filter_width": 2,
    }
    given.update({key: value for key, value in changes.items() if key in given})
    options.update({key: value for key, value in changes.items() if key in options})
    return one_operator(
        "MAX_POOL_2D",
        [Value(given["shape"], scale=0.1)],
        Value(given["result"], scale=given["scale"], name="model/pool"),
        options,
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"result": (1, 3, 2, 2)}, r"\[1, 3, 2, 2\], not \[1, 2, 2, 2\]"),
        ({"scale": 0.2}, "differ in scale"),
        ({"shape": (4, 4, 2)}, "static batch of one"),
        ({"filter_height": 5}, "does not fit an image"),
    ],
)
def test_a_pool_that_contradicts_itself_is_refused_by_name(changes, words):
    with pytest.raises(ExportError, match=f"MAX_POOL_2D of layer 'model/pool': .*{words}"):
        lower(read(pool(**changes)))


@pytest.mark.parametrize(
    "axes, result, words",
    [
        ([3], (1, 4), r"dimensions \[3\]"),
        ([-4], (1, 4), r"dimensions \[-4\]"),
        ([1], (1, 4, 1), r"not \[1, 2\]"),
    ],
)
def test_a_mean_over_other_dimensions_is_refused(axes, result, words):
    file = one_operator(
        "MEAN",
        [Value((1, 4, 2), scale=0.1), constant(axes, "int32")],
        Value(result, scale=0.1),
    )
    with pytest.raises(ExportError, match=words):
        lower(read(file))


def test_a_mean_over_computed_dimensions_is_refused():
    file = one_operator(
        "MEAN",
        [Value((1, 4, 2), scale=0.1), Value((1,), "int32")],
        Value((1, 2), scale=0.1),
    )
    with pytest.raises(ExportError, match="is computed, not a constant"):
        lower(read(file))
