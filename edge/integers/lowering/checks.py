"""Checks that operators of one element at a time and copies share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsys.edge.integers.lowering.shared import (
    affine,
    input_tensor,
    output_tensor,
    refusal,
    require_shape,
)
from fedsys.edge.tflite.model import Model, Operator, Tensor
from fedsys.errors import ExportError


def computed(model: Model, operator: Operator, place: int) -> Tensor:
    """The input at a place, which must not be a constant."""
    tensor = input_tensor(model, operator, place)
    if tensor.constant:
        raise all_constant(model, operator)
    return tensor


def all_constant(model: Model, operator: Operator) -> ExportError:
    """The refusal of an operator that computes constants from constants."""
    return refusal(
        model,
        operator,
        "computes the same from constants each time",
        "convert the model again, so that the converter folds it into a constant",
    )


def result(model: Model, operator: Operator, shape: Sequence[int], place: int = 0) -> Tensor:
    """The output at a place, which must have this shape and at least one element."""
    tensor = output_tensor(model, operator, place)
    require_shape(model, operator, tensor, shape)
    if tensor.size == 0:
        raise refusal(model, operator, f"tensor {tensor.name!r} holds nothing")
    return tensor


def integers(model: Model, operator: Operator, place: int, what: str) -> list[int]:
    """The whole numbers of an input that must be a constant of int32 or int64, flat."""
    tensor = input_tensor(model, operator, place)
    if tensor.data is None:
        raise refusal(
            model,
            operator,
            f"its {what} {tensor.name!r} is computed, not a constant",
            "convert with a static batch of one and fixed shapes",
        )
    if tensor.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise refusal(model, operator, f"its {what} {tensor.name!r} is {tensor.dtype.name}")
    return [int(value) for value in tensor.data.ravel()]


def one_integer(model: Model, operator: Operator, place: int, what: str) -> int:
    """The same for an input of a single number."""
    numbers = integers(model, operator, place, what)
    if len(numbers) != 1:
        raise refusal(model, operator, f"its {what} has {len(numbers)} numbers, not 1")
    return numbers[0]


def dimension(model: Model, operator: Operator, axis: int, rank: int) -> int:
    """A dimension by its number, which may count from the end; refuses one that is not there."""
    if not -rank <= axis < rank:
        raise refusal(model, operator, f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


def require_same_quantization(model: Model, operator: Operator, tensors: Sequence[Tensor]) -> None:
    """Refuse int8 tensors of different scales or zero points, since bytes are copied."""
    first = affine(model, operator, tensors[0])
    for tensor in tensors[1:]:
        if affine(model, operator, tensor) != first:
            raise refusal(
                model,
                operator,
                f"tensors {tensors[0].name!r} and {tensor.name!r} have different scales, but "
                "TensorFlow Lite Micro copies their bytes as they are",
                "quantise them alike, with QUANTIZE between",
            )
