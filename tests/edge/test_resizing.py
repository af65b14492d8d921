"""Images in another size have the bytes of TensorFlow Lite Micro."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.code import generate
from fedsys.edge.integers.executor import run

from . import c
from .agreement import assert_agrees, assert_gives, int8, integers, program, seeds, stored
from .build import one_operator
from .c import needs_gcc


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
