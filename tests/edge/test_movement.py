"""Copies have the bytes of TensorFlow Lite Micro and of NumPy's indexing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fedsys.edge.code import generate
from fedsys.edge.executor import run, trace
from fedsys.edge.lower import lower
from fedsys.edge.lowering.copies import merged
from fedsys.edge.program import Copy, Interpolate, Part, Resize
from fedsys.edge.reader import read
from fedsys.edge.walks import contiguous, merge, places, within
from fedsys.errors import DataError, ExportError

from . import c
from .agreement import assert_agrees, program, stored, zero_points
from .build import Op, Value, build, constant, one_operator
from .c import needs_gcc

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


# Walks.


@st.composite
def walks(draw: Any) -> tuple[list[int], list[int], list[int]]:
    """A shape and two tensors' strides; many neighbours can be merged."""
    shape = draw(shapes(1, 5))
    own = list(contiguous(shape))
    order = draw(st.permutations(range(len(shape))))
    choices = [own, [own[i] for i in order], [2 * step for step in own], [-step for step in own]]
    mixed = [draw(st.sampled_from([0, step, 3 * step])) for step in own]
    first, second = (draw(st.sampled_from([*choices, mixed])) for _ in range(2))
    return shape, first, second


@given(walks())
def test_merged_walks_visit_the_same_places_in_the_same_order(
    walk: tuple[list[int], list[int], list[int]],
) -> None:
    shape, *strides = walk
    smaller, kept = merge(shape, strides)
    for before, after in zip(strides, kept, strict=True):
        np.testing.assert_array_equal(
            places(shape, 0, before).ravel(), places(smaller, 0, after).ravel()
        )
    assert len(smaller) <= len(shape)
    assert 1 not in smaller or smaller == (1,)
    for place in range(len(smaller) - 1):
        pairs = [(step[place], step[place + 1] * smaller[place + 1]) for step in kept]
        assert any(outer != inner for outer, inner in pairs), "these could be merged"


@given(walks(), st.integers(0, 5))
def test_a_merged_part_copies_the_same(
    walk: tuple[list[int], list[int], list[int]], start: int
) -> None:
    shape, strides, _ = walk
    size = int(np.prod(shape))
    given = Part(0, tuple(shape), start, tuple(strides), 0, contiguous(shape))
    smaller = merged(given)
    source = np.arange(10_000)
    base = 5_000 + start
    expected = source[base + places(shape, 0, strides)].ravel()
    result = np.zeros(size, int)
    result[places(smaller.shape, smaller.to_start, smaller.to_strides)] = source[
        5_000 + places(smaller.shape, smaller.from_start, smaller.from_strides)
    ]
    np.testing.assert_array_equal(result, expected)
    assert smaller.from_start == start


@given(walks(), st.integers(-20, 20), st.integers(0, 100))
def test_within_tells_whether_every_place_is_inside(
    walk: tuple[list[int], list[int], list[int]], start: int, size: int
) -> None:
    shape, strides, _ = walk
    found = places(shape, start, strides)
    assert within(shape, start, strides, size) == bool((found >= 0).all() and (found < size).all())


