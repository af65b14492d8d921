"""A float .tflite as integers: ranges of activations in, int8 or int16 operators out.

Google's AI Edge Quantizer does the work, in a worker process: weights per channel, activations
per tensor, symmetric weights. It leaves some operators in float, between a DEQUANTIZE and a
QUANTIZE, that microcontrollers run on int8; these are put right afterwards. What is still float
then is refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedsys.edge.calibration.ranges import Ranges, activations
from fedsys.edge.conversion import worker
from fedsys.edge.tflite.flatbuffer import operator_name, packed, schema, text, unpacked
from fedsys.errors import DataError, ExportError, UsageError, nearest

METHODS = ("int8", "int16", "float", "dynamic")
"""int8: weights and activations. int16: activations of 16 bits, weights of 8. float: as it came.
dynamic: weights of 8 bits and float activations."""

_FOLDED = frozenset({"PRELU", "LEAKY_RELU", "RELU6", "SQUEEZE", "EXPAND_DIMS"})
"""Operators of int8 that the quantizer does not know."""

_FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.FLOAT64)


def quantize(float_model: bytes, ranges: Ranges | None, method: str = "int8") -> bytes:
    """The model in integers.

    ranges: of every activation, as `calibration.calibrate` gives them; None for "float" and
        "dynamic", which need none. method: one of `METHODS`.

    The same model and ranges give the same bytes. Raises UsageError for an unknown method,
    DataError where a range is missing, and ExportError, naming the layer, where "int8" or "int16"
    leaves a float operator.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is unknown; {nearest(method, METHODS)}")
    if method == "float":
        return bytes(float_model)
    if method == "dynamic":
        ranges = {}
    if ranges is None:
        raise UsageError(f"method {method!r} needs ranges: calibrate the model, or use 'dynamic'")
    quantized: bytes = worker.call(
        quantize_here,
        float_model=bytes(float_model),
        ranges={name: [float(low), float(high)] for name, (low, high) in ranges.items()},
        method=method,
        doing=f"quantising to {method}",
    )
    return quantized


# --- in the worker -------------------------------------------------------------------------------


def quantize_here(
    float_model: bytes, ranges: Mapping[str, tuple[float, float]], method: str
) -> bytes:
    """As `quantize`, in this process."""
    from ai_edge_quantizer import quantizer, recipe

    recipes = {
        "int8": recipe.static_wi8_ai8,
        "int16": recipe.static_wi8_ai16,
        "dynamic": recipe.dynamic_wi8_afp32,
    }
    statistics = None if method == "dynamic" else _statistics(float_model, ranges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps every tensor, which it does by itself
        working = quantizer.Quantizer(float_model, recipes[method]())
        result = working.quantize(
            statistics, enable_progress_bar=False, enable_progress_report=False
        )
    return finished(bytes(result.quantized_model), ranges, method)


def finished(quantized: bytes, ranges: Mapping[str, tuple[float, float]], method: str) -> bytes:
    """What the quantizer made, with the operators that it left in float put right and looked at."""
    made = unpacked(quantized)
    if method != "dynamic":
        kind = schema.TensorType.INT8 if method == "int8" else schema.TensorType.INT16
        _type_unread(made, kind)
        _fold(made, ranges, kind)
        _drop_unused(made)
        _integers_only(made, method)
    return packed(made)


def _statistics(
    float_model: bytes, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, np.ndarray]]:
    """Ranges in the quantizer's form: arrays with as many dimensions as the tensor."""
    statistics = {}
    for name, rank in activations(float_model).items():
        if name not in ranges:
            raise DataError(f"the ranges lack tensor {name!r}: calibrate this very model")
        low, high = _not_nothing(*ranges[name])
        shape = (1,) * rank
        statistics[name] = {
            "min": np.full(shape, low, np.float32),
            "max": np.full(shape, high, np.float32),
        }
    for name, like in _unread(float_model).items():
        statistics[name] = statistics[like]
    return statistics


