"""Integers out of floats: types, constants, determinism and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fedsys.edge.calibration.ranges import activations, calibrate
from fedsys.edge.conversion.quantize import METHODS, quantize, quantize_here
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.flatbuffer import OPERATORS, operator_name, packed, schema, text, unpacked
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError, ExportError, UsageError

from . import zoo

CODES = {name: code for code, name in OPERATORS.items()}
FLOATS = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.FLOAT64}


def types(data: bytes) -> set[int]:
    return {tensor.type for tensor in unpacked(data).subgraphs[0].tensors}


def codes(data: bytes) -> list[str]:
    model = unpacked(data)
    return [operator_name(model, operator) for operator in model.subgraphs[0].operators]


def swapped(data: bytes, old: str, new: str) -> bytes:
    """The file with every operator of one kind turned into another."""
    model = unpacked(data)
    for code in model.operatorCodes:
        if OPERATORS[code.builtinCode] == old:
            code.builtinCode = CODES[new]
            code.deprecatedBuiltinCode = min(CODES[new], 127)
    return packed(model)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_zoo_is_int8_from_end_to_end(name):
    data = zoo.int8(name)
    model = unpacked(data)
    graph = model.subgraphs[0]
    assert not types(data) & FLOATS
    assert not {"DEQUANTIZE", "SHAPE"} & set(codes(data))
    for number in (*graph.inputs, *graph.outputs):
        assert graph.tensors[number].type == schema.TensorType.INT8
        assert len(graph.tensors[number].quantization.scale) == 1
    names = [text(tensor.name) for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    used = {int(n) for o in graph.operators for n in (*o.inputs, *o.outputs) if n >= 0}
    assert used == set(range(len(graph.tensors)))


@pytest.mark.parametrize("name", ["conv2d_same", "depthwise", "dense", "transposed"])
def test_weights_have_a_scale_for_each_output_channel(name):
    model = unpacked(zoo.int8(name))
    graph = model.subgraphs[0]
    axis = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
    for operator in graph.operators:
        code = operator_name(model, operator)
        if code in axis:
            weights = graph.tensors[operator.inputs[1]]
            channels = weights.shape[axis[code]]
            assert len(weights.quantization.scale) == channels
            assert channels == 1 or weights.quantization.quantizedDimension == axis[code]
            assert (weights.quantization.zeroPoint == 0).all()


@pytest.mark.parametrize("name", ["dense", "prelu", "leaky_relu", "lstm_unrolled", "kws_ds_cnn"])
def test_the_same_ranges_give_the_same_bytes(name):
    model = zoo.floating(name)
    ranges = calibrate(model, zoo.rows(name))
    backwards = dict(reversed(ranges.items()))
    assert quantize_here(model, ranges, "int8") == zoo.int8(name)
    assert quantize_here(model, backwards, "int8") == zoo.int8(name)


def test_the_worker_gives_the_same_bytes():
    model = zoo.floating("digits")
    ranges = calibrate(model, zoo.rows("digits"))
    assert quantize(model, ranges, "int8") == zoo.int8("digits")


def test_operators_left_in_float_are_put_right():
    """Google's quantizer knows neither PRELU nor LEAKY_RELU."""
    assert codes(zoo.int8("leaky_relu")) == ["CONV_2D", "LEAKY_RELU"] * 2
    assert codes(zoo.int8("prelu")) == ["CONV_2D", "PRELU", "RESHAPE", "PRELU", "FULLY_CONNECTED"]
    graph = unpacked(zoo.int8("prelu")).subgraphs[0]
    whole = unpacked(zoo.floating("prelu"))
    floats = {text(tensor.name): tensor for tensor in whole.subgraphs[0].tensors}
    for operator in graph.operators[1:4:2]:
        slope = graph.tensors[operator.inputs[1]]
        stored = unpacked(zoo.int8("prelu")).buffers[slope.buffer].data.view(np.int8)
        wanted = whole.buffers[floats[text(slope.name)].buffer].data.view(np.float32)
        scale = slope.quantization.scale[0]
        assert np.abs(stored * scale - wanted).max() <= scale * 0.5001


def test_chains_of_operators_left_in_float_are_put_right():
    """Two of them behind each other have no integers between them to start from."""
    chained = swapped(zoo.floating("dense_softmax"), "TANH", "RELU6")
    chained = swapped(chained, "LOGISTIC", "RELU6")
    made = quantize_here(chained, calibrate(chained, zoo.rows("dense_softmax")), "int8")
    assert codes(made).count("RELU6") == 2
    assert not types(made) & FLOATS


def test_sixteen_bits():
    model = zoo.floating("digits")
    ranges = calibrate(model, zoo.rows("digits"))
    data = quantize_here(model, ranges, "int16")
    graph = unpacked(data).subgraphs[0]
    assert not types(data) & FLOATS
    for number in (*graph.inputs, *graph.outputs):
        assert graph.tensors[number].type == schema.TensorType.INT16
        assert graph.tensors[number].quantization.zeroPoint[0] == 0


def test_float_and_dynamic_need_no_ranges():
    model = zoo.floating("kws_ds_cnn")
    assert quantize(model, None, "float") == model
    data = quantize(model, None, "dynamic")
    assert len(data) < len(model) / 1.8
    graph = unpacked(data).subgraphs[0]
    assert {graph.tensors[n].type for n in (*graph.inputs, *graph.outputs)} <= FLOATS


def test_an_operator_that_stays_in_float_is_refused_by_name():
    model = swapped(zoo.floating("dense_softmax"), "TANH", "ELU")
    ranges = calibrate(model, zoo.rows("dense_softmax"))
    with pytest.raises(ExportError, match=r"^layer 'dense/Tanh': operator ELU stays in float"):
        quantize_here(model, ranges, "int8")


def test_a_mistake_of_the_caller_is_named():
    model = zoo.floating("dense")
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        quantize(model, {}, "int4")
    with pytest.raises(UsageError, match="needs ranges"):
        quantize(model, None, "int8")
    ranges = calibrate(model, zoo.rows("dense"))
    del ranges["logits"]
    with pytest.raises(DataError, match=r"^the ranges lack tensor 'logits'"):
        quantize(model, ranges, "int8")
    assert METHODS[0] == "int8"


def test_every_range_is_used():
    """Each activation's own range decides its scale, but where an operator fixes it."""
    model = zoo.floating("residual")
    ranges = calibrate(model, zoo.rows("residual"))
    base = quantize_here(model, ranges, "int8")
    for name in activations(model):
        low, high = ranges[name]
        wider = quantize_here(model, {**ranges, name: (low, high * 2)}, "int8")
        assert wider != base, name


def test_a_layer_that_never_fires_does_no_harm():
    """Its range is zero alone, which is no reason for a scale of almost nothing."""
    model = zoo.floating("dense")
    dead = {**calibrate(model, zoo.rows("dense")), "hidden/MatMul": (0.0, 0.0)}
    graph = unpacked(quantize_here(model, dead, "int8")).subgraphs[0]
    assert min(tensor.quantization.scale.min() for tensor in graph.tensors
               if tensor.type == schema.TensorType.INT8) > 1e-6  # fmt: skip
    assert lower(read(quantize_here(model, dead, "int8"))).nodes
