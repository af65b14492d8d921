"""The accuracy that the chip will have, measured where the data is.

A client runs the integer program in NumPy (executor.py), which gives the chip's own bits, and the
float model beside it, on its own rows. It reports sums over its rows: no row leaves it, and no
chip is needed. NumPy and the LiteRT runtime are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fedsys.edge.calibration.ranges import outputs as float_outputs
from fedsys.edge.integers.executor import run
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.model import Quantization, Tensor
from fedsys.errors import DataError
from fedsys.objectives import Objective
from fedsys.partition import Partition

Answer = Callable[[np.ndarray], np.ndarray]
"""[n, ...] rows -> [n, ...] float32 outputs."""


@dataclass(frozen=True)
class Scores:
    """What one client reports about a model's float and integer forms.

    rows: how many it has. floating, integer: metrics as means over its rows. agreement: part of
    the rows with the same top class, or the same side of zero for one output; None for targets
    that are no classes. rmse: root mean square of the difference of the outputs.
    """

    rows: int
    floating: Mapping[str, float]
    integer: Mapping[str, float]
    agreement: float | None
    rmse: float


@dataclass(frozen=True)
class Comparison:
    """The reports of all clients that hold rows, in order of their numbers.

    clients: their numbers. scores: their reports.
    """

    clients: tuple[int, ...]
    scores: tuple[Scores, ...]

    def summary(self) -> dict[str, float]:
        """Each figure weighted by rows; its spread (standard deviation over clients) and the worst
        client's as `NAME_spread` and `NAME_worst`.

        Figures: `float_METRIC`, `int8_METRIC`, `drop` (of accuracy, float less int8), `agreement`,
        `rmse`. Those of a metric that the objective lacks are missing.
        """
        rows = np.array([each.rows for each in self.scores], np.float64)
        said: dict[str, float] = {}
        for name, values in self._figures().items():
            least = "loss" in name or name in ("drop", "rmse")
            mean = float(np.average(values, weights=rows))
            if name == "rmse":  # of all rows, not the mean of roots
                mean = float(np.sqrt(np.average(values**2, weights=rows)))
            said[name] = mean
            said[f"{name}_spread"] = float(values.std())
            said[f"{name}_worst"] = float(values.max() if least else values.min())
        return said

    def _figures(self) -> dict[str, np.ndarray]:
        """Figure -> [clients]."""
        found: dict[str, list[float]] = {}
        for each in self.scores:
            figures = {f"float_{name}": value for name, value in each.floating.items()}
            figures |= {f"int8_{name}": value for name, value in each.integer.items()}
            if "accuracy" in each.floating:
                figures["drop"] = each.floating["accuracy"] - each.integer["accuracy"]
            if each.agreement is not None:
                figures["agreement"] = each.agreement
            for name, value in {**figures, "rmse": each.rmse}.items():
                found.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in found.items()}

    def table(self) -> dict[str, Any]:
        """Plain values, for a report in JSON."""
        return {
            "clients": len(self.clients),
            "rows": sum(each.rows for each in self.scores),
            **self.summary(),
        }


def stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Float values as a tensor stores them, as the chip's glue does it.

    values / scale in float32, rounded half away from zero, plus the zero point, saturated. A
    float tensor stores them as they are.
    """
    if tensor.dtype.kind == "f":
        return values.astype(tensor.dtype)
    scale, zero_point = _affine(tensor)
    with np.errstate(over="ignore"):
        ratio = (values.astype(np.float32) / np.float32(scale)).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(ratio) + 0.5), ratio) + zero_point
    limits = np.iinfo(tensor.dtype)
    return np.clip(rounded, limits.min, limits.max).astype(tensor.dtype)


def real(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Stored values of a tensor as float32."""
    if tensor.dtype.kind == "f":
        return values.astype(np.float32)
    scale, zero_point = _affine(tensor)
    return np.float32(scale) * (values.astype(np.int32) - zero_point).astype(np.float32)


def _affine(tensor: Tensor) -> tuple[float, int]:
    found: Quantization | None = tensor.quantization
    if found is None or found.per_channel:
        raise DataError(f"tensor {tensor.name!r} has no one scale: give an int8 model")
    return float(found.scale[0]), int(found.zero_point[0])


def integer_outputs(program: Program, rows: np.ndarray) -> np.ndarray:
    """What the chip answers for float rows: [n, *output shape] float32, of a model of one input
    and one output.

    Raises DataError where rows do not fit the model or are not finite.
    """
    model = program.model
    rows = np.asarray(rows)
    if not np.isfinite(rows).all():
        raise DataError("rows have a NaN or infinite value: mend or drop them")
    source, target = model.tensors[model.inputs[0]], model.tensors[model.outputs[0]]
    return real(run(program, stored(rows, source)), target)


def chip_answer(program: Program) -> Answer:
    """Answers with the bits of the chip."""
    return partial(integer_outputs, program)


def score_client(
    answer: Answer,
    float_model: bytes,
    objective: Objective,
    rows: np.ndarray,
    labels: np.ndarray,
) -> Scores:
    """What a client with at least one row reports. answer: of the exported model, `chip_answer` for
    one on integers. labels: [n], as the objective reads them."""
    if not len(rows):
        raise DataError("a client without rows has no scores")
    floating = float_outputs(float_model, rows)
    integer = answer(rows)
    difference = integer.astype(np.float64) - floating
    return Scores(
        len(rows),
        _means(objective, labels, floating),
        _means(objective, labels, integer),
        _agreement(objective, floating, integer),
        float(np.sqrt((difference**2).mean())),
    )


def _means(objective: Objective, labels: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    return {name: float(each(labels, outputs).mean()) for name, each in objective.metrics.items()}


def _agreement(objective: Objective, first: np.ndarray, second: np.ndarray) -> float | None:
    if "accuracy" not in objective.metrics:
        return None
    if first.reshape(len(first), -1).shape[1] == 1:
        return float(((first > 0) == (second > 0)).mean())
    return float((first.argmax(axis=-1) == second.argmax(axis=-1)).mean())


def compare(
    answer: Answer,
    float_model: bytes,
    objective: Objective,
    clients: Iterable[tuple[int, np.ndarray, np.ndarray]],
) -> Comparison:
    """Asks clients for their scores. clients: (number, rows, labels) of each; those without rows
    are passed over. Raises DataError where nobody has any.
    """
    numbers, scores = [], []
    for client, rows, labels in clients:
        if len(rows):
            numbers.append(client)
            scores.append(score_client(answer, float_model, objective, rows, labels))
    if not scores:
        raise DataError("no client has rows to evaluate on")
    return Comparison(tuple(numbers), tuple(scores))


def compare_clients(
    answer: Answer,
    float_model: bytes,
    objective: Objective,
    inputs: np.ndarray,
    labels: np.ndarray,
    partition: Partition,
    *,
    cohort: Sequence[int] | None = None,
    rows: int | None = None,
) -> Comparison:
    """As `compare`, over the clients of a partition of rows, such as a run's.

    cohort: the clients that are asked; all by default. rows: at most so many of each.
    """
    return compare(
        answer,
        float_model,
        objective,
        (
            (client, inputs[held], labels[held])
            for client in (range(len(partition)) if cohort is None else cohort)
            for held in [partition[client][:rows]]
        ),
    )