def _not_nothing(low: float, high: float) -> tuple[float, float]:
    """A range of zeros alone, as of units that never fire, has any scale: one of a range of 1.

    The quantizer would take a scale of almost nothing, with which biases leave 32 bits.
    """
    return (low, high) if low or high else (0.0, 1.0)


def _unread(float_model: bytes) -> dict[str, str]:
    """Float tensors that nothing reads, each with the tensor that it is computed from.

    The quantizer wants a range for them all the same. They are parts of a SPLIT or UNPACK, whose
    scale is their input's.
    """
    graph = unpacked(float_model).subgraphs[0]
    read = {int(number) for operator in graph.operators for number in operator.inputs}
    read |= {int(number) for number in graph.outputs}
    names = [text(tensor.name) for tensor in graph.tensors]
    floats = {n for n, t in enumerate(graph.tensors) if t.type == schema.TensorType.FLOAT32}
    computed = {int(n) for operator in graph.operators for n in operator.outputs}
    computed |= {int(number) for number in graph.inputs}
    return {
        names[number]: names[source]
        for operator in graph.operators
        for number in map(int, operator.outputs)
        for source in map(int, operator.inputs)
        if number in floats - read and source in floats & computed & read
    }


# --- operators that the quantizer left in float ---------------------------------------------------


def _fold(made: Any, ranges: Mapping[str, tuple[float, float]], kind: int) -> None:
    """Turns float operators of `_FOLDED` into integer ones, and drops what was around them."""
    graph = made.subgraphs[0]
    integer: dict[int, int] = {}  # float tensor -> the integer tensor of the same values
    for operator in graph.operators:
        code = operator_name(made, operator)
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if code == "DEQUANTIZE":
            integer[target] = source
        elif code == "QUANTIZE":
            integer.setdefault(source, target)
    folded = set()
    for operator in graph.operators:
        code = operator_name(made, operator)
        target = int(operator.outputs[0])
        if code not in _FOLDED or graph.tensors[target].type not in _FLOATS:
            continue
        operator.inputs = np.array(
            [_as_integer(made, int(number), integer) for number in operator.inputs], np.int32
        )
        if target not in integer:
            name = text(graph.tensors[target].name)
            integer[target] = target
            tensor = graph.tensors[target]
            tensor.type = kind
            tensor.quantization = _quantization(*_not_nothing(*ranges[name]), kind)
        operator.outputs = np.array([integer[target]], np.int32)
        folded.add(integer[target])
    for number in folded:
        tensor = graph.tensors[number]
        tensor.name = text(tensor.name).removesuffix("_quantized").encode()
    _drop_converters(made, folded)


def _as_integer(made: Any, number: int, integer: Mapping[int, int]) -> int:
    """The integer tensor for an input of a folded operator; constants are quantised in place."""
    graph = made.subgraphs[0]
    if number in integer:
        return integer[number]
    tensor = graph.tensors[number]
    data = made.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None:
        return number
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32)
    limit = float(np.abs(values).max()) or 1.0
    tensor.type = schema.TensorType.INT8
    tensor.quantization = _quantization(-limit, limit, schema.TensorType.INT8, symmetric=True)
    stored = np.clip(np.round(values / tensor.quantization.scale[0]), -127, 127).astype(np.int8)
    # A buffer of its own: others may share the old one.
    made.buffers.append(schema.BufferT(data=stored.view(np.uint8)))
    tensor.buffer = len(made.buffers) - 1
    return number


def _quantization(low: float, high: float, kind: int, symmetric: bool = False) -> Any:
    """Scale and zero point for a range, by the quantizer's own rule."""
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as rule
    from ai_edge_quantizer.qtyping import QuantGranularity

    bits = 8 if kind == schema.TensorType.INT8 else 16
    zero_point, scale = rule.tensor_zp_scale_from_min_max(
        np.array([low], np.float32),
        np.array([high], np.float32),
        bits,
        symmetric or bits == 16,
        QuantGranularity.TENSORWISE,
    )
    return schema.QuantizationParametersT(
        scale=np.asarray(scale, np.float32).reshape(1),
        zeroPoint=np.asarray(zero_point, np.int64).reshape(1),
    )


