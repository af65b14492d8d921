"""What every lowering needs: checks that a file means what it says, and refusals that tell.

Each module of this folder offers `LOWERINGS: Mapping[str, Lowering]`, by operator code, merged in
`lower.py`. A lowering gets the model and one operator and gives the operator's nodes, in order. It
trusts nothing: whatever it lets through runs in C without a check. So it sees to it that

- inputs, outputs, their types and quantisation are what the operator needs;
- the output's shape is the one that the operator gives, and constants have the sizes used;
- no sum leaves int32 for any input.

`lower` itself has made sure that the numbers of tensors exist, that each input is a constant, an
input of the model or written by an earlier operator, and that each output is written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsys.edge.integers.fixed import INT32, quantized_multiplier
from fedsys.edge.integers.program import Node
from fedsys.edge.tflite.model import Model, Operator, Tensor
from fedsys.errors import ExportError

Lowering = Callable[[Model, Operator], Sequence[Node]]

INT8 = np.iinfo(np.int8)

# The quantisation that the executor and the generated C compute with.
METHOD = "export with int8 weights and activations (method 'int8' or 'qat')"
ISLAND = (
    "quantisation leaves layers such as LayerNormalization and GroupNormalization in float: "
    "use BatchNormalization instead"
)


def refusal(model: Model, operator: Operator, problem: str, remedy: str = "") -> ExportError:
    """The error that names the operator, its layer, what is wrong and what to use instead."""
    ending = f"; {remedy}" if remedy else ""
    return ExportError(f"{operator.code} of layer {layer(model, operator)!r}: {problem}{ending}")


def layer(model: Model, operator: Operator) -> str:
    """The name of the operator's first output, which holds that of the Keras layer."""
    for number in operator.outputs:
        if 0 <= number < len(model.tensors):
            return model.tensors[number].name
    return f"operator {operator.index}"


def require_arity(model: Model, operator: Operator, inputs: range | int, outputs: int = 1) -> None:
    """Refuse an operator with another number of inputs or outputs."""
    allowed = inputs if isinstance(inputs, range) else range(inputs, inputs + 1)
    if len(operator.inputs) not in allowed or len(operator.outputs) != outputs:
        raise refusal(
            model,
            operator,
            f"has {len(operator.inputs)} inputs and {len(operator.outputs)} outputs, "
            f"not {allowed[0]}{f' to {allowed[-1]}' if len(allowed) > 1 else ''} and {outputs}",
        )


def input_tensor(model: Model, operator: Operator, place: int) -> Tensor:
    """The input at a place; refuses where it is absent."""
    number = operator.inputs[place] if place < len(operator.inputs) else -1
    if number < 0:
        raise refusal(model, operator, f"input {place} is missing")
    return model.tensors[number]


def output_tensor(model: Model, operator: Operator, place: int = 0) -> Tensor:
    """The output at a place; refuses where it is absent."""
    number = operator.outputs[place] if place < len(operator.outputs) else -1
    if number < 0:
        raise refusal(model, operator, f"output {place} is missing")
    return model.tensors[number]


def absent(operator: Operator, place: int) -> bool:
    """Whether an optional input is left out."""
    return place >= len(operator.inputs) or operator.inputs[place] < 0


@dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero_point), for a whole int8 tensor. scale: above zero."""

    scale: float
    zero_point: int


def affine(model: Model, operator: Operator, tensor: Tensor) -> Affine:
    """The quantisation of an int8 tensor; refuses other types, none, per channel or unsound."""
    require_int8(model, operator, tensor)
    quantization = tensor.quantization
    if quantization is None or len(quantization.scale) == 0:
        raise refusal(model, operator, f"tensor {tensor.name!r} has no quantisation", METHOD)
    if len(quantization.scale) != 1 or len(quantization.zero_point) != 1:
        raise refusal(model, operator, f"tensor {tensor.name!r} has a scale for each channel")
    scale, zero_point = float(quantization.scale[0]), int(quantization.zero_point[0])
    if not (math.isfinite(scale) and scale > 0 and INT8.min <= zero_point <= INT8.max):
        raise refusal(
            model,
            operator,
            f"tensor {tensor.name!r} has scale {scale:g} and zero point {zero_point}",
            "a scale must be finite and above zero, a zero point within -128 to 127",
        )
    return Affine(scale, zero_point)


def require_int8(model: Model, operator: Operator, tensor: Tensor) -> None:
    """Refuse a tensor of another type, saying what its type comes from."""
    if tensor.dtype == np.int8:
        return
    kind = tensor.dtype.name
    remedy = METHOD
    why = {
        "float32": "is computed in float32",
        "uint8": "is uint8, the older quantisation",
        "int16": "has int16 activations, which are not computed here",
    }.get(kind, f"is {kind}")
    if kind == "float32" and _partly_int8(model):
        why += " amid int8"
        remedy = ISLAND
    raise refusal(model, operator, f"tensor {tensor.name!r} {why}", remedy)


def _partly_int8(model: Model) -> bool:
    """Whether some operators compute int8, so that float ones are islands left by quantisation."""
    return any(
        model.tensors[number].dtype == np.int8
        for operator in model.operators
        for number in operator.outputs
        if 0 <= number < len(model.tensors)
    )


def constant(model: Model, operator: Operator, place: int, dtype: Any, what: str) -> np.ndarray:
    """The values of an input that must lie in the file and have this type."""
    tensor = input_tensor(model, operator, place)
    if tensor.data is None:
        raise refusal(model, operator, f"its {what} {tensor.name!r} is computed, not a constant")
    if tensor.dtype != np.dtype(dtype):
        raise refusal(model, operator, f"its {what} {tensor.name!r} is {tensor.dtype.name}", METHOD)
    if tensor.data.dtype != tensor.dtype or tensor.data.shape != tensor.shape:
        raise refusal(model, operator, f"its {what} {tensor.name!r} has other values than it says")
    return tensor.data


def require_shape(model: Model, operator: Operator, tensor: Tensor, shape: Sequence[int]) -> None:
    """Refuse a tensor whose shape is not the one that the operator needs or gives."""
    if tensor.shape != tuple(shape):
        raise refusal(
            model,
            operator,
            f"tensor {tensor.name!r} has shape {list(tensor.shape)}, not {list(shape)}",
            "the file contradicts itself",
        )


def limits(model: Model, operator: Operator, output: Affine) -> tuple[int, int]:
    """(low, high) of the stored output under the operator's fused activation."""
    name = operator.options.get("fused_activation_function", "NONE")
    bounds: dict[str, tuple[float | None, float | None]] = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU6": (0.0, 6.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
    }
    if name not in bounds:
        raise refusal(
            model, operator, f"fused activation {name}", "use none, ReLU, ReLU6 or a layer of it"
        )
    low, high = bounds[name]
    return (
        INT8.min if low is None else max(INT8.min, stored(low, output)),
        INT8.max if high is None else min(INT8.max, stored(high, output)),
    )


def stored(real: float, output: Affine) -> int:
    """The stored value of a real one, not limited to int8, by the reference's float32 division."""
    with np.errstate(over="ignore"):
        ratio = float(np.float32(real) / np.float32(output.scale))
    # Halves away from zero, as C's round; clipped to int32 as the cast would need.
    rounded = math.copysign(math.floor(abs(ratio) + 0.5), ratio) if math.isfinite(ratio) else ratio
    return output.zero_point + int(min(max(rounded, INT32.min), INT32.max))


def fixed(model: Model, operator: Operator, factor: float, largest: int) -> tuple[int, int]:
    """A real factor as (multiplier, shift), for sums of at most `largest` in size.

    Refuses a factor that is not finite, and one above 1 that shifts the largest sum out of int32,
    with room for the zero point that is added.
    """
    if not math.isfinite(factor) or factor < 0:
        raise refusal(model, operator, f"its scales give a factor of {factor:g}")
    multiplier, shift = quantized_multiplier(factor)
    if shift > 30 or (multiplier and largest << max(shift, 0) > INT32.max - 2**8):
        raise refusal(
            model,
            operator,
            f"the scale of its output is so small (factor {factor:g}) that sums leave 32 bits",
            "its output hardly moved in calibration: calibrate on more varied rows, "
            "or remove the layer",
        )
    return multiplier, shift
