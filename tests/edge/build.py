"""Small .tflite files for tests, and the TensorFlow Lite Micro interpreter that runs them.

Written with the schema's own generated classes, so that nothing here leans on our reader.
Tensors are numbered in the order in which they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"

# Operators whose options bear another name than theirs.
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "PADV2": "PadV2Options",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "LSTM": "LSTMOptions",
    "SVDF": "SVDFOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
}

# The version that the int8 kernel of an operator asks for; 1 for the rest.
VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "LEAKY_RELU": 2,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SPLIT": 2,
    "STRIDED_SLICE": 2,
    "SUB": 2,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
    "TRANSPOSE_CONV": 3,
}

# Options of an enumeration, and the class that numbers its words.
ENUMERATIONS = {
    "padding": schema.Padding,
    "fused_activation_function": schema.ActivationFunctionType,
    "weights_format": schema.FullyConnectedOptionsWeightsFormat,
    "mode": schema.MirrorPadMode,
    "in_data_type": schema.TensorType,
    "out_data_type": schema.TensorType,
    "out_type": schema.TensorType,
    "output_type": schema.TensorType,
    "quantized_bias_type": schema.TensorType,
}


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor to write: computed, or a constant where there is `data`.

    scale: a number, or one a channel along `axis`; None where it is not quantised.
    zero_point: a number, or one a channel. signature: shape with -1 for what is dynamic.
    """

    shape: Sequence[int]
    dtype: Any = "int8"
    scale: float | Sequence[float] | None = None
    zero_point: int | Sequence[int] = 0
    axis: int = 0
    data: np.ndarray | None = None
    name: str | None = None
    signature: Sequence[int] | None = None
    variable: bool = False


def constant(
    data: Any,
    dtype: Any = "int8",
    scale: float | Sequence[float] | None = None,
    zero_point: int | Sequence[int] = 0,
    axis: int = 0,
    name: str | None = None,
) -> Value:
    """A tensor whose values lie in the file."""
    data = np.asarray(data, dtype)
    return Value(data.shape, dtype, scale, zero_point, axis, data, name)


@dataclass(frozen=True)
class Op:
    """An operator to write; -1 for an input that is absent.

    options: by the schema's names in lower case, with words for enumerations. code: a custom
    operator's own name where `custom`, whose options are `custom_options`.
    """

    code: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None
    custom: bool = False
    custom_options: bytes = b""


def build(
    tensors: Sequence[Value],
    operators: Sequence[Op],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    description: str = "test",
    metadata: Mapping[str, bytes] | None = None,
) -> bytes:
    """A .tflite file of one graph."""
    model = schema.ModelT()
    model.version = 3
    model.description = description
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(number, value, model) for number, value in enumerate(tensors)]
    graph.operators = [_operator(op, model) for op in operators]
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array(outputs, np.int32)
    model.subgraphs = [graph]
    model.metadata = []
    for name, content in (metadata or {}).items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, _buffer(content, model)
        model.metadata.append(entry)
    return pack(model)


def one_operator(
    code: str,
    inputs: Sequence[Value | None],
    outputs: Sequence[Value] | Value,
    options: Mapping[str, Any] | None = None,
    *,
    version: int | None = None,
) -> bytes:
    """A file of one operator. None: an input that is absent.

    The model's inputs are the operator's that are not constant, in order; so are its outputs.
    """
    outputs = [outputs] if isinstance(outputs, Value) else list(outputs)
    tensors = [value for value in inputs if value is not None]
    numbers = iter(range(len(tensors)))
    reads = [-1 if value is None else next(numbers) for value in inputs]
    writes = list(range(len(tensors), len(tensors) + len(outputs)))
    given = [n for n, value in enumerate(tensors) if value.data is None and not value.variable]
    operator = Op(code, reads, writes, options or {}, version)
    return build([*tensors, *outputs], [operator], given, writes)


def unpack(data: bytes) -> schema.ModelT:
    """A file as the schema's objects."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def pack(model: schema.ModelT) -> bytes:
    """The schema's objects as a file."""
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def cut(data: bytes, tensor: int) -> bytes:
    """The same model, ending at a tensor: later operators dropped, the tensor its one output."""
    model = unpack(data)
    graph = model.subgraphs[0]
    last = next(i for i, op in enumerate(graph.operators) if tensor in list(op.outputs))
    graph.operators = graph.operators[: last + 1]
    graph.outputs = np.array([tensor], np.int32)
    model.signatureDefs = []
    return pack(model)


