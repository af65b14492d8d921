"""A model's table read without Keras: is it one that may be built, and how large would it be?

Inputs and layers are numbered in one row; a layer reads from smaller numbers, so there are no
circles. Sizes are added up layer by layer and refused as soon as they are too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsys.errors import PolicyError, nearest
from fedsys.trust.architecture.layer_kind import Options, Shape
from fedsys.trust.architecture.layer_kinds import KINDS
from fedsys.trust.architecture.layer_options import Option, Several, Whole, Word, read_all

FORMAT = 1
DTYPES = ("float32", "float64")
INPUT_DTYPES = ("float32", "float64", "int32", "int64", "uint8")


@dataclass(frozen=True)
class Bounds:
    """How large a model may be.

    activations: numbers that all layers give for one row. work: multiplications for one row.
    """

    layers: int = 500
    inputs: int = 16
    parameters: int = 100_000_000
    activations: int = 50_000_000
    work: int = 100_000_000_000


@dataclass(frozen=True)
class Size:
    """What `check` found. shapes: of one row, by position; kinds: of the layers, in order."""

    parameters: int
    activations: int
    work: int
    shapes: tuple[Shape, ...]
    kinds: tuple[str, ...]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class Step:
    """A layer of a table that was found good. again: the position of the layer it is, or None."""

    kind: str
    reads: tuple[int, ...]
    options: Options
    trainable: bool
    again: int | None


@dataclass(frozen=True)
class Blueprint:
    """A whole table that was found good."""

    dtype: str
    inputs: tuple[tuple[Shape, str], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    size: Size


def check(table: Mapping[str, Any], bounds: Bounds | None = None) -> Size:
    """The model's size, if the table is one that may be built. Raises PolicyError."""
    return read_blueprint(table, bounds or Bounds()).size


# --- reading a table -----------------------------------------------------------------------------


def read_blueprint(table: Mapping[str, Any], bounds: Bounds) -> Blueprint:
    """The table, with everything in it checked. Raises PolicyError."""
    try:
        if not isinstance(table, Mapping):
            raise ValueError("must be a table")
        if table.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}: update fedsys on the older side")
        _fields(table, "format", "dtype", "inputs", "layers", "outputs")
        dtype = read_all({"dtype": Word(DTYPES)}, {"dtype": table["dtype"]})["dtype"]
        inputs = tuple(_input(one) for one in _list(table["inputs"], "inputs", bounds.inputs))
        shapes = [shape for shape, _ in inputs]
        steps: list[Step] = []
        parameters, activations, work = 0, sum(map(math.prod, shapes)), 0
        for one in _list(table["layers"], "layers", bounds.layers):
            where = f"layer {len(shapes)}"
            try:
                step = _step(one, steps, len(inputs), len(shapes))
                where += f" ({step.kind})"
                shape, count = _sized(step, shapes)
                work += _work(step, shapes, shape, count)
                if step.again is not None:
                    _same_inputs(step, steps[step.again - len(inputs)], shapes)
                    count = 0
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            parameters, activations = parameters + count, activations + math.prod(shape)
            if parameters > bounds.parameters:
                raise ValueError(f"{where}: more than {bounds.parameters} parameters up to here")
            if activations > bounds.activations:
                raise ValueError(
                    f"{where}: more than {bounds.activations} numbers a row up to here"
                )
            if work > bounds.work:
                raise ValueError(f"{where}: more than {bounds.work} multiplications a row")
            shapes.append(shape)
            steps.append(step)
        outputs = tuple(Several(Whole(0, len(shapes) - 1), None, 16).read(table["outputs"]))
        _all_used(inputs, steps, outputs)
    except ValueError as error:
        raise PolicyError(f"architecture: {error}") from None
    size = Size(parameters, activations, work, tuple(shapes), tuple(step.kind for step in steps),
                tuple(shapes[at] for at in outputs))  # fmt: skip
    return Blueprint(dtype, inputs, tuple(steps), outputs, size)