@given(shapes(1, 4), st.data())
def test_numpy_views_are_walks(shape: list[int], draw: st.DataObject) -> None:
    """Strides mean what NumPy's do."""
    array = np.arange(np.prod(shape)).reshape(shape)
    index = tuple(slice(None, None, draw.draw(st.sampled_from([1, 2, -1, -2]))) for _ in shape)
    view = array[index].transpose(draw.draw(st.permutations(range(len(shape)))))
    start = int(view.ravel()[0])
    strides = [step // array.itemsize for step in view.strides]
    np.testing.assert_array_equal(array.ravel()[places(view.shape, start, strides)], view)


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


# Cut.


@quick
@given(shapes(), st.data(), seeds)
def test_slices_agree(shape: list[int], draw: st.DataObject, seed: int) -> None:
    begin = [draw.draw(st.integers(0, size - 1)) for size in shape]
    count = [
        draw.draw(st.sampled_from([-1, *range(1, size - first + 1)]))
        for first, size in zip(begin, shape, strict=True)
    ]
    values = stored(seed, shape)
    index = tuple(
        slice(first, None if length == -1 else first + length)
        for first, length in zip(begin, count, strict=True)
    )
    assert_gives(
        "SLICE", [int8(shape), integers(*begin), integers(*count)], [values], values[index]
    )


@st.composite
def cuts(draw: Any, size: int) -> tuple[int, int, int]:
    """begin, end and stride that take something out of a dimension."""
    bounds = st.integers(-size - 2, size + 2)
    cut = draw(
        st.tuples(bounds, bounds, st.sampled_from([-3, -2, -1, 1, 2, 3])).filter(
            lambda cut: len(range(*slice(*cut).indices(size))) > 0
        )
    )
    return cut


@settings(deadline=None, max_examples=150)
@given(shapes(), st.data(), seeds)
def test_strided_slices_agree(shape: list[int], draw: st.DataObject, seed: int) -> None:
    cut = [draw.draw(cuts(size)) for size in shape]
    masks = dict.fromkeys(["begin_mask", "end_mask", "shrink_axis_mask"], 0)
    index: list[Any] = []
    for place, (begin, end, step) in enumerate(cut):
        size = shape[place]
        if draw.draw(st.integers(0, 3)) == 0 and -size <= begin < size:
            masks["shrink_axis_mask"] |= 1 << place
            index.append(begin)
            cut[place] = (begin, begin + 1, 1)
            continue
        first: int | None = begin
        last: int | None = end
        if draw.draw(st.integers(0, 3)) == 0:
            masks["begin_mask"] |= 1 << place
            first = None
        if draw.draw(st.integers(0, 3)) == 0:
            masks["end_mask"] |= 1 << place
            last = None
        index.append(slice(first, last, step))
    values = stored(seed, shape)
    expected = values[tuple(index)]
    if expected.size == 0 or expected.ndim == 0:
        return
    begins, ends, strides = zip(*cut, strict=True)
    inputs = [int8(shape), integers(*begins), integers(*ends), integers(*strides)]
    assert_gives("STRIDED_SLICE", inputs, [values], expected, masks)


@pytest.mark.parametrize(
    "index, cut, masks",
    [
        (np.s_[..., 1], [(0, 0, 1), (1, 2, 1)], {"ellipsis": 1, "shrink_axis": 2}),
        (
            np.s_[1:2, ..., ::-1],
            [(1, 2, 1), (0, 0, 1), (0, 0, -1)],
            {"ellipsis": 2, "begin": 4, "end": 4},
        ),
        (
            np.s_[:, None, 1:],
            [(0, 0, 1), (0, 0, 1), (1, 0, 1)],
            {"begin": 1, "end": 5, "new_axis": 2},
        ),
        (np.s_[1:], [(1, 3, 1)], {}),
        (np.s_[..., None], [(0, 0, 1), (0, 0, 1)], {"ellipsis": 1, "new_axis": 2}),
        (
            np.s_[None, ..., 2:3, :],
            [(0, 0, 1)] * 2 + [(2, 3, 1), (0, 9, 1)],
            {"new_axis": 1, "ellipsis": 2},
        ),
        (np.s_[-1, 0], [(-1, 0, 1), (0, 1, 1)], {"shrink_axis": 3}),
    ],
)
def test_what_the_reference_cannot_index_is_as_in_numpy(
    index: Any, cut: list[tuple[int, int, int]], masks: dict[str, int]
) -> None:
    values = stored(3, [2, 3, 4])
    expected = values[index]
    begins, ends, strides = zip(*cut, strict=True)
    lowered = program(
        "STRIDED_SLICE",
        [int8([2, 3, 4]), integers(*begins), integers(*ends), integers(*strides)],
        int8(expected.shape),
        {f"{name}_mask": mask for name, mask in masks.items()},
    )
    (result,) = run(lowered, values[np.newaxis])
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


@quick
@given(shapes(), st.integers(1, 4), st.data(), seeds)
def test_splits_agree(shape: list[int], count: int, draw: st.DataObject, seed: int) -> None:
    axis = draw.draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] *= count
    values = stored(seed, shape)
    assert_gives(
        "SPLIT",
        [constant(np.int32(axis), "int32"), int8(shape)],
        [values],
        np.split(values, count, axis),
        {"num_splits": count},
    )
    lengths = [draw.draw(st.integers(1, 3)) for _ in range(count)]
    shape[axis] = sum(lengths)
    values = stored(seed + 1, shape)
    assert_gives(
        "SPLIT_V",
        [int8(shape), integers(*lengths), constant(np.int32(axis), "int32")],
        [values],
        np.split(values, np.cumsum(lengths)[:-1], axis),
        {"num_splits": count},
    )


