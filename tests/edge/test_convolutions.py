from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from fedsys.edge.integers.executor import run
from fedsys.edge.integers.fixed import quantized_multiplier, scaled
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Convolution, FullyConnected
from fedsys.edge.tflite.model import Model, Quantization
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .agreement import assert_agrees, program
from .build import Value, constant, one_operator, tflm
from .layers import Case, convolutions, dense, depthwise, transposed

often = settings(max_examples=250, deadline=None)


def assert_rows_agree(case: Case) -> None:
    for row in case.rows:
        assert_agrees(case.file, row)


@often
@given(convolutions())
def test_a_convolution_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@settings(max_examples=150, deadline=None)
@given(convolutions(grouped=True))
def test_a_convolution_in_groups_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@often
@given(depthwise())
def test_a_depthwise_convolution_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@often
@given(transposed())
def test_a_transposed_convolution_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


@often
@given(dense())
def test_a_dense_layer_has_the_bits_of_the_reference(case):
    assert_rows_agree(case)


def convolution(
    *,
    shape: Any = (1, 5, 5, 2),
    kernel: Any = None,
    kernel_scale: Any = 0.01,
    axis: int = 0,
    kernel_zero: int = 0,
    bias: Any = None,
    result: Any = (1, 5, 5, 3),
    scale: float = 0.1,
    output: float = 0.1,
    **options: Any,
) -> bytes:
    """A file of a convolution of 3 filters of 3 x 3 over 2 channels, with some things changed."""
    kernel = np.ones((3, 3, 3, 2)) if kernel is None else kernel
    return one_operator(
        "CONV_2D",
        [
            Value(shape, scale=scale, name="image"),
            constant(kernel, scale=kernel_scale, axis=axis, zero_point=kernel_zero, name="weights"),
            None if bias is None else constant(bias, "int32", name="bias"),
        ],
        Value(result, scale=output, name="model/conv2d/BiasAdd"),
        {"padding": "SAME", "stride_h": 1, "stride_w": 1, **options},
    )


def dense_file(kernel: np.ndarray, bias: np.ndarray | None, scales: Any, rows: int = 1) -> bytes:
    """A file of a dense layer; scales: (input, kernel, output)."""
    out, length = kernel.shape
    return one_operator(
        "FULLY_CONNECTED",
        [
            Value((rows, length), scale=scales[0]),
            constant(kernel, scale=scales[1]),
            None if bias is None else constant(bias, "int32"),
        ],
        Value((rows, out), scale=scales[2]),
    )


@pytest.mark.parametrize("kernel_scales", [1, 2], ids=["one-scale", "scale-a-channel"])
def test_the_factor_of_a_dense_layer_is_worked_out_in_double(kernel_scales):
    # Where float32 would give another factor, biases that tell the two apart.
    random = np.random.default_rng(3)
    told = 0
    for _ in range(8):
        given, kernel = (np.float32(np.exp(random.uniform(-6, -2))) for _ in range(2))
        output = np.float32(float(given) * float(kernel) * 1e6)
        double = quantized_multiplier(float(given) * float(kernel) / float(output))
        single = quantized_multiplier(float(given * kernel) / float(output))
        middles = (np.arange(-120, 120) + 0.5) * 1e6
        sums = (np.round(middles)[:, None] + np.arange(-3, 4)).astype(np.int64).ravel()
        apart = sums[scaled(sums, *double) != scaled(sums, *single)]
        if len(apart) < 2:
            continue
        told += len(apart)
        scale = float(kernel) if kernel_scales == 1 else [float(kernel)] * len(apart)
        zero = np.zeros((len(apart), 1), np.int8)
        file = dense_file(zero, apart, (float(given), scale, float(output)))
        assert_agrees(file, np.zeros((1, 1), np.int8))
    assert told > 100


def test_sums_beyond_float32_stay_exact():
    # 255 * 127 * 4096 is near 2^27: float32 has no odd numbers there.
    random = np.random.default_rng(0)
    kernel = random.integers(100, 128, (4, 4096)).astype(np.int8)
    file = one_operator(
        "FULLY_CONNECTED",
        [Value((1, 4096), scale=0.01, zero_point=-128), constant(kernel, scale=0.01)],
        Value((1, 4), scale=0.01 * 0.01 * 2**20, zero_point=-128),
    )
    for row in random.integers(90, 128, (40, 1, 4096)).astype(np.int8):
        assert_agrees(file, row)


