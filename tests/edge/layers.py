"""Draws models of one convolution, dense layer, pooling or softmax, with data for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .agreement import zero_points
from .build import Value, constant, one_operator

ACTIVATIONS = ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]

numbers = st.integers(0, 2**32 - 1).map(np.random.default_rng)
activations = st.sampled_from(ACTIVATIONS)


@dataclass(frozen=True, eq=False)
class Case:
    """A file of one operator and rows for it, each in the shape of the file."""

    file: bytes
    rows: np.ndarray


def stored(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """int8 values: mostly even draws, now and then all of them at an end."""
    kind = random.integers(8)
    if kind < 2:
        return np.full(shape, (-128, 127)[kind], np.int8)
    return random.integers(-128, 128, shape).astype(np.int8)


def places(length: int, size: int, stride: int, dilation: int, padding: str) -> int:
    """How many places a window has, by TensorFlow's rule."""
    if padding == "SAME":
        return -(-length // stride)
    return (length - (size - 1) * dilation - 1) // stride + 1


@st.composite
def windows(draw: Any, dilated: bool = True) -> dict[str, Any]:
    """size, length, stride, dilation, places: (rows, columns) each; and the padding."""
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    sides = []
    for _ in range(2):
        size, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3)) if dilated else 1
        least = 1 if padding == "SAME" else (size - 1) * dilation + 1
        length = draw(st.integers(least, least + 8))
        sides.append(
            (size, length, stride, dilation, places(length, size, stride, dilation, padding))
        )
    names = ("size", "length", "stride", "dilation", "places")
    return {**dict(zip(names, zip(*sides, strict=True), strict=True)), "padding": padding}


def settings_of(window: dict[str, Any], activation: str) -> dict[str, Any]:
    """The options that all operators with windows have."""
    return {
        "padding": window["padding"],
        "stride_h": window["stride"][0],
        "stride_w": window["stride"][1],
        "fused_activation_function": activation,
    }


@st.composite
def weighted(
    draw: Any, kernel: tuple[int, ...], axis: int, summed: int
) -> tuple[float, Value, Value, float]:
    """(input scale, kernel, bias, output scale); `summed`: products in a sum.

    The output's range is from many times what sums reach (factors of next to nothing, all results
    alike) to a small part of it (factors above one, most results at the limits).
    """
    random = draw(numbers)
    channels = kernel[axis]
    scale = float(np.float32(np.exp(random.uniform(-7, 0))))
    each = draw(st.booleans())
    kernel_scale = np.exp(random.uniform(-7, 0, channels if each else 1)).astype(np.float32)
    reach = scale * float(kernel_scale.max()) * 74 * 74 * summed**0.5
    output = float(
        np.float32(reach / draw(st.sampled_from([1e-6, 0.1, 1, 50, 100, 200, 6000, 2e5])))
    )
    bias = random.integers(-(2**15), 2**15, channels)
    values = stored(random, kernel)
    if draw(st.booleans()):
        values[tuple(slice(1) if i == axis else slice(None) for i in range(len(kernel)))] = 0
    scales = [float(one) for one in kernel_scale]
    return (
        scale,
        constant(values, scale=scales, axis=axis),
        constant(bias, "int32", scale=[scale * one for one in scales]),
        output,
    )


@st.composite
def convolutions(draw: Any, grouped: bool = False) -> Case:
    window = draw(windows())
    groups = draw(st.integers(2, 4)) if grouped else 1
    depth, filters = draw(st.integers(1, 6)), groups * draw(st.integers(1, 4))
    size = window["size"]
    scale, kernel, bias, output = draw(
        weighted((filters, *size, depth), 0, size[0] * size[1] * depth)
    )
    shape = (1, *window["length"], groups * depth)
    options = {
        **settings_of(window, draw(activations)),
        "dilation_h_factor": window["dilation"][0],
        "dilation_w_factor": window["dilation"][1],
    }
    file = one_operator(
        "CONV_2D",
        [
            Value(shape, scale=scale, zero_point=draw(zero_points)),
            kernel,
            bias if draw(st.booleans()) else None,
        ],
        Value((1, *window["places"], filters), scale=output, zero_point=draw(zero_points)),
        options,
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@st.composite
def depthwise(draw: Any) -> Case:
    window = draw(windows())
    channels, depth = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    size = window["size"]
    scale, kernel, bias, output = draw(weighted((1, *size, channels * depth), 3, size[0] * size[1]))
    shape = (1, *window["length"], channels)
    options = {
        **settings_of(window, draw(activations)),
        "dilation_h_factor": window["dilation"][0],
        "dilation_w_factor": window["dilation"][1],
        "depth_multiplier": depth,
    }
    # A bias left out with -1 crashes TensorFlow Lite Micro here; a list of two inputs does not.
    given = [Value(shape, scale=scale, zero_point=draw(zero_points)), kernel]
    file = one_operator(
        "DEPTHWISE_CONV_2D",
        [*given, bias] if draw(st.booleans()) else given,
        Value((1, *window["places"], channels * depth), scale=output, zero_point=draw(zero_points)),
        options,
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@st.composite
def transposed(draw: Any) -> Case:
    # The window moves over the output; its places are the input's.
    window = draw(windows(dilated=False))
    channels, filters = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    scale, kernel, bias, output = draw(weighted((filters, *window["size"], channels), 0, channels))
    shape, result = (1, *window["places"], channels), (1, *window["length"], filters)
    given = [
        constant(result, "int32"),
        kernel,
        Value(shape, scale=scale, zero_point=draw(zero_points)),
    ]
    file = one_operator(
        "TRANSPOSE_CONV",
        [*given, bias] if draw(st.booleans()) else given,
        Value(result, scale=output, zero_point=draw(zero_points)),
        settings_of(window, draw(activations)),
        version=4,
    )
    return Case(file, stored(draw(numbers), (2, *shape)))


@st.composite
def dense(draw: Any) -> Case:
    rows, length, out = (draw(st.integers(1, high)) for high in (4, 60, 12))
    scale, kernel, bias, output = draw(weighted((out, length), 0, length))
    kept = draw(st.booleans())
    shape = (1, rows, length) if kept else (rows, length)
    file = one_operator(
        "FULLY_CONNECTED",
        [
            Value(shape, scale=scale, zero_point=draw(zero_points)),
            kernel,
            bias if draw(st.booleans()) else None,
        ],
        Value((*shape[:-1], out), scale=output, zero_point=draw(zero_points)),
        {"fused_activation_function": draw(activations), "keep_num_dims": kept},
    )
    return Case(file, stored(draw(numbers), (2, *shape)))