@quick
@given(shapes(), st.data(), seeds)
def test_gathered_indices_agree(shape: list[int], draw: st.DataObject, seed: int) -> None:
    axis = draw.draw(st.integers(-len(shape), len(shape) - 1))
    chosen = draw.draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=6))
    values = stored(seed, shape)
    assert_gives(
        "GATHER",
        [int8(shape), integers(*chosen)],
        [values],
        np.take(values, chosen, axis),
        {"axis": axis},
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


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(*[st.integers(1, 12)] * 2),
    st.tuples(*[st.integers(1, 30)] * 2),
    st.sampled_from([(False, False), (True, False), (False, True)]),
    seeds,
)
def test_nearest_neighbours_agree(
    before: tuple[int, int], after: tuple[int, int], kind: tuple[bool, bool], seed: int
) -> None:
    values = stored(seed, [1, *before, 2])
    data = one_operator(
        "RESIZE_NEAREST_NEIGHBOR",
        [int8(values.shape), integers(*after)],
        int8([1, *after, 2]),
        {"align_corners": kind[0], "half_pixel_centers": kind[1]},
    )
    assert_agrees(data, values)


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(*[st.integers(1, 12)] * 2),
    st.tuples(*[st.integers(1, 30)] * 2),
    st.sampled_from([(False, False), (True, False), (False, True)]),
    seeds,
)
def test_interpolated_images_agree(
    before: tuple[int, int], after: tuple[int, int], kind: tuple[bool, bool], seed: int
) -> None:
    values = stored(seed, [1, *before, 2])
    data = one_operator(
        "RESIZE_BILINEAR",
        [int8(values.shape), integers(*after)],
        int8([1, *after, 2]),
        {"align_corners": kind[0], "half_pixel_centers": kind[1]},
        version=2,
    )
    assert_agrees(data, values)


def test_a_doubled_image_lies_between_its_pixels() -> None:
    values = np.array([-100, 100], np.int8).reshape(1, 1, 2, 1)
    lowered = program(
        "RESIZE_BILINEAR",
        [int8([1, 1, 2, 1]), integers(1, 4)],
        int8([1, 1, 4, 1]),
        {"half_pixel_centers": True},
    )
    assert run(lowered, values).ravel().tolist() == [-100, -50, 50, 100]


@needs_gcc
@pytest.mark.parametrize("kind", [{}, {"align_corners": True}, {"half_pixel_centers": True}])
def test_interpolated_images_are_the_same_in_c(kind: dict[str, bool], tmp_path: Path) -> None:
    values = stored(5, [3, 5, 4, 3])
    lowered = program(
        "RESIZE_BILINEAR", [int8([1, 5, 4, 3]), integers(11, 3)], int8([1, 11, 3, 3]), kind
    )
    executable = c.build(lowered, generate(lowered), tmp_path, c.SANITIZERS)
    _, (found,) = c.run(lowered, executable, [values[:, np.newaxis]])
    np.testing.assert_array_equal(found[:, 0], run(lowered, values))


def test_doubling_an_image_repeats_its_pixels() -> None:
    values = stored(1, [1, 2, 3, 2])
    expected = values.repeat(2, 1).repeat(2, 2)
    assert_gives(
        "RESIZE_NEAREST_NEIGHBOR", [int8([1, 2, 3, 2]), integers(4, 6)], [values], expected
    )