def test_results_do_not_depend_on_how_many_rows_are_run_at_once():
    random = np.random.default_rng(1)
    file = convolution(
        shape=(1, 40, 40, 2), result=(1, 40, 40, 3), kernel=random.integers(-128, 128, (3, 3, 3, 2))
    )
    rows = random.integers(-128, 128, (700, 40, 40, 2)).astype(np.int8)
    lowered = lower(read(file))
    together = run(lowered, rows)
    for place in (0, 1, 256, 350, 698, 699):
        np.testing.assert_array_equal(together[place], run(lowered, rows[place : place + 1])[0])
        np.testing.assert_array_equal(together[place], tflm(file, rows[place][None])[0][0])


def test_nodes_say_what_was_lowered():
    lowered = lower(read(convolution(stride_h=2, result=(1, 3, 5, 3), output=0.3)))
    (node,) = lowered.nodes
    assert isinstance(node, Convolution)
    assert node.kernel.shape == (3, 3, 3, 2) and node.bias.tolist() == [0, 0, 0]
    assert (node.stride, node.dilation, node.pad) == ((2, 1), (1, 1), (1, 1))
    assert (node.low, node.high) == (-128, 127)
    assert node.multiplier.dtype == node.shift.dtype == np.int32
    rows = program(
        "FULLY_CONNECTED",
        [Value((6, 4), scale=0.1), constant(np.ones((2, 4)), scale=0.1)],
        Value((6, 2), scale=0.1),
    ).nodes[0]
    assert isinstance(rows, FullyConnected) and rows.rows == 6


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"shape": (5, 5, 2)}, ["image", r"\[1, rows, columns, channels\]"]),
        ({"shape": (2, 5, 5, 2), "result": (2, 5, 5, 3)}, ["static batch of one"]),
        ({"result": (1, 5, 6, 3)}, [r"\[1, 5, 6, 3\], not \[1, 5, 5, 3\]"]),
        ({"result": (1, 5, 5, 2)}, [r"not \[1, 5, 5, 3\]"]),
        ({"kernel": np.ones((3, 3, 3, 4))}, [r"\[3, 3, 3, 4\]", "2 input channels"]),
        ({"kernel": np.ones((3, 3, 2))}, ["not 4 dimensions"]),
        ({"kernel_scale": None}, ["no quantisation"]),
        ({"kernel_zero": 3}, ["zero point"]),
        ({"bias": [1, 2]}, ["2 numbers, not 3"]),
        ({"bias": [2**31 - 1, 0, 0]}, ["leave 32 bits"]),
        ({"output": 1e-12}, ["hardly moved in calibration"]),
        ({"dilation_h_factor": 9, "padding": "VALID"}, ["does not fit an image"]),
        ({"fused_activation_function": "TANH"}, ["fused activation TANH"]),
    ],
)
def test_a_convolution_that_contradicts_itself_is_refused_by_name(changes, words):
    model = read(convolution(**changes))
    with pytest.raises(ExportError) as caught:
        lower(model)
    assert str(caught.value).startswith("CONV_2D of layer 'model/conv2d/BiasAdd': ")
    assert "\n" not in str(caught.value)
    for word in words:
        assert caught.match(word)


def changed(file: bytes, number: int, **changes: Any) -> Model:
    """The model of a file with one tensor changed, as no reader would give it."""
    model = read(file)
    tensors = list(model.tensors)
    tensors[number] = replace(tensors[number], **changes)
    return replace(model, tensors=tuple(tensors))


def scales(*values: float, axis: int = 0, zero_point: int = 0) -> Quantization:
    return Quantization(
        np.array(values, np.float32), np.full(len(values), zero_point, np.int64), axis
    )


