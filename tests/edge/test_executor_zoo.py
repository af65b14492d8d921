"""The executor on whole converted networks, against TensorFlow Lite Micro layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from fedsys.edge.integers.executor import run, trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.reader import read

from . import zoo
from .build import trace_tflm

ROWS = 4


@pytest.mark.parametrize("name", list(zoo.SHAPES))
def test_every_layer_of_every_row_has_the_bits_of_the_reference(name):
    file = zoo.int8(name)
    program = lower(read(file))
    tensor = program.model.tensors[program.model.inputs[0]]
    random = np.random.default_rng(7)
    rows = random.integers(-128, 128, (ROWS, *tensor.shape[1:])).astype(np.int8)
    rows[0], rows[1] = -128, 127
    found = trace(program, [rows])
    compared = 0
    for place, row in enumerate(rows):
        for number, expected in trace_tflm(file, row[None]).items():
            ours = found[number][place].reshape(expected.shape)
            np.testing.assert_array_equal(ours, expected, program.model.tensors[number].name)
            compared += ours.size
    assert compared >= ROWS * tensor.size
    np.testing.assert_array_equal(run(program, rows), found[program.model.outputs[0]])


def floats(file: bytes, rows: np.ndarray) -> np.ndarray:
    """What a float model of one input and one output gives for each row."""
    litert = Interpreter(model_content=file)
    litert.allocate_tensors()
    given, result = litert.get_input_details()[0], litert.get_output_details()[0]
    outputs = []
    for row in rows:
        litert.set_tensor(given["index"], row[None])
        litert.invoke()
        outputs.append(litert.get_tensor(result["index"])[0])
    return np.stack(outputs)


def test_int8_outputs_are_near_those_of_the_float_model():
    # What the zoo is calibrated on: a check that bits alone cannot make.
    name = "digits"
    rows = zoo.rows(name)
    program = lower(read(zoo.int8(name)))
    tensors = program.model.tensors
    given = tensors[program.model.inputs[0]].quantization
    result = tensors[program.model.outputs[0]].quantization
    assert given is not None and result is not None
    stored = np.round(rows / given.scale) + given.zero_point
    found = run(program, np.clip(stored, -128, 127).astype(np.int8))
    real = (found.astype(np.float32) - result.zero_point) * result.scale
    expected = floats(zoo.floating(name), rows)
    spread = expected.max() - expected.min()
    assert np.abs(real - expected).mean() < 0.03 * spread
