"""Walks through several tensors, against NumPy's own strides."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.integers.lowering.copies import merged
from fedsys.edge.integers.program import Part
from fedsys.edge.integers.walks import contiguous, merge, places, within

from .agreement import shapes


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
