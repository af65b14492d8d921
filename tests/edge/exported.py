"""Small models for tests of projects: a file, what is made of it, and the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsys.edge.code import Generated, generate
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.project.folder import Details, write_project
from fedsys.edge.project.golden import Golden, golden
from fedsys.edge.tflite.reader import read

from .build import Op, Value, build, constant


@dataclass(frozen=True, eq=False)
class Made:
    data: bytes
    program: Program
    generated: Generated
    golden: Golden

    def write(self, folder: Path, details: Details | None = None) -> Path:
        return write_project(
            folder, self.data, self.program, self.generated, self.golden, details or Details()
        )


def made(data: bytes, rows: np.ndarray | None = None, name: str = "model") -> Made:
    program = lower(read(data))
    return Made(data, program, generate(program, name), golden(program, rows))


def classifier(seed: int = 0) -> bytes:
    """Convolution, reshape, dense and softmax: [6, 5, 2] to 4 classes."""
    draw = np.random.default_rng(seed)
    kernel = draw.integers(-127, 128, (3, 3, 3, 2))
    dense = draw.integers(-127, 128, (4, 90))
    tensors = [
        Value([1, 6, 5, 2], "int8", 0.05, 3, name="rows"),
        constant(kernel, "int8", [0.01, 0.02, 0.015], [0, 0, 0], 0),
        constant(draw.integers(-900, 900, 3), "int32", [0.0005, 0.001, 0.00075], [0, 0, 0], 0),
        Value([1, 6, 5, 3], "int8", 0.08, -128, name="conv"),
        constant([1, 90], "int32"),
        Value([1, 90], "int8", 0.08, -128, name="flat"),
        constant(dense, "int8", 0.02),
        constant(draw.integers(-900, 900, 4), "int32", 0.0016),
        Value([1, 4], "int8", 0.6, 10, name="dense"),
        Value([1, 4], "int8", 1 / 256, -128, name="classes"),
    ]
    convolution = {
        "padding": "SAME",
        "stride_w": 1,
        "stride_h": 1,
        "dilation_w_factor": 1,
        "dilation_h_factor": 1,
        "fused_activation_function": "RELU",
    }
    operators = [
        Op("CONV_2D", [0, 1, 2], [3], convolution),
        Op("RESHAPE", [3, 4], [5], {"new_shape": [1, 90]}),
        Op("FULLY_CONNECTED", [5, 6, 7], [8], {"fused_activation_function": "NONE"}),
        Op("SOFTMAX", [8], [9], {"beta": 1.0}),
    ]
    return build(tensors, operators, [0], [9])


def two_inputs() -> bytes:
    """A sum of two, and its sigmoid: two inputs, two outputs."""
    tensors = [
        Value([1, 7], "int8", 0.1, 5, name="left"),
        Value([1, 7], "int8", 0.2, -9, name="right"),
        Value([1, 7], "int8", 0.25, 0, name="sum"),
        Value([1, 7], "int8", 1 / 256, -128, name="sigmoid"),
    ]
    operators = [
        Op("ADD", [0, 1], [2], {"fused_activation_function": "NONE"}),
        Op("LOGISTIC", [2], [3]),
    ]
    return build(tensors, operators, [0, 1], [2, 3])


def of_floats() -> bytes:
    """Floats in and out, with a dense layer of integers between."""
    draw = np.random.default_rng(1)
    tensors = [
        Value([1, 9], "float32", name="floats"),
        Value([1, 9], "int8", 0.03, -4, name="stored"),
        constant(draw.integers(-127, 128, (5, 9)), "int8", 0.02),
        constant(draw.integers(-900, 900, 5), "int32", 0.0006),
        Value([1, 5], "int8", 0.11, 17, name="dense"),
        Value([1, 5], "float32", name="real"),
    ]
    operators = [
        Op("QUANTIZE", [0], [1]),
        Op("FULLY_CONNECTED", [1, 2, 3], [4], {"fused_activation_function": "NONE"}),
        Op("DEQUANTIZE", [4], [5]),
    ]
    return build(tensors, operators, [0], [5])
