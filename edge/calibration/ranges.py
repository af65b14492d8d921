"""Ranges of a model's activations, measured where the data is.

A client runs the float model on its own rows and keeps the least and greatest value of every
activation. That is all it sends. It needs NumPy and the LiteRT runtime, no TensorFlow.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fedsys.edge.tflite.flatbuffer import schema, text, unpacked
from fedsys.errors import DataError

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name -> (least, greatest value) of every activation of a model."""

Rows = np.ndarray | Mapping[str, np.ndarray]
"""[rows, *input shape]; for a model of several inputs one such array for each, by name."""

FINITE = 3e38
"""Beyond it a value counts as infinite: padding may hold such, which no range should cover."""


def activations(float_model: bytes) -> dict[str, int]:
    """The float tensors that a model is given or computes, by name, with their dimensions.

    Those that nothing reads are left out, as the runtime may not compute them.
    """
    graph = unpacked(float_model).subgraphs[0]
    numbers = [*graph.inputs]
    read = {int(number) for number in graph.outputs}
    for operator in graph.operators:
        numbers.extend(operator.outputs)
        read.update(int(number) for number in operator.inputs)
    found = {}
    for number in numbers:
        tensor = graph.tensors[number]
        if tensor.type == schema.TensorType.FLOAT32 and number in read:
            found[text(tensor.name)] = 0 if tensor.shape is None else len(tensor.shape)
    return found


def calibrate(float_model: bytes, rows: Rows) -> dict[str, tuple[float, float]]:
    """The ranges of every activation over some rows; empty where there are none.

    Ranges of parts of the rows, merged by their envelope, are the ranges of all rows. Raises
    DataError where rows do not fit the model or are not finite.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for number, tensors in enumerate(traced(float_model, rows)):
        for name, values in tensors.items():
            low, high = _ends(values)
            if not low <= high:  # False for NaN, too
                raise DataError(
                    f"row {number}: the model's tensor {name!r} is not a number: the weights or "
                    "the data are too large"
                )
            if name in ranges:
                low, high = min(low, ranges[name][0]), max(high, ranges[name][1])
            ranges[name] = low, high
    return ranges


def traced(float_model: bytes, rows: Rows) -> Iterator[dict[str, np.ndarray]]:
    """Every activation by name, row by row. The arrays are valid until the next row."""
    interpreter = _interpreter(float_model)
    wanted = activations(float_model)
    numbers = {
        tensor["name"]: tensor["index"]
        for tensor in reversed(interpreter.get_tensor_details())
        if tensor["name"] in wanted
    }
    given = _checked(interpreter.get_input_details(), rows)
    for number in range(len(next(iter(given.values())))):
        for index, array in given.items():
            interpreter.set_tensor(index, array[number : number + 1])
        interpreter.invoke()
        yield {name: interpreter.get_tensor(numbers[name]) for name in wanted}


def outputs(float_model: bytes, rows: Rows) -> np.ndarray:
    """[n, *output shape] float32, what a float model of one output says about rows.

    Raises DataError where rows do not fit the model or are not finite.
    """
    interpreter = _interpreter(float_model, keep=False)
    (last,) = interpreter.get_output_details()
    given = _checked(interpreter.get_input_details(), rows)
    count = len(next(iter(given.values())))
    results = np.empty((count, *last["shape"][1:]), np.float32)
    for number in range(count):
        for index, array in given.items():
            interpreter.set_tensor(index, array[number : number + 1])
        interpreter.invoke()
        results[number] = interpreter.get_tensor(last["index"])[0]
    return results


def _interpreter(float_model: bytes, keep: bool = True) -> Any:
    """The runtime with a model. keep: whether every tensor can be looked at after a run."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # that keeping every tensor costs memory: it is meant
        interpreter = Interpreter(
            model_content=float_model, num_threads=1, experimental_preserve_all_tensors=keep
        )
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the runtime, which is C++, from telling standard error which kernels it has chosen."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _checked(inputs: list[dict[str, Any]], rows: Rows) -> dict[int, np.ndarray]:
    """Rows as float32 arrays by the number of the input, or DataError."""
    if not isinstance(rows, Mapping):
        if len(inputs) != 1:
            names = ", ".join(tensor["name"] for tensor in inputs)
            raise DataError(f"the model has {len(inputs)} inputs: give rows for each of {names}")
        rows = {inputs[0]["name"]: rows}
    checked = {}
    for tensor in inputs:
        name, shape = tensor["name"], tuple(int(size) for size in tensor["shape"][1:])
        if name not in rows:
            raise DataError(f"rows for the model's input {name!r} are missing")
        array = np.asarray(rows[name])
        if array.dtype.kind not in "biuf":
            raise DataError(f"rows must be numbers, not {array.dtype}")
        if array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise DataError(
                f"rows of shape {array.shape[1:]} for a model that reads {shape}: prepare them as "
                "for its training"
            )
        array = array.astype(np.float32)
        checked[int(tensor["index"])] = array
        wrong = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
        if len(wrong):
            raise DataError(f"row {wrong[0]} has a NaN or infinite value: mend or drop it")
    if len({len(array) for array in checked.values()}) > 1:
        raise DataError("the model's inputs have different numbers of rows")
    return checked


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if low > -FINITE and high < FINITE:
        return low, high
    finite = values[np.abs(values) < FINITE]
    return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