def _type_unread(made: Any, kind: int) -> None:
    """Gives parts of a SPLIT or UNPACK that nothing reads the type of the whole, which the
    quantizer forgets."""
    graph = made.subgraphs[0]
    for operator in graph.operators:
        whole = graph.tensors[operator.inputs[-1]]
        if operator_name(made, operator) in ("SPLIT", "UNPACK") and whole.type == kind:
            for number in operator.outputs:
                if graph.tensors[number].type in _FLOATS:
                    graph.tensors[number].type = kind
                    graph.tensors[number].quantization = whole.quantization


def _drop_converters(made: Any, folded: set[int]) -> None:
    """Drops a QUANTIZE whose input is gone, and each DEQUANTIZE that nobody reads."""
    graph = made.subgraphs[0]
    kept = [
        operator
        for operator in graph.operators
        if not (operator_name(made, operator) == "QUANTIZE" and int(operator.outputs[0]) in folded)
    ]
    read = {int(number) for operator in kept for number in operator.inputs}
    read |= {int(number) for number in graph.outputs}
    graph.operators = [
        operator
        for operator in kept
        if operator_name(made, operator) != "DEQUANTIZE" or int(operator.outputs[0]) in read
    ]


def _drop_unused(made: Any) -> None:
    """Drops tensors and buffers that nothing refers to, and numbers the rest anew."""
    graph = made.subgraphs[0]
    used = {int(n) for n in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        used |= {int(n) for n in (*operator.inputs, *operator.outputs) if n >= 0}
    tensors = {old: new for new, old in enumerate(sorted(used))}
    graph.tensors = [graph.tensors[old] for old in tensors]
    renumbered = {**tensors, -1: -1}
    for part in [graph, *graph.operators]:
        for end in ("inputs", "outputs"):
            numbers = [renumbered[int(number)] for number in getattr(part, end)]
            setattr(part, end, np.array(numbers, np.int32))
    for signature in made.signatureDefs or ():
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = renumbered[int(entry.tensorIndex)]
    kept = {0, *(tensor.buffer for tensor in graph.tensors)}  # the first is empty by convention
    kept |= {entry.buffer for entry in made.metadata or ()}
    buffers = {old: new for new, old in enumerate(sorted(kept))}
    made.buffers = [made.buffers[old] for old in buffers]
    for tensor in graph.tensors:
        tensor.buffer = buffers[tensor.buffer]
    for entry in made.metadata or ():
        entry.buffer = buffers[entry.buffer]
    codes = {old: new for new, old in enumerate(sorted({o.opcodeIndex for o in graph.operators}))}
    made.operatorCodes = [made.operatorCodes[old] for old in codes]
    for operator in graph.operators:
        operator.opcodeIndex = codes[operator.opcodeIndex]


def _integers_only(made: Any, method: str) -> None:
    """Refuses a model with a float tensor left, naming the operator and the layer."""
    graph = made.subgraphs[0]
    for operator in graph.operators:
        code = operator_name(made, operator)
        numbers = [int(number) for number in (*operator.inputs, *operator.outputs) if number >= 0]
        if any(graph.tensors[number].type in _FLOATS for number in numbers):
            layer = text(graph.tensors[operator.outputs[0]].name)
            if code in ("QUANTIZE", "DEQUANTIZE"):
                continue  # the operator beside it is to blame, or it is at an end of the model
            raise ExportError(
                f"layer {layer!r}: operator {code} stays in float under method {method!r}: use "
                "another layer there, or method 'float'"
            )
    for number in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[int(number)]
        if tensor.type in _FLOATS:
            raise ExportError(
                f"tensor {text(tensor.name)!r} at an end of the model stays in float under method "
                f"{method!r}: use another layer there, or method 'float'"
            )
