"""What cuts has the bytes of TensorFlow Lite Micro and of NumPy's indexing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import run

from .agreement import assert_gives, int8, integers, program, quick, seeds, shapes, stored
from .build import constant


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
