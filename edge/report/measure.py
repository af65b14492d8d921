"""Figures of each layer of a .tflite model: work, parameters, memory and quantisation noise.

They are counted from the file itself, so they hold for any model, also for one that cannot be
exported. A multiply-accumulate is one product that is added up; what only adds, compares or looks
up counts as none, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.report.figures import Layer
from fedsys.edge.tflite.inspection import macs
from fedsys.edge.tflite.model import Model, Operator, Tensor


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
        outputs = [model.tensors[number] for number in operator.outputs if number >= 0]
        found.append(
            Layer(
                index=operator.index,
                operator=operator.code,
                name=short_name(outputs[0].name) if outputs else "",
                shape=_without_batch(outputs[0].shape) if outputs else (),
                macs=macs(operator, model.tensors),
                parameters=sum(each.size for each in constants if _learned(each)),
                weights=sum(each.bytes for each in constants),
                activation=sum(each.bytes for each in outputs),
                sqnr=next((noise[each.index] for each in outputs if each.index in noise), None),
                instructions=instructions.get(operator.index),
            )
        )
    return tuple(found)


def _constants(model: Model, operator: Operator) -> list[Tensor]:
    tensors = [model.tensors[number] for number in dict.fromkeys(operator.inputs) if number >= 0]
    return [tensor for tensor in tensors if tensor.constant]


def _learned(constant: Tensor) -> bool:
    """Whether a constant is a weight or a bias, not an axis or a shape."""
    return constant.dtype.kind == "f" or constant.quantization is not None


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
    for place, part in enumerate(parts):
        if part.startswith("quant_"):  # a layer wrapped for quantisation-aware training
            parts = [part.removeprefix("quant_"), *parts[place + 1 :]]
            break
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