def _fields(table: Mapping[str, Any], *names: str) -> None:
    unknown = [name for name in table if name not in names]
    if unknown:
        raise ValueError(f"unknown field {str(unknown[0])[:40]!r}")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{missing[0]}: is missing")


def _list(item: Any, name: str, most: int) -> list[Any]:
    if not isinstance(item, list | tuple) or not 0 < len(item) <= most:
        raise ValueError(f"{name}: must be a list of 1 to {most}")
    return list(item)


def _input(one: Any) -> tuple[Shape, str]:
    if not isinstance(one, Mapping):
        raise ValueError("inputs: each must be a table")
    options: dict[str, Option] = {"shape": Several(Whole()), "dtype": Word(INPUT_DTYPES)}
    try:
        values = read_all(options, one)
    except ValueError as error:
        raise ValueError(f"inputs: {error}") from None
    return tuple(values["shape"]), values["dtype"]


def _step(one: Any, steps: list[Step], inputs: int, position: int) -> Step:
    if not isinstance(one, Mapping):
        raise ValueError("must be a table")
    if "again" in one:
        _fields(one, "again", "reads")
        first = one["again"]
        if type(first) is not int or not inputs <= first < position:
            raise ValueError("again: must be the number of a layer before it")
        if steps[first - inputs].again is not None:
            raise ValueError("again: must be the number where the layer stands first")
        whole = steps[first - inputs]
        return Step(whole.kind, _reads(one, position), whole.options, whole.trainable, first)
    _fields(one, "kind", "reads", "trainable", "options")
    kind = one["kind"]
    if type(kind) is not str or kind not in KINDS:
        raise ValueError(
            f"{str(kind)[:40]!r} is no layer that may travel; {nearest(str(kind)[:40], KINDS)}"
        )
    if type(one["trainable"]) is not bool:
        raise ValueError("trainable: must be true or false")
    if not isinstance(one["options"], Mapping):
        raise ValueError("options: must be a table")
    options = read_all(KINDS[kind].options, one["options"])
    return Step(kind, _reads(one, position), options, one["trainable"], None)


def _reads(one: Mapping[str, Any], position: int) -> tuple[int, ...]:
    try:
        return tuple(Several(Whole(0, position - 1), None, 64).read(one["reads"]))
    except ValueError as error:
        raise ValueError(f"reads: {error}, each before itself") from None


def _sized(step: Step, shapes: list[Shape]) -> tuple[Shape, int]:
    kind = KINDS[step.kind]
    read = [shapes[at] for at in step.reads]
    if kind.merges != (len(read) > 1):
        raise ValueError("reads several layers" if kind.merges else "reads one layer")
    shape = kind.shape(step.options, read)
    if min(shape, default=1) < 1:
        raise ValueError(f"nothing is left of rows of {list(read[0])}")
    return shape, kind.parameters(step.options, read)


def _work(step: Step, shapes: list[Shape], shape: Shape, parameters: int) -> int:
    """Multiplications for one row, or somewhat more: every weight at every place."""
    options = step.options
    if "pool_size" in options:
        return math.prod(options["pool_size"]) * math.prod(shape)
    if "kernel_size" in options or "units" in options:
        places = [math.prod(one[:-1]) for one in (shapes[step.reads[0]], shape)]
        return parameters * max(places)
    return math.prod(shape)


def _same_inputs(step: Step, first: Step, shapes: list[Shape]) -> None:
    if [shapes[at] for at in step.reads] != [shapes[at] for at in first.reads]:
        raise ValueError("again: reads rows of another shape than the first time")


def _all_used(
    inputs: tuple[tuple[Shape, str], ...], steps: list[Step], outputs: tuple[int, ...]
) -> None:
    used = {*outputs, *(at for step in steps for at in step.reads)}
    idle = [at for at in range(len(inputs) + len(steps)) if at not in used]
    if idle:
        raise ValueError(f"nothing reads from number {idle[0]}")
    if min(outputs) < len(inputs):
        raise ValueError("outputs: an input is no output")
