"""The TensorFlow Lite Micro interpreter, where its wheel is installed (Linux on x86-64).

It runs in a worker process: a model that it cannot take may end the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from fedsys.edge.code.arena import Arena
from fedsys.edge.conversion import worker
from fedsys.edge.integers.program import Convolution, DepthwiseConvolution, FullyConnected, Program
from fedsys.edge.project.golden import checksum
from fedsys.errors import ExportError

MARGIN_BYTES = 6144
MARGIN_PART = 0.25
MARGIN_REASON = (
    "kernels for a core with vectors need working room that these do not: up to 5.3 kB more was "
    "seen in the models of MLPerf Tiny on a Cortex-M55"
)


@dataclass(frozen=True)
class ArenaNeed:
    """Room that the interpreter needs. bytes: the least that works, or a bound.

    margin: what to add for other kernels. measured: whether the interpreter was run.
    """

    bytes: int
    margin: int
    measured: bool


def available() -> bool:
    """Whether the wheel is installed."""
    return find_spec("tflite_micro") is not None


def arena_need(tflite: bytes, program: Program, arena: Arena) -> ArenaNeed:
    """The arena of a model: measured, or bounded from the program where it cannot be."""
    size, measured = _bound(program, arena), False
    if available():
        try:
            found = worker.call(
                _least_arena, doing="measuring the arena", timeout=120, data=tflite, most=4 * size
            )
        except ExportError:
            found = None  # an operator that the wheel lacks, or an interpreter that crashed
        if found is not None:
            size, measured = int(found), True
    return ArenaNeed(size, max(MARGIN_BYTES, int(size * MARGIN_PART)), measured)


def layer_checks(
    tflite: bytes, inputs: Sequence[np.ndarray], tensors: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Checksums of tensors as the interpreter computes them: tensor -> one for each row.

    inputs: [rows, *shape in the file] for each input. ExportError where it cannot run the model.
    """
    found = worker.call(
        _checks,
        doing="running the TensorFlow Lite Micro interpreter",
        timeout=300,
        data=tflite,
        inputs=list(inputs),
        tensors=list(tensors),
    )
    return {tensor: tuple(checks) for tensor, checks in zip(tensors, found, strict=True)}


def _bound(program: Program, arena: Arena) -> int:
    """Bytes that should do: our plan, the inputs and outputs, and its notes on tensors and nodes.

    The interpreter keeps about 100 bytes a tensor, 300 an operator and 8 an output channel.
    """
    model = program.model
    ends = sum(model.tensors[number].bytes for number in (*model.inputs, *model.outputs))
    channels = sum(
        len(node.bias)
        for node in program.nodes
        if isinstance(node, Convolution | DepthwiseConvolution | FullyConnected)
    )
    notes = 100 * len(model.tensors) + 300 * len(model.operators) + 8 * channels + 2048
    return -(-(arena.size + ends + notes) // 16) * 16


def _runtime() -> Any:
    from tflite_micro.python.tflite_micro import runtime

    return runtime


def _least_arena(data: bytes, most: int) -> int | None:
    """The least multiple of 16 bytes with which the interpreter runs, by bisection; in a worker."""

    def works(size: int) -> bool:
        try:
            _runtime().Interpreter.from_bytes(data, arena_size=size).invoke()
        except (RuntimeError, ValueError):
            return False
        return True

    low, high = 0, -(-max(most, 65536) // 16)
    if not works(16 * high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(16 * middle) else (middle, high)
    return 16 * high


def _checks(data: bytes, inputs: Sequence[np.ndarray], tensors: Sequence[int]) -> list[list[int]]:
    """For each tensor, its checksum for each row; in a worker."""
    runtime = _runtime()
    room = 200_000 + 20 * len(data) + 40 * sum(array[:1].nbytes for array in inputs)
    found: list[list[int]] = [[] for _ in tensors]
    for row in range(len(inputs[0])):
        interpreter = runtime.Interpreter.from_bytes(
            data,
            arena_size=room,
            intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
        )
        for place, array in enumerate(inputs):
            interpreter.set_input(np.ascontiguousarray(array[row]), place)
        interpreter.invoke()
        for checks, tensor in zip(found, tensors, strict=True):
            checks.append(checksum(interpreter.GetTensor(int(tensor), 0)["tensor_data"]))
    return found
