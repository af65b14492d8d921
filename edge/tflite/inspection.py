"""What is in a .tflite file, operator by operator, and what keeps it off a microcontroller.

For any file: float, hybrid, int8, ours or not. Nothing is run. What can be computed is asked of
`lower`, operator by operator, so that a file without obstacles is one that can be exported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsys.edge.integers.lower import INSTEAD, LOWERINGS, lower, refusals
from fedsys.edge.tflite.model import Model, Operator, Tensor
from fedsys.edge.tflite.reader import printable, read
from fedsys.errors import DataError, ExportError

_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})
QUANTIZE = "export the run or the .keras file that it was made of: `fedsys export` makes it int8"
BUILTIN = "use a layer that converts to builtin operators"
NAMED = 3
"""Operators that a line of the terminal names at most."""


@dataclass(frozen=True)
class Port:
    """An input or an output of the model; scale and zero point are None where it has none."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Step:
    """An operator.

    name: of its first output, which tells the layer. inputs, outputs: shapes, without constants.
    macs: multiply-accumulates an inference. parameters: weights and biases that it is the first
    to use. activation_bytes: of its outputs.
    """

    index: int
    code: str
    name: str
    dtype: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    macs: int
    parameters: int
    activation_bytes: int


@dataclass(frozen=True)
class Obstacle:
    """What stands against a microcontroller. operator: its index, or None for the whole model."""

    operator: int | None
    code: str
    name: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Inspection:
    """What is in a file.

    weight_bytes: constants, counted once. peak_bytes: most bytes of activations alive at one
    operator, its inputs and outputs included; an arena cannot be smaller without in-place work.
    """

    path: str
    file_bytes: int
    weight_bytes: int
    peak_bytes: int
    macs: int
    parameters: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Step, ...]
    obstacles: tuple[Obstacle, ...]

    def table(self) -> dict[str, Any]:
        """As `as_dict`."""
        return as_dict(self)


def inspect(path: Path | str) -> Inspection:
    """What is in a .tflite file. DataError where it is no sound one."""
    obstacles: list[Obstacle] = []
    try:
        model = read(path)
    except DataError as error:
        # Sizes left open are no reason to say nothing of the rest.
        model = read(path, dynamic=True)
        reason, _, remedy = (
            str(error).removeprefix(f"{printable(str(path), 200)}: ").partition("; ")
        )
        obstacles.append(Obstacle(None, "", "", reason, remedy))
    steps = tuple(_steps(model))
    obstacles.extend(_obstacles(model))
    return Inspection(
        path=str(path),
        file_bytes=model.bytes,
        weight_bytes=sum(tensor.bytes for tensor in model.tensors if tensor.constant),
        peak_bytes=peak(model),
        macs=sum(step.macs for step in steps),
        parameters=sum(step.parameters for step in steps),
        inputs=tuple(_port(model.tensors[n]) for n in model.inputs),
        outputs=tuple(_port(model.tensors[n]) for n in model.outputs),
        steps=steps,
        obstacles=tuple(obstacles),
    )


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """The inspection in what JSON knows."""
    return dataclasses.asdict(inspection)