def test_many_rows_at_once_are_each_copied() -> None:
    lowered = program(
        "PAD",
        [int8([1, 2, 2]), constant(np.array([[0, 0], [1, 0], [0, 1]]), "int32")],
        int8([1, 3, 3]),
    )
    rows = stored(1, [5, 2, 2])
    expected = np.pad(rows, [(0, 0), (1, 0), (0, 1)], constant_values=3)
    np.testing.assert_array_equal(run(lowered, rows), expected)


# Refused.

IMAGE = int8([1, 4, 4, 2])
OTHER = Value([1, 4, 4, 2], "int8", 0.06, 3)
SHIFTED = int8([1, 4, 4, 2], 4)
FLAT = int8([1, 32])
HUGE = 2**31 - 1
ONE = {"num_splits": 1}


@pytest.mark.parametrize(
    "code, inputs, output, options, message",
    [
        ("RESHAPE", [IMAGE, integers(1, 33)], int8([1, 33]), {}, "another size"),
        ("RESHAPE", [IMAGE, integers(1, 32)], int8([1, 31]), {}, r"not \[1, 32\]"),
        ("RESHAPE", [IMAGE, integers(-1, -1)], FLAT, {}, "another size"),
        ("RESHAPE", [IMAGE, integers(-1, 0)], FLAT, {}, "another size"),
        ("RESHAPE", [IMAGE, Value([2], "int32")], FLAT, {}, "computed"),
        ("RESHAPE", [IMAGE, integers(1, 32)], int8([1, 32], 9), {}, "different scales"),
        ("RESHAPE", [Value([1, 2], "int32")], Value([2], "int32"), {}, "is int32"),
        ("SQUEEZE", [IMAGE], int8([1, 4, 2]), {"squeeze_dims": [2]}, "drops a dimension of 4"),
        ("SQUEEZE", [IMAGE], int8([4, 4, 2]), {"squeeze_dims": [7]}, "axis 7"),
        ("EXPAND_DIMS", [FLAT, integers(5)], int8([1, 32, 1]), {}, "axis 5"),
        ("CONCATENATION", [IMAGE, OTHER], int8([1, 4, 4, 4]), {"axis": 3}, "different scales"),
        ("CONCATENATION", [IMAGE, SHIFTED], int8([1, 4, 4, 4]), {"axis": 3}, "different scales"),
        ("CONCATENATION", [IMAGE, IMAGE], int8([1, 4, 4, 9]), {"axis": 3}, "has shape"),
        ("CONCATENATION", [IMAGE, FLAT], int8([1, 4, 4, 9]), {"axis": 3}, "has shape"),
        ("CONCATENATION", [IMAGE], int8([1, 4, 4, 2]), {"axis": 4}, "axis 4"),
        (
            "CONCATENATION",
            [FLAT, FLAT],
            int8([1, 64]),
            {"axis": 1, "fused_activation_function": "RELU"},
            "fused activation",
        ),
        ("PACK", [FLAT, IMAGE], int8([2, 1, 32]), {"axis": 0}, "has shape"),
        ("UNPACK", [FLAT], int8([32]), {"axis": 1}, "1 outputs"),
        ("PAD", [FLAT, integers(0, 0, -1, 0)], int8([1, 31]), {}, "does not fit"),
        ("PAD", [FLAT, integers(0, 0)], FLAT, {}, "does not fit"),
        ("PAD", [FLAT, integers(0, 0, 0, HUGE)], FLAT, {}, "has shape"),
        ("PADV2", [FLAT, integers(0, 0, 0, 1)], int8([1, 33]), {}, "inputs"),
        (
            "PADV2",
            [FLAT, integers(0, 0, 0, 1), constant(1, scale=0.9)],
            int8([1, 33]),
            {},
            "different scales",
        ),
        ("MIRROR_PAD", [FLAT, integers(0, 0, 32, 0)], int8([1, 64]), {}, "mirrors 32 of 32"),
        ("SLICE", [FLAT, integers(0, 30), integers(1, 3)], int8([1, 3]), {}, "cuts 3 from 30"),
        ("SLICE", [FLAT, integers(0, -1), integers(1, 1)], int8([1, 1]), {}, "cuts 1 from -1"),
        ("SLICE", [FLAT, integers(0, HUGE), integers(1, 1)], int8([1, 1]), {}, "out of 32"),
        ("SLICE", [FLAT, integers(0), integers(1)], int8([1]), {}, "out of shape"),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 0), integers(1, 4), integers(1, 0)],
            FLAT,
            {},
            "stride of zero",
        ),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 32), integers(1, 33), integers(1, 1)],
            int8([1]),
            {"shrink_axis_mask": 2},
            "element 32 of 32",
        ),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 0, 0), integers(1, 1, 1), integers(1, 1, 1)],
            FLAT,
            {},
            "3 dimensions",
        ),
        ("SPLIT", [integers(1), FLAT], int8([1, 16]), ONE, r"not \[1, 32\]"),
        ("SPLIT", [integers(9), FLAT], int8([1, 32]), ONE, "axis 9"),
        ("SPLIT_V", [FLAT, integers(31), integers(1)], int8([1, 31]), ONE, "splits 32"),
        ("SPLIT_V", [FLAT, integers(-5), integers(1)], int8([1, 31]), ONE, "splits 32"),
        ("TRANSPOSE", [FLAT, integers(0, 0)], FLAT, {}, "its order"),
        ("TRANSPOSE", [FLAT, integers(0, 2)], FLAT, {}, "its order"),
        ("TRANSPOSE", [FLAT, constant([0.0, 1.0], "float32")], FLAT, {}, "float32"),
        ("SPACE_TO_DEPTH", [IMAGE], IMAGE, {"block_size": 3}, "do not fit"),
        ("DEPTH_TO_SPACE", [IMAGE], IMAGE, {"block_size": 2}, "do not fit"),
        ("DEPTH_TO_SPACE", [FLAT], FLAT, {"block_size": 1}, "blocks of 1"),
        ("GATHER", [FLAT, integers(32)], int8([1, 1]), {"axis": 1}, "outside of 32"),
        ("GATHER", [FLAT, integers(-1)], int8([1, 1]), {"axis": 1}, "outside of 32"),
        ("GATHER", [FLAT, Value([1], "int32")], int8([1, 1]), {"axis": 1}, "Embedding"),
        (
            "GATHER",
            [FLAT, integers(*[0, 2] * 40)],
            int8([1, 80]),
            {"axis": 1},
            "separate runs",
        ),
        ("REVERSE_V2", [FLAT, integers(2)], FLAT, {}, "axis 2"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(0, 4)], IMAGE, {}, "resizes shape"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(HUGE, HUGE)], IMAGE, {}, "resizes shape"),
        ("RESIZE_NEAREST_NEIGHBOR", [FLAT, integers(2, 2)], FLAT, {}, "not one image"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(8, 8)], IMAGE, {}, "has shape"),
        ("RESIZE_BILINEAR", [IMAGE, integers(8, 8)], IMAGE, {}, "has shape"),
        (
            "RESIZE_BILINEAR",
            [int8([1, 100, 1, 1]), integers(999, 1)],
            int8([1, 999, 1, 1]),
            {},
            "leave the image for 100 to 999",
        ),
        (
            "RESIZE_BILINEAR",
            [IMAGE, integers(4, 4)],
            IMAGE,
            {"align_corners": True, "half_pixel_centers": True},
            "both corners and centres",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    code: str,
    inputs: list[Value | None],
    output: Value,
    options: dict[str, Any],
    message: str,
) -> None:
    data = one_operator(code, inputs, output, options)
    with pytest.raises(ExportError, match=message) as caught:
        lower(read(data))
    assert code in str(caught.value)
    assert "\n" not in str(caught.value)


