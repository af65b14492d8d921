"""Figures of each layer of a .tflite model: work, parameters, memory and quantisation noise.

They are counted from the file itself, so they hold for any model, also for one that cannot be
exported. A multiply-accumulate is one product that is added up; what only adds, compares or looks
up counts as none, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedsys.edge.model import Model, Operator, Tensor
from fedsys.edge.report.figures import Layer

_SHAPERS = {"RESHAPE", "PAD", "PADV2", "MEAN", "SUM", "TRANSPOSE", "STRIDED_SLICE", "SLICE",
            "SPLIT", "SPLIT_V", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "SQUEEZE", "GATHER",
            "EXPAND_DIMS", "REDUCE_MAX", "BROADCAST_TO", "TILE", "ARG_MAX", "FILL"}  # fmt: skip
"""Operators whose constants say shapes and axes, not what was learned."""


def layers(
    model: Model,
    noise: Mapping[int, float] | None = None,
    instructions: Mapping[int, int] | None = None,
) -> tuple[Layer, ...]:
    """The figures of each operator of a model, in order.

    noise: number of an output tensor -> its signal-to-quantisation-noise in dB. instructions:
    number of an operator -> what the emulator counted. A constant that several operators read
    is counted at the first.
    """
    noise, instructions = noise or {}, instructions or {}
    seen: set[int] = set()
    found = []
    for operator in model.operators:
        constants = [each for each in _constants(model, operator) if each.index not in seen]
        seen.update(each.index for each in constants)
        shaper = operator.code in _SHAPERS
        outputs = [model.tensors[number] for number in operator.outputs if number >= 0]
        found.append(
            Layer(
                index=operator.index,
                operator=operator.code,
                name=short_name(outputs[0].name) if outputs else "",
                shape=_without_batch(outputs[0].shape) if outputs else (),
                macs=macs(model, operator),
                parameters=0 if shaper else sum(each.size for each in constants),
                weights=sum(each.bytes for each in constants),
                activation=sum(each.bytes for each in outputs),
                sqnr=next((noise[each.index] for each in outputs if each.index in noise), None),
                instructions=instructions.get(operator.index),
            )
        )
    return tuple(found)


def macs(model: Model, operator: Operator) -> int:
    """Multiply-accumulates of one operator of one inference."""
    count = _COUNTS.get(operator.code)
    if count is None or not operator.outputs:
        return 0
    inputs = [model.tensors[number] for number in operator.inputs if number >= 0]
    return count(inputs, model.tensors[operator.outputs[0]])


def _convolution(inputs: Sequence[Tensor], output: Tensor) -> int:
    kernel = inputs[1].shape  # [out, rows, columns, in / groups]
    return output.size * int(np.prod(kernel[1:], dtype=np.int64))


def _depthwise(inputs: Sequence[Tensor], output: Tensor) -> int:
    return output.size * int(np.prod(inputs[1].shape[1:3], dtype=np.int64))  # [1, rows, columns, .]


def _transposed(inputs: Sequence[Tensor], output: Tensor) -> int:
    kernel = inputs[1]  # [out, rows, columns, in]; each input position meets all of it
    positions = int(np.prod(inputs[2].shape[1:3], dtype=np.int64)) if len(inputs) > 2 else 0
    return positions * kernel.size


def _dense(inputs: Sequence[Tensor], output: Tensor) -> int:
    return output.size * inputs[1].shape[-1]


def _matrices(inputs: Sequence[Tensor], output: Tensor) -> int:
    return output.size * inputs[0].shape[-1]


def _product(inputs: Sequence[Tensor], output: Tensor) -> int:
    return output.size


def _recurrent(inputs: Sequence[Tensor], output: Tensor) -> int:
    """Every weight matrix once a step; the steps are the rows of the input, [batch, steps, in]."""
    matrices = sum(each.size for each in inputs if each.constant and len(each.shape) == 2)
    steps = inputs[0].shape[1] if len(inputs[0].shape) == 3 else 1
    return matrices * steps


_COUNTS: dict[str, Callable[[Sequence[Tensor], Tensor], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matrices,
    "MUL": _product,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
}


def _constants(model: Model, operator: Operator) -> list[Tensor]:
    tensors = [model.tensors[number] for number in dict.fromkeys(operator.inputs) if number >= 0]
    return [tensor for tensor in tensors if tensor.constant]


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def short_name(name: str) -> str:
    """A tensor's name as a reader knows the layer: `conv2d/Relu` of
    `functional_1/conv2d_1/Relu;functional_1/conv2d_1/BiasAdd;...`.

    The converter joins the names of what it fused and puts the model's own name, and that of
    the saved function, before them.
    """
    first = name.split(";")[0]
    for tail in ("_quantized", "_dequantized"):
        first = first.removesuffix(tail)
    parts = [part for part in first.split("/") if part]
    while len(parts) > 1 and (
        parts[0].startswith(("functional", "sequential", "model", "Stateful", "serving_default"))
    ):
        parts = parts[1:]
    return "/".join(parts[:-1] if len(parts) > 2 and parts[-1] == parts[-2] else parts) or name


# --- noise ---------------------------------------------------------------------------------------

Powers = Mapping[str, tuple[float, float]]
"""Name of a tensor -> (sum of squares of the float values, of the differences). They add up over
rows and over clients."""


def powers(floats: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray]) -> Powers:
    """Signal and noise of each tensor that both know by name, over the same rows.

    floats: of the float model. stored: of the exported one, as real numbers. Shapes are alike.
    """
    found = {}
    for name, real in stored.items():
        wanted = floats.get(name)
        if wanted is None or wanted.size != real.size:
            continue
        signal = np.asarray(wanted, np.float64).ravel()
        noise = signal - np.asarray(real, np.float64).ravel()
        found[name] = float(signal @ signal), float(noise @ noise)
    return found


def added(parts: Sequence[Powers]) -> Powers:
    """The powers of several clients together."""
    total: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (signal, noise) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = before[0] + signal, before[1] + noise
    return total


def ratio(signal: float, noise: float) -> float:
    """Signal-to-noise in dB: infinite without noise, minus infinite without signal."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")
