"""Runs a program in NumPy on many rows at once, with the bits that the chip will have.

The arithmetic of each node lies in `kernels/`. Here is the order: rows go through in blocks, so
that the room needed does not grow with their number, and a value is dropped once nobody reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedsys.edge.integers.kernels import (
    Kernel,
    convolutions,
    elementwise,
    movement,
    pooling,
    softmax,
)
from fedsys.edge.integers.program import Node, Program
from fedsys.edge.tflite.model import Tensor
from fedsys.errors import DataError

KERNELS: Mapping[type[Node], Kernel] = {
    **convolutions.KERNELS,
    **pooling.KERNELS,
    **softmax.KERNELS,
    **elementwise.KERNELS,
    **movement.KERNELS,
}

# Numbers of one node's inputs and output held at once; kernels widen them to 8 bytes and more.
BLOCK = 2**20


def run(program: Program, rows: np.ndarray) -> np.ndarray:
    """The outputs for rows of a model with one input and one output.

    rows: [n, *input shape without the batch of one], of the input's type. Returns [n, *output
    shape without it]. DataError where the rows do not fit the model.
    """
    model = program.model
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise DataError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs: "
            "run takes models of one each; use trace"
        )
    inputs = _checked(program, [rows])
    (number,) = model.outputs
    output = model.tensors[number]
    results = np.empty((len(inputs[0]), *output.shape), output.dtype)
    for block in _blocks(program, len(results)):
        _compute(program, [given[block] for given in inputs], {number: results[block]})
    return _bare(results)


def trace(program: Program, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Every value of a run: tensor number -> [n, *shape without the batch of one].

    inputs: one array for each of the model's inputs, in order, each [n, ...] as in `run`. Holds
    the inputs and the output of every node, so its size grows with n times all activations.
    DataError where the inputs do not fit the model.
    """
    values = _checked(program, inputs)
    n = len(values[0]) if values else 1
    tensors = program.model.tensors
    results = dict(zip(program.model.inputs, values, strict=True))
    for node in program.nodes:
        output = tensors[node.output]
        results[node.output] = np.empty((n, *output.shape), output.dtype)
    for block in _blocks(program, n):
        keep = {number: array[block] for number, array in results.items()}
        _compute(program, [given[block] for given in values], keep)
    return {number: _bare(array) for number, array in results.items()}


def _compute(
    program: Program, inputs: Sequence[np.ndarray], keep: Mapping[int, np.ndarray]
) -> None:
    """Run the nodes on some rows and copy the tensors in `keep` there.

    inputs, keep: [n, *whole shape].
    """
    model = program.model
    n = len(inputs[0]) if inputs else 1
    readers = Counter(number for node in program.nodes for number in node.inputs)
    values: dict[int, np.ndarray] = dict(zip(model.inputs, inputs, strict=True))

    def value(number: int) -> np.ndarray:
        if number in values:
            return values[number]
        data = model.tensors[number].data
        assert data is not None, "lower saw to it that everything read is there"
        return np.broadcast_to(data, (n, *data.shape))

    for node in program.nodes:
        shape = model.tensors[node.output].shape
        given = [value(number) for number in node.inputs]
        result = KERNELS[type(node)](node, given, shape)
        values[node.output] = result
        if node.output in keep:
            keep[node.output][:] = result
        for number in node.inputs:
            readers[number] -= 1
            if not readers[number]:
                values.pop(number, None)
    for number in model.outputs:
        # An output that no node writes: an input, or a constant.
        if number in keep and all(node.output != number for node in program.nodes):
            keep[number][:] = (
                inputs[model.inputs.index(number)] if (number in model.inputs) else value(number)
            )


def _blocks(program: Program, n: int) -> Iterator[slice]:
    """Slices of rows, as many at once as `BLOCK` allows for the largest node."""
    tensors = program.model.tensors
    largest = max(
        (
            tensors[node.output].size + sum(tensors[number].size for number in node.inputs)
            for node in program.nodes
        ),
        default=1,
    )
    step = max(1, BLOCK // max(1, largest))
    return (slice(first, min(n, first + step)) for first in range(0, n, step))


def _checked(program: Program, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The inputs as [n, *whole shape] of their tensors' types; DataError where they do not fit."""
    model = program.model
    if len(inputs) != len(model.inputs):
        raise DataError(f"the model takes {len(model.inputs)} inputs, not {len(inputs)}")
    checked = [
        _fitting(model.tensors[number], np.asarray(rows))
        for number, rows in zip(model.inputs, inputs, strict=True)
    ]
    if len({len(rows) for rows in checked}) > 1:
        raise DataError(f"inputs have {', '.join(str(len(rows)) for rows in checked)} rows")
    return checked


def _fitting(tensor: Tensor, rows: np.ndarray) -> np.ndarray:
    """Rows as [n, *whole shape] of a tensor's type."""
    shape = _without_batch(tensor.shape)
    if rows.ndim == 0 or rows.shape[1:] != shape:
        raise DataError(
            f"rows for input {tensor.name!r} have shape {list(rows.shape)}, "
            f"not [rows{''.join(f', {size}' for size in shape)}]"
        )
    if rows.dtype != tensor.dtype:
        if not (tensor.dtype == np.float32 and rows.dtype.kind == "f"):
            raise DataError(
                f"rows for input {tensor.name!r} are {rows.dtype.name}, not {tensor.dtype.name}"
            )
        rows = rows.astype(np.float32)
    return rows.reshape(len(rows), *tensor.shape)


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape and shape[0] == 1 else shape


def _bare(values: np.ndarray) -> np.ndarray:
    """[n, *whole shape] without the batch of one."""
    return values.reshape(len(values), *_without_batch(values.shape[1:]))
