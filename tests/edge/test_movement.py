"""What joins, pads and turns has the bytes of TensorFlow Lite Micro and of NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.integers.executor import run
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Copy, Part
from fedsys.edge.tflite.reader import read

from .agreement import (
    SCALE,
    assert_agrees,
    assert_gives,
    int8,
    integers,
    program,
    quick,
    seeds,
    shapes,
    stored,
    zero_points,
)
from .build import Op, build, constant, one_operator

# The same bytes in another shape.


@quick
@given(shapes(), seeds, st.data())
def test_reshaping_agrees(shape: list[int], seed: int, draw: st.DataObject) -> None:
    values = stored(seed, shape)
    after = draw.draw(st.permutations([*shape, 1]))
    asked = list(after)
    if draw.draw(st.booleans()):
        asked[draw.draw(st.integers(0, len(asked) - 1))] = -1
    data = assert_gives("RESHAPE", [int8(shape), integers(*asked)], [values], values.reshape(after))
    (node,) = lower(read(data)).nodes
    assert isinstance(node, Copy)
    assert node.alias
    assert node.parts == (Part(0, (values.size,), 0, (1,), 0, (1,)),)


def test_reshaping_by_options_alone_agrees() -> None:
    values = stored(1, [1, 6])
    assert_gives("RESHAPE", [int8([1, 6])], [values], values.reshape(2, 3), {"new_shape": [2, 3]})


@quick
@given(shapes(1, 3), st.integers(-4, 3), seeds)
def test_added_and_dropped_dimensions_agree(shape: list[int], axis: int, seed: int) -> None:
    axis = max(-len(shape) - 1, min(axis, len(shape)))
    values = stored(seed, shape)
    wider = np.expand_dims(values, axis)
    assert_gives("EXPAND_DIMS", [int8(shape), integers(axis)], [values], wider)
    place = axis % wider.ndim
    assert_gives("SQUEEZE", [int8(wider.shape)], [wider], values, {"squeeze_dims": [place]})
    every = np.asarray(np.squeeze(wider))
    if every.ndim:
        assert_gives("SQUEEZE", [int8(wider.shape)], [wider], every, {"squeeze_dims": []})


# Joined.


@quick
@given(shapes(), st.integers(2, 5), st.data(), seeds)
def test_concatenation_agrees(shape: list[int], count: int, draw: st.DataObject, seed: int) -> None:
    axis = draw.draw(st.integers(-len(shape), len(shape) - 1))
    arrays, inputs = [], []
    for number in range(count):
        shape[axis] = draw.draw(st.integers(1, 3))
        arrays.append(stored(seed + number, shape))
        fixed = number > 0 and draw.draw(st.booleans())
        inputs.append(constant(arrays[-1], "int8", SCALE, 3) if fixed else int8(shape))
    computed = [a for a, value in zip(arrays, inputs, strict=True) if value.data is None]
    assert_gives("CONCATENATION", inputs, computed, np.concatenate(arrays, axis), {"axis": axis})


@quick
@given(shapes(1, 3), st.integers(1, 4), st.data(), seeds)
def test_packing_and_unpacking_agree(
    shape: list[int], count: int, draw: st.DataObject, seed: int
) -> None:
    axis = draw.draw(st.integers(-len(shape) - 1, len(shape)))
    arrays = [stored(seed + number, shape) for number in range(count)]
    packed = np.stack(arrays, axis)
    options = {"axis": axis, "values_count": count}
    assert_gives("PACK", [int8(shape)] * count, arrays, packed, options)
    options = {"axis": axis, "num": count}
    assert_gives("UNPACK", [int8(packed.shape)], [packed], arrays, options)


def test_the_same_tensor_may_be_joined_twice() -> None:
    values = stored(1, [1, 3])
    data = build(
        [int8([1, 3]), int8([1, 6])],
        [Op("CONCATENATION", [0, 0], [1], {"axis": 1})],
        [0],
        [1],
    )
    (result,) = assert_agrees(data, values)
    np.testing.assert_array_equal(result, np.concatenate([values, values], 1))


def test_a_constant_part_holds_just_what_is_copied_in_order() -> None:
    fixed = stored(2, [1, 2, 2])
    (node,) = program(
        "CONCATENATION",
        [int8([1, 2, 3]), constant(fixed, "int8", SCALE, 3)],
        int8([1, 2, 5]),
        {"axis": 2},
    ).nodes
    assert isinstance(node, Copy)
    computed, known = node.parts
    assert (computed.shape, computed.to_strides) == ((2, 3), (5, 1))
    assert (known.tensor, known.from_strides, known.to_start) == (None, (2, 1), 3)
    assert known.data is not None
    np.testing.assert_array_equal(known.data, fixed.ravel())


# Padded.


@quick
@given(shapes(), st.data(), seeds, zero_points)
def test_padding_agrees(shape: list[int], draw: st.DataObject, seed: int, zero_point: int) -> None:
    widths = [draw.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape]
    values = stored(seed, shape)
    padding = constant(np.array(widths), "int32")
    tensor = int8(shape, zero_point)
    for code, fill, extra in [
        ("PAD", zero_point, []),
        ("PADV2", -77, [constant(np.int8(-77), "int8", SCALE, zero_point)]),
    ]:
        expected = np.pad(values, widths, constant_values=fill)
        data = one_operator(code, [tensor, padding, *extra], int8(expected.shape, zero_point))
        (result,) = assert_agrees(data, values)
        np.testing.assert_array_equal(result, expected)


@quick
@given(shapes(), st.sampled_from(["REFLECT", "SYMMETRIC"]), st.data(), seeds)
def test_mirror_padding_agrees(shape: list[int], mode: str, draw: st.DataObject, seed: int) -> None:
    most = [min(2, size - (mode == "REFLECT")) for size in shape]
    widths = [(draw.draw(st.integers(0, n)), draw.draw(st.integers(0, n))) for n in most]
    values = stored(seed, shape)
    expected = np.pad(values, widths, mode=mode.lower())  # type: ignore[call-overload]
    assert_gives(
        "MIRROR_PAD",
        [int8(shape), constant(np.array(widths), "int32")],
        [values],
        expected,
        {"mode": mode},
    )


# Turned.


@quick
@given(shapes(), st.data(), seeds)
def test_transposing_agrees(shape: list[int], draw: st.DataObject, seed: int) -> None:
    order = draw.draw(st.permutations(range(len(shape))))
    values = stored(seed, shape)
    data = assert_gives(
        "TRANSPOSE", [int8(shape), integers(*order)], [values], values.transpose(order)
    )
    (node,) = lower(read(data)).nodes
    moved = [axis for axis in order if shape[axis] > 1]
    assert isinstance(node, Copy)
    assert node.alias == (moved == sorted(moved))


@quick
@given(shapes(), st.data(), seeds)
def test_reversing_agrees(shape: list[int], draw: st.DataObject, seed: int) -> None:
    axis = draw.draw(st.integers(0, len(shape) - 1))
    values = stored(seed, shape)
    assert_gives("REVERSE_V2", [int8(shape), integers(axis)], [values], np.flip(values, axis))


@quick
@given(st.integers(1, 3), shapes(4, 4), seeds)
def test_blocks_and_channels_agree(block: int, shape: list[int], seed: int) -> None:
    batch, rows, columns, channels = shape
    values = stored(seed, [batch, rows * block, columns * block, channels])
    split = values.reshape(batch, rows, block, columns, block, channels)
    deep = split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
    options = {"block_size": block}
    assert_gives("SPACE_TO_DEPTH", [int8(values.shape)], [values], deep, options)
    assert_gives("DEPTH_TO_SPACE", [int8(deep.shape)], [deep], values, options)


def test_many_rows_at_once_are_each_copied() -> None:
    lowered = program(
        "PAD",
        [int8([1, 2, 2]), constant(np.array([[0, 0], [1, 0], [0, 1]]), "int32")],
        int8([1, 3, 3]),
    )
    rows = stored(1, [5, 2, 2])
    expected = np.pad(rows, [(0, 0), (1, 0), (0, 1)], constant_values=3)
    np.testing.assert_array_equal(run(lowered, rows), expected)
