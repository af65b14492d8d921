"""Generated C of the whole zoo: every layer as the executor and TensorFlow Lite Micro have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.code import generate
from fedsys.edge.integers import executor
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.reader import read
from tests.edge import build, c, zoo


@c.needs_gcc
@pytest.mark.parametrize("name", list(zoo.SHAPES))
def test_every_layer_is_that_of_the_executor_and_of_the_interpreter(
    name: str, tmp_path: Path
) -> None:
    data = zoo.int8(name)
    program = lower(read(data))
    (number,) = program.model.inputs
    tensor = program.model.tensors[number]
    draw = np.random.default_rng(len(name))
    rows = draw.integers(-128, 128, (3, *tensor.shape[1:])).astype(np.int8)
    expected = executor.trace(program, [rows])
    generated = generate(program, "zoo")
    for variant in ("-DZOO_PLAIN", "-DZOO_DSP"):
        driver = c.build(program, generated, tmp_path, ["-O1", variant])
        traced, (output,) = c.run(program, driver, [rows])
        assert c.same(expected, traced) == []
        assert c.same({0: expected[program.model.outputs[0]]}, {0: output}) == []
    told = build.trace_tflm(data, rows[:1])
    traced = {node.output: traced[node.output][:1] for node in program.nodes}
    # An operator may become several nodes; the interpreter knows its operators' outputs.
    assert c.same(told, {n: values for n, values in traced.items() if n in told}) == []
    assert program.model.outputs[0] in told