def text(inspection: Inspection) -> str:
    """The inspection for a terminal."""
    lines = [f"{printable(inspection.path, 200)}: {inspection.file_bytes:,} bytes"]
    for what, ports in (("input", inspection.inputs), ("output", inspection.outputs)):
        for port in ports:
            scale = "" if port.scale is None else f", scale {port.scale:.6g}"
            zero = "" if port.zero_point is None else f", zero point {port.zero_point}"
            lines.append(f"{what}: {port.name}, {port.dtype} {_shape(port.shape)}{scale}{zero}")
    head = ("#", "operator", "layer", "type", "output", "MACs", "parameters", "bytes")
    rows = [
        (
            str(step.index),
            step.code,
            printable(step.name, 32),
            step.dtype,
            " ".join(map(_shape, step.outputs)),
            f"{step.macs:,}",
            f"{step.parameters:,}",
            f"{step.activation_bytes:,}",
        )
        for step in inspection.steps
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines.append("")
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if 0 < place < 5 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [
        "",
        f"{len(inspection.steps):,} operators, {inspection.macs:,} multiply-accumulates, "
        f"{inspection.parameters:,} parameters",
        f"constants {inspection.weight_bytes:,} of the file's {inspection.file_bytes:,} bytes; "
        f"activations at most {inspection.peak_bytes:,} bytes at once",
    ]
    if not inspection.obstacles:
        lines.append("nothing found that stands against running on a microcontroller")
    return "\n".join([*lines, *_told(inspection.obstacles)])


def _told(obstacles: Sequence[Obstacle]) -> Iterator[str]:
    """A line for all operators that the same stands against."""
    alike: dict[tuple[str, str], list[str]] = {}
    for found in obstacles:
        places = alike.setdefault((found.reason, found.remedy), [])
        if found.operator is not None:
            places.append(f"{found.operator} {found.code} ({printable(found.name, 32)})")
    for (reason, remedy), places in alike.items():
        where = ", ".join(places[:NAMED])
        if len(places) > NAMED:
            where += f" and {len(places) - NAMED} more"
        where += ": each " if len(places) > 1 else " " if places else ""
        yield f"obstacle: {where}{reason}{f'; {remedy}' if remedy else ''}"


# --- counting ------------------------------------------------------------------------------------


def macs(operator: Operator, tensors: Sequence[Tensor]) -> int:
    """Multiply-accumulates of an operator, borders counted as if inside the image.

    0 for what has no weights to multiply with, and for operators that are not known here.
    """
    shapes = [tensors[n].shape if n >= 0 else () for n in operator.inputs]
    if not operator.outputs or len(shapes) < 2:
        return 0
    output = math.prod(tensors[operator.outputs[0]].shape)
    first, kernel = shapes[0], shapes[1]
    if operator.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        # Inputs 1 to 8 are the gates' matrices, 16 the projection's.
        matrices = [shape for i, shape in enumerate(shapes) if 1 <= i <= 8 or i == 16]
        return math.prod(first[:-1]) * sum(math.prod(shape) for shape in matrices if shape)
    if not first or len(kernel) < 2:
        return 0
    if operator.code == "CONV_2D":
        return output * math.prod(kernel[1:])
    if operator.code == "DEPTHWISE_CONV_2D":
        return output * math.prod(kernel[1:3])
    if operator.code == "TRANSPOSE_CONV" and len(shapes) > 2:
        return math.prod(shapes[2]) * math.prod(kernel[:3])
    if operator.code == "FULLY_CONNECTED":
        return output * kernel[-1]
    if operator.code == "BATCH_MATMUL" and len(first) > 1:
        return output * (first[-2] if operator.options["adj_x"] else first[-1])
    if operator.code == "CONV_3D":
        return output * math.prod(kernel[:-1])
    return 0


def peak(model: Model) -> int:
    """Most bytes of activations alive at one operator."""
    tensors = model.tensors
    last = {n: i for i, op in enumerate(model.operators) for n in (*op.outputs, *op.inputs)}
    last.update(dict.fromkeys(model.outputs, len(model.operators)))
    # Variables live on from one inference to the next.
    variables = {tensor.index for tensor in tensors if tensor.variable}
    last.update(dict.fromkeys(variables, len(model.operators)))
    live = {*model.inputs, *variables}
    now = most = sum(tensors[n].bytes for n in live)
    for i, op in enumerate(model.operators):
        for number in op.outputs:
            live.add(number)
            now += tensors[number].bytes
        most = max(most, now)
        for number in {*op.inputs, *op.outputs} & live:
            if last[number] <= i:
                live.remove(number)
                now -= tensors[number].bytes
    return most


def _steps(model: Model) -> Iterator[Step]:
    seen: set[int] = set()
    for op in model.operators:
        inputs = [model.tensors[n] for n in op.inputs if n >= 0]
        outputs = [model.tensors[n] for n in op.outputs]
        new = {t.index: t for t in inputs if t.constant and _parameter(t) and t.index not in seen}
        seen.update(new)
        yield Step(
            index=op.index,
            code=op.code,
            name=_name(outputs),
            dtype=outputs[0].dtype.name if outputs else "",
            inputs=tuple(t.shape for t in inputs if not t.constant),
            outputs=tuple(t.shape for t in outputs),
            macs=macs(op, model.tensors),
            parameters=sum(t.size for t in new.values()),
            activation_bytes=sum(t.bytes for t in outputs),
        )


def _parameter(tensor: Tensor) -> bool:
    """Whether a constant is a weight or a bias, not an axis or a shape."""
    return tensor.dtype.kind == "f" or tensor.quantization is not None


# --- obstacles -----------------------------------------------------------------------------------


def _obstacles(model: Model) -> Iterator[Obstacle]:
    """What stands against each operator, in words that fit the whole file where there are such."""
    refused = refusals(model)
    found = False
    for op in model.operators:
        inputs = [model.tensors[n] for n in op.inputs if n >= 0]
        outputs = [model.tensors[n] for n in op.outputs]
        told = _reason(op, inputs, outputs)
        if told is None and op.index in refused:
            told = _parted(refused[op.index])
        if told is not None:
            found = True
            yield Obstacle(op.index, op.code, _name(outputs), *told)
    if not found:
        try:
            lower(model)
        except ExportError as error:  # of the whole, such as an input that is far too large
            yield Obstacle(None, "", "", *_parted(error))


def _parted(error: Exception) -> tuple[str, str]:
    """(what is wrong, what to do instead) of a refusal, which begins with operator and layer."""
    told = str(error)
    head, _, rest = told.partition("': ")
    told = rest if " of layer '" in head else told
    reason, _, remedy = told.partition("; ")
    return reason, remedy


def _reason(
    op: Operator, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[str, str] | None:
    """(what is wrong, what to do instead), or None."""
    if op.custom and op.code.startswith("Flex"):
        return "needs TensorFlow itself (Flex)", BUILTIN
    if op.custom:
        return "is a custom operator", BUILTIN
    sizes = op.code not in INSTEAD and outputs and all(map(_sizes, outputs))
    if op.code in ("SHAPE", "RANK") or sizes:
        return "computes shapes", "convert the model with a static batch of one"
    if op.code not in LOWERINGS:
        return None  # whatever it computes in: `lower` says what to use instead
    if any(t.dtype.name == "uint8" for t in (*inputs, *outputs)):
        return "works on uint8, which is out of use", QUANTIZE
    if any(t.dtype.name == "int16" for t in (*inputs, *outputs)):
        return "works on int16, which TensorFlow Lite Micro runs and generated C does not", QUANTIZE
    floats = [t for t in (*inputs, *outputs) if t.dtype.kind == "f" and not t.constant]
    weights = [t for t in inputs if t.constant and _parameter(t)]
    if floats and op.code in _WEIGHTED and any(t.dtype.kind == "i" for t in weights):
        return "is hybrid: integer weights, float activations", QUANTIZE
    if op.code == "DEQUANTIZE" and weights:
        return f"unpacks {weights[0].dtype.name} weights to float", QUANTIZE
    if floats and op.code not in ("QUANTIZE", "DEQUANTIZE"):
        return "computes in float", QUANTIZE + ", or replace a layer that stays float"
    return None


def _sizes(tensor: Tensor) -> bool:
    return tensor.dtype.name in ("int32", "int64") and tensor.quantization is None


def _port(tensor: Tensor) -> Port:
    scheme = tensor.quantization
    scale = None if scheme is None else float(scheme.scale[0])
    zero_point = None if scheme is None else int(scheme.zero_point[0])
    return Port(printable(tensor.name), tensor.dtype.name, tensor.shape, scale, zero_point)


def _name(outputs: Sequence[Tensor]) -> str:
    return printable(outputs[0].name) if outputs else ""


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
