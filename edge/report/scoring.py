"""How well an exported model decides, against its float model, on the rows that an export has.

A run's clients score it on rows of their own (evaluate.py) and send sums. Sample rows of a user
are scored here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsys.edge.calibration.ranges import outputs as float_outputs
from fedsys.edge.integers.evaluate import (
    Answer,
    compare_clients,
    real,
    stored,
)
from fedsys.edge.report.figures import Score
from fedsys.edge.sources import Federation, Samples
from fedsys.edge.tflite.model import Model
from fedsys.errors import DataError


def federated_score(
    answer: Answer, floats: bytes, federation: Federation, cohort: Sequence[int], rows: int
) -> Score:
    """What a cohort reports. rows: at most so many of each client."""
    held = federation.held
    found = compare_clients(
        answer, floats, federation.objective, held.inputs, held.labels, federation.held_by,
        cohort=cohort, rows=rows,
    )  # fmt: skip
    said = found.summary()
    metric = "accuracy" if "float_accuracy" in said else "loss"
    own = "training" if held is federation.task.train else "test"
    worst = said.get("drop_worst")
    return Score(
        metric,
        said[f"float_{metric}"],
        said[f"int8_{metric}"],
        said.get("agreement"),
        sum(each.rows for each in found.scores),
        len(found.clients),
        f"by each client on its own {own} rows",
        None if worst is None else 100 * worst,
    )


def runtime_answer(data: bytes, model: Model) -> Answer:
    """Answers of a .tflite file of one input and one output, by LiteRT on this machine."""
    from ai_edge_litert.interpreter import Interpreter

    entry, end = model.tensors[model.inputs[0]], model.tensors[model.outputs[0]]

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (last,) = interpreter.get_input_details(), interpreter.get_output_details()

    def answer(rows: np.ndarray) -> np.ndarray:
        said = []
        for row in stored(rows, entry):
            interpreter.set_tensor(given["index"], row[None])
            interpreter.invoke()
            said.append(interpreter.get_tensor(last["index"])[0])
        return real(np.array(said), end)

    return answer


def sample_score(answer: Answer, model: Model, floats: bytes, samples: Samples) -> Score:
    """On sample rows: the accuracy where they bear labels, and in how many both decide alike."""
    (inputs,) = samples.of([model.tensors[number].name for number in model.inputs])
    sigmoid = model.operators[-1].code == "LOGISTIC"
    both = [_flat(float_outputs(floats, inputs)), _flat(answer(inputs))]
    decided = [_classes(each, sigmoid) for each in both]
    accuracy: list[float | None] = [None, None]
    if samples.labels is not None:
        classes = max(2, both[0].shape[1])
        if samples.labels.max() >= classes:
            raise DataError(
                f"`labels` go up to {samples.labels.max()} but the model has {classes} classes: "
                "number them from 0"
            )
        accuracy = [float((each == samples.labels).mean()) for each in decided]
    alike = float((decided[0] == decided[1]).mean())
    where = "on the rows of --calibration"
    return Score("accuracy", accuracy[0], accuracy[1], alike, len(inputs), 0, where)


def _flat(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1)


def _classes(outputs: np.ndarray, sigmoid: bool) -> np.ndarray:
    """[rows] the class of each: the largest output, or the side of the threshold of one, which is
    a probability after a sigmoid and a logit else."""
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    return (outputs[:, 0] > (0.5 if sigmoid else 0.0)).astype(np.int64)
