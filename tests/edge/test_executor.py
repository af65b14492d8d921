from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsys.edge.integers import executor
from fedsys.edge.integers.executor import run, trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError

from .build import Op, Value, build, tflm, trace_tflm
from .networks import residual


def images(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (n, 12, 10, 3)).astype(np.int8)


@pytest.fixture(scope="module")
def file() -> bytes:
    return residual()


@pytest.fixture(scope="module")
def program(file: bytes) -> Program:
    return lower(read(file))


def test_every_value_inside_has_the_bits_of_the_reference(file, program):
    rows = images(5)
    found = trace(program, [rows])
    assert sorted(found) == [0, 3, 6, 7, 9, 12, 13]
    for place, row in enumerate(rows):
        for number, expected in trace_tflm(file, row[None]).items():
            np.testing.assert_array_equal(found[number][place], expected[0])
    for number in (3, 6, 7, 9, 12):
        assert len(np.unique(found[number])) > 8, "an activation that says nothing"


def test_run_gives_the_outputs_without_the_batch_of_one(file, program):
    rows = images(9)
    result = run(program, rows)
    assert result.shape == (9, 7) and result.dtype == np.int8
    expected = np.concatenate([tflm(file, row[None])[0] for row in rows])
    np.testing.assert_array_equal(result, expected)


def test_the_size_of_blocks_changes_nothing(program, monkeypatch):
    rows = images(23)
    whole, inside = run(program, rows), trace(program, [rows])
    monkeypatch.setattr(executor, "BLOCK", 3000)
    np.testing.assert_array_equal(run(program, rows), whole)
    for number, values in trace(program, [rows]).items():
        np.testing.assert_array_equal(values, inside[number])


def test_room_does_not_grow_with_the_rows(program, monkeypatch):
    seen: list[int] = []
    kernels = {
        kind: lambda node, values, shape, kernel=kernel: (
            seen.append(len(values[0])) or kernel(node, values, shape)
        )
        for kind, kernel in executor.KERNELS.items()
    }
    monkeypatch.setattr(executor, "KERNELS", kernels)
    monkeypatch.setattr(executor, "BLOCK", 10_000)
    run(program, images(100))
    # 360 numbers come in to the first node and 240 go out; the sum reads twice 240.
    assert max(seen) == 10_000 // 720 and len(seen) > len(program.nodes)


def test_no_rows_give_no_results(program):
    assert run(program, images(0)).shape == (0, 7)
    assert trace(program, [images(0)])[3].shape == (0, 6, 5, 8)


def test_rows_are_left_as_they_were(program):
    rows = images(3)
    rows.flags.writeable = False
    run(program, rows)
    np.testing.assert_array_equal(rows, images(3))


def test_a_view_of_rows_is_as_good_as_a_copy(program):
    rows = images(8)
    view = np.asfortranarray(rows)[::2, ::1]
    np.testing.assert_array_equal(run(program, view), run(program, rows[::2].copy()))


def test_an_output_that_is_an_input_or_constant_is_given_as_it_is(program):
    model = replace(program.model, outputs=(13, 0, 2))
    found = trace(Program(model, program.nodes), [images(4)])
    np.testing.assert_array_equal(found[0], images(4))
    model = replace(program.model, outputs=(0,))
    np.testing.assert_array_equal(run(Program(model, program.nodes), images(4)), images(4))
    model = replace(program.model, outputs=(2,))
    constants = run(Program(model, program.nodes), images(4))
    bias = program.model.tensors[2].data
    assert bias is not None
    np.testing.assert_array_equal(constants, np.tile(bias, (4, 1)))


def test_a_model_of_two_inputs_takes_both_in_order():
    file = build(
        [
            Value((1, 3), scale=0.1),
            Value((1, 3), scale=0.2),
            Value((1, 3), scale=0.2),
        ],
        [Op("SUB", [1, 0], [2])],
        [1, 0],
        [2],
    )
    lowered = lower(read(file))
    first, second = np.array([[100, 50, 0]], np.int8), np.array([[20, -20, 0]], np.int8)
    expected = tflm(file, [first, second])[0]
    np.testing.assert_array_equal(trace(lowered, [first, second])[2], expected)
    assert expected.tolist() == [[90, 60, 0]]
    with pytest.raises(DataError, match=r"2 inputs and 1 outputs: .*use trace"):
        run(lowered, first)
    with pytest.raises(DataError, match="takes 2 inputs, not 1"):
        trace(lowered, [first])
    with pytest.raises(DataError, match="1, 2 rows"):
        trace(lowered, [first, np.repeat(second, 2, axis=0)])


@pytest.mark.parametrize(
    "rows, words",
    [
        (images(2)[..., :2], r"\[2, 12, 10, 2\], not \[rows, 12, 10, 3\]"),
        (images(1)[0], r"\[12, 10, 3\], not"),
        (np.int8(3), r"\[\], not"),
        (images(2).astype(np.float32), "are float32, not int8"),
        (images(2).astype(np.uint8), "are uint8, not int8"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_the_input_s_name(program, rows: Any, words):
    with pytest.raises(DataError, match=words) as caught:
        run(program, rows)
    assert "image" in str(caught.value) and "\n" not in str(caught.value)