# Numbers that a stranger may put into a file, most of them near what may be right.
ODD = st.one_of(
    st.integers(0, 3), st.integers(-2, 5), st.sampled_from([-HUGE - 1, HUGE, 2**30, 100])
)
# Of each operator: inputs of whole numbers behind or (SPLIT) before the one that is moved, how
# many numbers they hold (0: as many as dimensions, -1: twice as many), and options.
STRANGE: dict[str, tuple[list[int], list[str]]] = {
    "EXPAND_DIMS": ([1], []),
    "PAD": ([-1], []),
    "MIRROR_PAD": ([-1], []),
    "SLICE": ([0, 0], []),
    "TRANSPOSE": ([0], []),
    "REVERSE_V2": ([1], []),
    "STRIDED_SLICE": (
        [0, 0, 0],
        [f"{name}_mask" for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")],
    ),
    "SPLIT": ([1], []),
    "SPLIT_V": ([2, 1], []),
    "UNPACK": ([], ["axis"]),
    "PACK": ([], ["axis"]),
    "CONCATENATION": ([], ["axis"]),
    "GATHER": ([3], ["axis"]),
    "SPACE_TO_DEPTH": ([], ["block_size"]),
    "DEPTH_TO_SPACE": ([], ["block_size"]),
    "RESIZE_NEAREST_NEIGHBOR": ([2], []),
    "RESIZE_BILINEAR": ([2], []),
}


@settings(deadline=None, max_examples=800)
@given(st.sampled_from(sorted(STRANGE)), st.data())
def test_whatever_a_file_says_nothing_is_read_or_written_outside(
    code: str, draw: st.DataObject
) -> None:
    """Files that a stranger made: refused in words, or every place is inside of its tensor."""
    counts, names = STRANGE[code]
    rank = 4 if "_TO_" in code or code.startswith("RESIZE") else draw.draw(st.integers(1, 4))
    shape = draw.draw(shapes(rank, rank))
    lengths = [{0: rank, -1: 2 * rank}.get(count, count) for count in counts]
    others = [
        integers(*draw.draw(st.lists(ODD, min_size=length, max_size=length))) for length in lengths
    ]
    options = {name: draw.draw(ODD) for name in names}
    count = draw.draw(st.integers(1, 3)) if code in ("SPLIT", "SPLIT_V", "UNPACK") else 1
    options |= {"num_splits": count} if code.startswith("SPLIT") else {}
    options |= {"num": count} if code == "UNPACK" else {}
    inputs = [*others, int8(shape)] if code == "SPLIT" else [int8(shape), *others]
    if code in ("PACK", "CONCATENATION"):
        inputs.append(int8(draw.draw(st.one_of(st.just(shape), shapes(rank, rank)))))
        options |= {"values_count": 2} if code == "PACK" else {}
    outputs = [int8(draw.draw(shapes(1, 4))) for _ in range(count)]
    for _ in range(4):
        try:
            lowered = lower(read(one_operator(code, inputs, outputs, options)))
        except (DataError, ExportError) as refused:
            # Where nothing but an output's shape is wrong, a stranger would put it right.
            wrong = re.search(r"'tensor(\d+)' has shape .*, not \[(.*)\]; the file", str(refused))
            place = int(wrong[1]) - len(inputs) if wrong else -1
            if wrong is None or place < 0:
                return
            sizes = [int(size) for size in wrong[2].split(", ") if size]
            if math.prod(sizes) > 10**6:
                return
            outputs[place] = int8(sizes)
        else:
            break
    else:
        return
    event(f"lowered {code}")
    tensors = lowered.model.tensors
    for node in lowered.nodes:
        for part in node.parts if isinstance(node, Copy) else ():
            source = part.data if part.tensor is None else tensors[part.tensor]
            assert source is not None
            found = places(part.shape, part.from_start, part.from_strides)
            written = places(part.shape, part.to_start, part.to_strides)
            assert found.min() >= 0 and found.max() < source.size
            assert written.min() >= 0 and written.max() < tensors[node.output].size
            assert np.unique(written).size == written.size
        if isinstance(node, Interpolate | Resize):
            for chosen, size in ((node.rows, shape[1]), (node.columns, shape[2])):
                seen = chosen[:, :2] if isinstance(node, Interpolate) else chosen
                assert seen.min() >= 0 and seen.max() < size
    given = [tensors[number] for number in lowered.model.inputs]
    trace(lowered, [np.ones((1, *bare(tensor.shape)), np.int8) for tensor in given])


def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape and shape[0] == 1 else shape
