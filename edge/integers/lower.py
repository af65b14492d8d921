"""From a model to a program: every operator checked and its numbers worked out, or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fedsys.edge.integers.lowering import convolutions, elementwise, movement, pooling, softmax
from fedsys.edge.integers.lowering.shared import Lowering, refusal
from fedsys.edge.integers.program import Node, Program
from fedsys.edge.tflite.model import Model, Operator
from fedsys.errors import ExportError

LOWERINGS: Mapping[str, Lowering] = {
    **convolutions.LOWERINGS,
    **pooling.LOWERINGS,
    **softmax.LOWERINGS,
    **elementwise.LOWERINGS,
    **movement.LOWERINGS,
}

# What to use instead of an operator that is not computed.
INSTEAD: Mapping[str, str] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "use convolutions over time (Conv1D) instead of LSTM",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "use convolutions over time (Conv1D) instead of LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "use convolutions over time (Conv1D) instead of a recurrence",
    "WHILE": "use convolutions over time (Conv1D) instead of a recurrence",
    "IF": "build the model without a branch on data",
    "SQRT": "use BatchNormalization instead of a normalisation on the chip",
    "SQUARED_DIFFERENCE": (
        "LayerNormalization and GroupNormalization need float: use BatchNormalization"
    ),
    "BATCH_MATMUL": "attention multiplies activations: use convolutions or dense layers",
    "GELU": "use ReLU or hard swish instead of GELU",
    "EXP": "use ReLU, sigmoid or tanh",
    "TILE": "use UpSampling2D with interpolation='nearest', or Conv2DTranspose",
    "SELECT_V2": "feed vectors to the model instead of an Embedding",
    "SELECT": "feed vectors to the model instead of an Embedding",
    "SHAPE": "the batch is open: convert with a static batch of one",
    "CONV_3D": "use Conv2D",
    "L2_NORMALIZATION": "use BatchNormalization",
    "REDUCE_MAX": "use GlobalAveragePooling, or MaxPooling2D over the whole image",
    "ARG_MAX": "leave the choice of the largest to the program that calls the model",
}


# Numbers of a tensor: 16 MiB of int8, beyond any microcontroller, and counted within int32 in C.
LARGEST = 2**24
TOO_LARGE = f"too large for a microcontroller; use a smaller input or layer (at most {LARGEST:,})"


def lower(model: Model) -> Program:
    """The program of a model. ExportError names the operator, its layer and what to use instead.

    Checked here: tensors exist and are no larger than `LARGEST`, each is written once and before
    it is read, operators are known.
    The rest is checked by the operator's lowering (lowering/shared.py says what).
    """
    if not model.operators:
        raise ExportError("the model has no operators: there is nothing to run")
    ready = {tensor.index for tensor in model.tensors if tensor.constant}
    for number in model.inputs:
        _require(model, number, "an input of the model")
        if number in ready:
            raise ExportError(f"input {model.tensors[number].name!r} is a constant or given twice")
        ready.add(number)
    nodes: list[Node] = []
    for operator in model.operators:
        nodes.extend(_lowered(model, operator, ready))
        ready.update(operator.outputs)
    for number in model.outputs:
        _require(model, number, "an output of the model")
        if number not in ready:
            raise ExportError(f"output {model.tensors[number].name!r} is never computed")
    return Program(model, tuple(nodes))


def refusals(model: Model) -> dict[int, ExportError]:
    """Every operator that `lower` would refuse, by its index, not the first alone.

    The model is one that was read: its tensors exist and are computed in order.
    """
    ready = {tensor.index for tensor in model.tensors if tensor.constant} | {*model.inputs}
    found = {}
    for operator in model.operators:
        try:
            _lowered(model, operator, ready)
        except ExportError as error:
            found[operator.index] = error
        ready.update(operator.outputs)
    return found


def _lowered(model: Model, operator: Operator, ready: set[int]) -> Sequence[Node]:
    """The nodes of an operator. ready: tensors that have their values before it."""
    _require_flow(model, operator, ready)
    lowering = None if operator.custom else LOWERINGS.get(operator.code)
    if lowering is None:
        raise _unknown(model, operator)
    return lowering(model, operator)


def _require(model: Model, number: int, what: str) -> None:
    if not 0 <= number < len(model.tensors):
        raise ExportError(f"{what} is tensor {number}, which does not exist")
    tensor = model.tensors[number]
    if math.prod(tensor.shape) > LARGEST:
        raise ExportError(f"{what}, {tensor.name!r}, has shape {list(tensor.shape)}: {TOO_LARGE}")


def _require_flow(model: Model, operator: Operator, ready: set[int]) -> None:
    """Refuse tensors that do not exist, are read before they are written, or written twice."""
    for number in operator.inputs:
        if number >= len(model.tensors) or number < -1:
            raise refusal(model, operator, f"reads tensor {number}, which does not exist")
        if number >= 0 and number not in ready:
            name = model.tensors[number].name
            raise refusal(model, operator, f"reads {name!r} before anything has written it")
    for place, number in enumerate(operator.outputs):
        if not 0 <= number < len(model.tensors):
            raise refusal(model, operator, f"writes tensor {number}, which does not exist")
        if number in ready or number in operator.outputs[:place]:
            raise refusal(model, operator, f"writes {model.tensors[number].name!r} a second time")
        if math.prod(model.tensors[number].shape) > LARGEST:
            shape = list(model.tensors[number].shape)
            raise refusal(model, operator, f"its output of shape {shape} is {TOO_LARGE}")


def _unknown(model: Model, operator: Operator) -> ExportError:
    if operator.custom or operator.code == "CUSTOM" or operator.code.startswith("Flex"):
        return refusal(
            model,
            operator,
            "is a custom operator, which no microcontroller code is known for",
            "use layers that convert to builtin operators",
        )
    remedy = INSTEAD.get(operator.code, f"computed are {', '.join(sorted(LOWERINGS))}")
    return refusal(model, operator, "is not computed on microcontrollers here", remedy)
