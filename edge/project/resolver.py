"""Which methods of TensorFlow Lite Micro's resolver register the operators of a model."""

from __future__ import annotations

import numpy as np

from fedsys.edge.tflite.model import Model

# Operator -> (method, header and name of an int8 registration, where there is one).
_METHODS: dict[str, tuple[str, str, str]] = {
    "ADD": ("AddAdd", "add", "Register_ADD_INT8"),
    "AVERAGE_POOL_2D": ("AddAveragePool2D", "pooling", "Register_AVERAGE_POOL_2D_INT8"),
    "CONV_2D": ("AddConv2D", "conv", "Register_CONV_2D_INT8"),
    "DEPTHWISE_CONV_2D": (
        "AddDepthwiseConv2D",
        "depthwise_conv",
        "Register_DEPTHWISE_CONV_2D_INT8",
    ),
    "FULLY_CONNECTED": ("AddFullyConnected", "fully_connected", "Register_FULLY_CONNECTED_INT8"),
    "MAX_POOL_2D": ("AddMaxPool2D", "pooling", "Register_MAX_POOL_2D_INT8"),
    "MUL": ("AddMul", "mul", "Register_MUL_INT8"),
    "SOFTMAX": ("AddSoftmax", "softmax", "Register_SOFTMAX_INT8"),
    "TRANSPOSE_CONV": ("AddTransposeConv", "transpose_conv", "Register_TRANSPOSE_CONV_INT8"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "AddUnidirectionalSequenceLSTM",
        "unidirectional_sequence_lstm",
        "Register_UNIDIRECTIONAL_SEQUENCE_LSTM_INT8",
    ),
    "PADV2": ("AddPadV2", "", ""),
}


def registrations(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The headers of registrations, and the calls of a resolver, sorted: each operator once.

    An int8 registration is taken where all of an operator's inputs and outputs that are computed
    are int8: it links kernels for that type alone.
    """
    headers, calls = set(), set()
    for code in {operator.code for operator in model.operators}:
        method, header, registration = _METHODS.get(code, (_method(code), "", ""))
        if registration and _int8(model, code):
            headers.add(header)
            calls.add(f"{method}(tflite::{registration}())")
        else:
            calls.add(f"{method}()")
    return tuple(sorted(headers)), tuple(sorted(calls))


def _method(code: str) -> str:
    """`AddResizeNearestNeighbor` for RESIZE_NEAREST_NEIGHBOR."""
    return "Add" + "".join(word.capitalize() for word in code.split("_"))


def _int8(model: Model, code: str) -> bool:
    numbers = {
        number
        for operator in model.operators
        if operator.code == code
        for number in (*operator.inputs, *operator.outputs)
        if number >= 0
    }
    computed = [tensor for tensor in map(model.tensors.__getitem__, numbers) if not tensor.constant]
    return all(tensor.dtype == np.int8 for tensor in computed)
