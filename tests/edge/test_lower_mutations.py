"""Models with something changed at random: refused in a line, or a program that runs as it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.model import Model, Operator, Quantization, Tensor
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .networks import residual

NUMBERS = [-129, -2, -1, 0, 1, 2, 3, 7, 127, 128, 2**15, 2**31 - 1, 2**31, -(2**31), 2**40]
SCALES = [0.0, -1.0, 1e-30, 1e-6, 1e6, 1e30, np.nan, np.inf, 0.1]
TYPES = ["int8", "uint8", "int16", "int32", "int64", "float32", "bool"]
WORDS = ["SAME", "VALID", "NONE", "RELU", "TANH", "DEFAULT", "SHUFFLED4x16INT8"]


def reshaped(random: np.random.Generator, tensor: Tensor) -> Tensor:
    shape = list(tensor.shape)
    place = int(random.integers(len(shape))) if shape else 0
    match random.integers(4):
        case 0 if shape:
            shape.pop(place)
        case 1:
            shape.insert(place, int(random.integers(3)))
        case 2 if shape:
            shape[place] = int(random.choice([0, 1, 2, 17, 2**14, 2**31]))
        case _:
            shape.reverse()
    if tensor.data is None:
        return replace(tensor, shape=tuple(shape))
    if np.prod(shape, dtype=float) > 1e6:
        return tensor
    return replace(tensor, shape=tuple(shape), data=np.resize(tensor.data, shape))


def rescaled(random: np.random.Generator, tensor: Tensor) -> Tensor:
    old = tensor.quantization
    count = len(old.scale) if old is not None and random.integers(2) else int(random.integers(4))
    return replace(
        tensor,
        quantization=Quantization(
            np.full(count, random.choice(SCALES), np.float32),
            np.full(count, random.choice([-129, -128, 0, 0, 127, 128, 2**40])),
            int(random.integers(-1, 5)),
        ),
    )


def retyped(random: np.random.Generator, tensor: Tensor) -> Tensor:
    dtype = np.dtype(random.choice(TYPES))
    data = None if tensor.data is None else tensor.data.astype(dtype)
    return replace(tensor, dtype=dtype, data=data)


def refilled(random: np.random.Generator, tensor: Tensor) -> Tensor:
    if tensor.data is None or not tensor.size:
        return tensor
    data = tensor.data.copy()
    ends = np.iinfo(data.dtype)
    data.ravel()[random.integers(data.size)] = random.choice([ends.min, -1, 0, 9, ends.max])
    return replace(tensor, data=data)


def unquantized(random: np.random.Generator, tensor: Tensor) -> Tensor:
    return replace(tensor, quantization=None)


def reconnected(random: np.random.Generator, operator: Operator) -> Operator:
    inputs = list(operator.inputs)
    if not inputs:
        return operator
    if random.integers(3):
        inputs[random.integers(len(inputs))] = int(random.integers(-1, 14))
    else:
        inputs.pop()
    return replace(operator, inputs=tuple(inputs))


def reset(random: np.random.Generator, operator: Operator) -> Operator:
    if not operator.options:
        return operator
    name = str(random.choice(list(operator.options)))
    value: Any = operator.options[name]
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, int):
        value = int(random.choice(NUMBERS))
    elif isinstance(value, float):
        value = float(random.choice(SCALES))
    else:
        value = str(random.choice(WORDS))
    return replace(operator, options={**operator.options, name: value})


def renamed(random: np.random.Generator, operator: Operator) -> Operator:
    codes = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "MEAN", "SUM",
             "AVERAGE_POOL_2D", "MAX_POOL_2D", "SOFTMAX", "ADD", "NOTHING"]  # fmt: skip
    return replace(operator, code=str(random.choice(codes)))


OF_TENSORS: list[Callable[..., Tensor]] = [reshaped, rescaled, retyped, refilled, unquantized]
OF_OPERATORS: list[Callable[..., Operator]] = [reconnected, reset, renamed]


def mutated(random: np.random.Generator, model: Model) -> Model:
    change = random.integers(len(OF_TENSORS) + len(OF_OPERATORS))
    if change < len(OF_TENSORS):
        tensors = list(model.tensors)
        place = int(random.integers(len(tensors)))
        tensors[place] = OF_TENSORS[change](random, tensors[place])
        return replace(model, tensors=tuple(tensors))
    operators = list(model.operators)
    place = int(random.integers(len(operators)))
    operators[place] = OF_OPERATORS[change - len(OF_TENSORS)](random, operators[place])
    return replace(model, operators=tuple(operators))


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_model_is_refused_in_a_line_or_runs(seed):
    random = np.random.default_rng(seed)
    whole = read(residual())
    ran, refusals = 0, []
    for _ in range(1500):
        model = whole
        for _ in range(random.integers(1, 3)):
            model = mutated(random, model)
        try:
            program = lower(model)
        except ExportError as error:
            refusals.append(str(error))
            continue
        (number,) = model.inputs
        tensor = model.tensors[number]
        assert tensor.dtype == np.int8
        shape = tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape
        found = trace(program, [random.integers(-128, 128, (2, *shape)).astype(np.int8)])
        for node in program.nodes:
            output = model.tensors[node.output]
            assert found[node.output].size == 2 * output.size
            assert found[node.output].dtype == output.dtype
        ran += 1
    assert ran > 200 and len(refusals) > 400
    assert all(line and "\n" not in line for line in refusals)