def tflm(data: bytes, inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow Lite Micro computes: an array an output, in the shapes of the file.

    inputs: an array an input, in the shape that the file gives it. The test is skipped where the
    interpreter is not installed (its wheels are for Linux on x86-64).
    """
    interpreter = _interpreter(data, inputs)
    outputs = unpack(data).subgraphs[0].outputs
    return [interpreter.get_output(i).copy() for i in range(len(outputs))]


def trace_tflm(data: bytes, inputs: np.ndarray | Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Every operator's outputs as TensorFlow Lite Micro computes them: tensor number -> array.

    Inputs are told, too.
    """
    runtime = _runtime()
    keep = runtime.InterpreterConfig.kPreserveAllTensors
    interpreter = _interpreter(data, inputs, intrepreter_config=keep)
    graph = unpack(data).subgraphs[0]
    numbers = [*graph.inputs, *(n for op in graph.operators for n in op.outputs)]
    return {int(n): interpreter.GetTensor(int(n), 0)["tensor_data"].copy() for n in numbers}


def _runtime() -> Any:
    pytest.importorskip("tflite_micro", reason="the TensorFlow Lite Micro wheel is not installed")
    from tflite_micro.python.tflite_micro import runtime

    return runtime


def _interpreter(data: bytes, inputs: np.ndarray | Sequence[np.ndarray], **settings: Any) -> Any:
    """An interpreter that has been run once."""
    inputs = [inputs] if isinstance(inputs, np.ndarray) else inputs
    settings["arena_size"] = 200_000 + 20 * len(data) + 20 * sum(x.nbytes for x in inputs)
    interpreter = _runtime().Interpreter.from_bytes(data, **settings)
    for i, array in enumerate(inputs):
        interpreter.set_input(np.ascontiguousarray(array), i)
    interpreter.invoke()
    return interpreter


def _buffer(content: bytes, model: schema.ModelT) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _tensor(number: int, value: Value, model: schema.ModelT) -> schema.TensorT:
    dtype = np.dtype(value.dtype)
    tensor = schema.TensorT()
    tensor.name = f"tensor{number}" if value.name is None else value.name
    tensor.shape = np.array(value.shape, np.int32)
    if value.signature is not None:
        tensor.shapeSignature = np.array(value.signature, np.int32)
    tensor.type = getattr(schema.TensorType, dtype.name.upper())
    tensor.hasRank = True
    tensor.isVariable = value.variable
    if value.data is not None:
        content = np.asarray(value.data, dtype.newbyteorder("<")).tobytes()
        tensor.buffer = _buffer(content, model)
    if value.scale is not None:
        scale = np.atleast_1d(np.asarray(value.scale, np.float32))
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = scale
        zero_point = np.broadcast_to(np.asarray(value.zero_point, np.int64), scale.shape)
        tensor.quantization.zeroPoint = np.array(zero_point)
        tensor.quantization.quantizedDimension = value.axis
    return tensor


def _operator(op: Op, model: schema.ModelT) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(op, model)
    operator.inputs = np.array(op.inputs, np.int32)
    operator.outputs = np.array(op.outputs, np.int32)
    if op.custom:
        operator.customOptions = np.frombuffer(op.custom_options, np.uint8)
        return operator
    name = OPTIONS.get(op.code, _camel(op.code.lower()) + "Options")
    number = getattr(schema.BuiltinOptions, name, None)
    if number is None:
        assert not op.options, f"{op.code} has no options"
        return operator
    operator.builtinOptionsType = number
    operator.builtinOptions = getattr(schema, name + "T")()
    for key, setting in op.options.items():
        if key in ENUMERATIONS and isinstance(setting, str):
            setting = getattr(ENUMERATIONS[key], setting)
        camel = _camel(key)
        camel = camel[0].lower() + camel[1:]
        assert hasattr(operator.builtinOptions, camel), f"{name} has no {key}"
        setattr(operator.builtinOptions, camel, setting)
    return operator


def _code(op: Op, model: schema.ModelT) -> int:
    """The place of the operator's code in the file's table, put there where it is not."""
    code = schema.OperatorCodeT()
    builtin = getattr(schema.BuiltinOperator, "CUSTOM" if op.custom else op.code)
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(
        builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
    )
    code.customCode = op.code if op.custom else None
    code.version = VERSIONS.get(op.code, 1) if op.version is None else op.version
    for place, other in enumerate(model.operatorCodes):
        if vars(other) == vars(code):
            return place
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