@pytest.mark.parametrize(
    "number, changes, words",
    [
        (0, {"dtype": np.dtype(np.uint8)}, "uint8, the older"),
        (0, {"dtype": np.dtype(np.int16)}, "int16 activations"),
        (0, {"dtype": np.dtype(np.float32)}, "computed in float32"),
        (0, {"quantization": None}, "no quantisation"),
        (0, {"quantization": scales(0.1, 0.1)}, "a scale for each channel"),
        (0, {"quantization": scales(float("inf"))}, "scale inf"),
        (0, {"quantization": scales(0.1, zero_point=200)}, "zero point 200"),
        (3, {"quantization": scales(0.0)}, "scale 0"),
        (3, {"quantization": scales(-0.1)}, "scale -0.1"),
        (1, {"dtype": np.dtype(np.float32)}, "kernel 'weights' is float32"),
        (1, {"quantization": scales(float("nan"))}, "scale below zero or none"),
        (1, {"quantization": scales(-0.1)}, "scale below zero or none"),
        (1, {"quantization": scales(0.1, 0.1)}, "2 scales along dimension 0, not 3 along 0"),
        (1, {"quantization": scales(0.1, 0.1, 0.1, axis=3)}, "3 scales along dimension 3"),
        (1, {"shape": (3, 0, 3, 2), "data": np.zeros((3, 0, 3, 2), np.int8)}, "kernel"),
        (1, {"shape": (3, 3, 3, 1)}, "kernel 'weights'"),
        (2, {"dtype": np.dtype(np.int64)}, "bias 'bias' is int64"),
    ],
)
def test_lowering_does_not_trust_the_reader_with_tensors(number, changes, words):
    model = changed(convolution(bias=[1, 2, 3]), number, **changes)
    with pytest.raises(ExportError, match=words):
        lower(model)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"stride_w": 0}, "stride_h, stride_w are 1, 0"),
        ({"stride_h": 2**20}, "stride_h, stride_w are 1048576, 1"),
        ({"dilation_h_factor": -1}, "dilation_h_factor, dilation_w_factor are -1, 1"),
        ({"padding": "MIRROR"}, "neither SAME nor VALID"),
    ],
)
def test_lowering_does_not_trust_the_reader_with_settings(options, words):
    model = read(convolution())
    operator = replace(model.operators[0], options={**model.operators[0].options, **options})
    with pytest.raises(ExportError, match=words):
        lower(replace(model, operators=(operator,)))


def test_weights_that_are_computed_are_refused():
    file = one_operator(
        "FULLY_CONNECTED",
        [Value((1, 4), scale=0.1), Value((2, 4), scale=0.1, name="other")],
        Value((1, 2), scale=0.1),
    )
    with pytest.raises(ExportError, match="kernel 'other' is computed, not a constant"):
        lower(read(file))


@pytest.mark.parametrize(
    "length, result, words",
    [(5, (1, 3), "no vectors of 4"), (8, (1, 3), "not 2 vectors of 3"), (8, (2, 4), "not 2 vec")],
)
def test_a_dense_layer_of_other_sizes_is_refused(length, result, words):
    file = one_operator(
        "FULLY_CONNECTED",
        [Value((1, length), scale=0.1), constant(np.ones((3, 4)), scale=0.1)],
        Value(result, scale=0.1),
    )
    with pytest.raises(ExportError, match=words):
        lower(read(file))


def test_a_depthwise_convolution_whose_multiplier_lies_is_refused():
    file = one_operator(
        "DEPTHWISE_CONV_2D",
        [Value((1, 4, 4, 2), scale=0.1), constant(np.ones((1, 3, 3, 4)), scale=0.1)],
        Value((1, 4, 4, 4), scale=0.1),
        {"padding": "SAME", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1},
    )
    with pytest.raises(ExportError, match="depth multiplier 1"):
        lower(read(file))


@pytest.mark.parametrize("result", [(1, 9, 8, 2), (1, 8, 8, 3), (2, 8, 8, 2)])
def test_a_transposed_convolution_to_a_shape_it_cannot_reach_is_refused(result):
    file = one_operator(
        "TRANSPOSE_CONV",
        [
            constant(result, "int32"),
            constant(np.ones((2, 3, 3, 1)), scale=0.1),
            Value((1, 4, 4, 1), scale=0.1),
        ],
        Value(result, scale=0.1),
        {"padding": "SAME", "stride_h": 2, "stride_w": 2},
    )
    with pytest.raises(ExportError, match="TRANSPOSE_CONV"):
        lower(read(file))
