"""How well an exported model decides, against its float model, on the rows that an export has.

A run's clients score it on rows of their own (evaluate.py) and send sums. Sample rows of a user
are scored here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsys.edge.evaluate import compare_clients, integer_outputs
from fedsys.edge.program import Program
from fedsys.edge.ranges import outputs as float_outputs
from fedsys.edge.report.figures import Score
from fedsys.edge.sources import Federation, Samples
from fedsys.errors import DataError


def federated_score(
    program: Program, floats: bytes, federation: Federation, cohort: Sequence[int], rows: int
) -> Score:
    """What a cohort reports. rows: at most so many of each client."""
    held = federation.held
    found = compare_clients(
        program, floats, federation.objective, held.inputs, held.labels, federation.held_by,
        cohort=cohort, rows=rows,
    )  # fmt: skip
    said = found.summary()
    metric = "accuracy" if "float_accuracy" in said else "loss"
    own = "training" if held is federation.task.train else "test"
    return Score(
        metric,
        said[f"float_{metric}"],
        said[f"int8_{metric}"],
        said.get("agreement"),
        sum(each.rows for each in found.scores),
        len(found.clients),
        f"by each client on its own {own} rows",
    )


def sample_score(program: Program, floats: bytes, samples: Samples) -> Score:
    """On sample rows: the accuracy where they bear labels, and in how many both decide alike."""
    floating = float_outputs(floats, samples.inputs)
    integer = integer_outputs(program, samples.inputs)
    decided = _classes(program, floating), _classes(program, integer)
    accuracy: list[float | None] = [None, None]
    if samples.labels is not None:
        classes = max(2, floating.reshape(len(floating), -1).shape[1])
        if samples.labels.max() >= classes:
            raise DataError(
                f"`labels` go up to {samples.labels.max()} but the model has {classes} classes: "
                "number them from 0"
            )
        accuracy = [float((each == samples.labels).mean()) for each in decided]
    alike = float((decided[0] == decided[1]).mean())
    where = "on the rows of --calibration"
    return Score("accuracy", accuracy[0], accuracy[1], alike, len(samples.inputs), 0, where)


def _classes(program: Program, outputs: np.ndarray) -> np.ndarray:
    """[rows] the class of each: the largest output, or the side of the threshold of one."""
    flat = outputs.reshape(len(outputs), -1)
    if flat.shape[1] > 1:
        return flat.argmax(axis=1)
    # One output is a probability where the model ends in a sigmoid, else a logit.
    sigmoid = program.model.operators[-1].code == "LOGISTIC"
    return (flat[:, 0] > (0.5 if sigmoid else 0.0)).astype(np.int64)
