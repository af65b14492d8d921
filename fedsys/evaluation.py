"""Evaluation of a global model: on the server's rows, and on each client's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from fedsys.layout import Layout
from fedsys.objectives import Objective
from fedsys.partition import Partition
from fedsys.parts import Parts
from fedsys.setting import Setting
from fedsys.task import Examples

CHUNK = 2048
"""Rows of a forward pass: bounds memory, and gives the threads something to share."""


class Scorer:
    """Runs a model forward on rows like `inputs`, with weights that are given as a vector."""

    def __init__(self, model: keras.Model, inputs: np.ndarray, workers: int | None = None) -> None:
        layout = Layout.of(model)
        parts = Parts(model, layout)
        self._threads = ThreadPoolExecutor(workers or os.cpu_count() or 1)
        vector_spec = tf.TensorSpec([layout.length], layout.dtype)
        inputs_spec = tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)

        @tf.function(autograph=False, input_signature=[vector_spec, inputs_spec])
        def forward(vector: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
            weights, state = parts.split(vector)
            outputs, _ = model.stateless_call(weights, state, inputs, training=False)
            return outputs

        self._forward = forward.get_concrete_function()  # once, before the threads ask for it

    def outputs(self, vector: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """[rows, ...], the model's outputs on all rows."""
        weights = tf.constant(vector)
        chunks = [inputs[low : low + CHUNK] for low in range(0, len(inputs), CHUNK)]

        def run(chunk: np.ndarray) -> np.ndarray:
            outputs: np.ndarray = self._forward(weights, tf.constant(chunk)).numpy()
            return outputs

        return np.concatenate(list(self._threads.map(run, chunks)))


@dataclass(frozen=True)
class ClientScores:
    """Metrics of the global model on each client's rows.

    rows: [clients]; metrics: name -> [clients], NaN for a client without rows.
    """

    rows: np.ndarray
    metrics: Mapping[str, np.ndarray]

    def summary(self) -> dict[str, float]:
        """Weighted mean, spread (standard deviation over clients that have rows) and worst
        client of each metric."""
        held = self.rows > 0
        said: dict[str, float] = {}
        for name, values in self.metrics.items():
            worst = np.max if name == "loss" else np.min
            said[name] = float(np.average(values[held], weights=self.rows[held]))
            said[f"{name}_spread"] = float(values[held].std())
            said[f"{name}_worst"] = float(worst(values[held]))
        return said


def score(objective: Objective, labels: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """The objective's metrics over some rows; with an AUC where outputs rank a positive class."""
    metrics = {
        name: float(each(labels, outputs).mean()) for name, each in objective.metrics.items()
    }
    if objective.ranks and 0 < labels.sum() < len(labels):
        from sklearn.metrics import roc_auc_score

        metrics["auc"] = float(roc_auc_score(labels, outputs.reshape(-1)))
    return metrics


def score_clients(
    objective: Objective, examples: Examples, outputs: np.ndarray, partition: Partition
) -> ClientScores:
    """The objective's metrics on the rows of each client."""
    rows = partition.sizes
    held = np.flatnonzero(rows)
    metrics = {}
    for name, each in objective.metrics.items():
        values = each(examples.labels, outputs)[partition.order]
        means = np.full(len(partition), np.nan)
        means[held] = np.add.reduceat(values, partition.start[:-1][held]) / rows[held]
        metrics[name] = means
    return ClientScores(rows, metrics)


class Evaluator:
    """Scores the global model on the rows of a setting."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._scorer = Scorer(setting.model, setting.task.test.inputs)
        self._examples, self._partition = _client_rows(setting)
        self._last: tuple[np.ndarray, ClientScores] | None = None

    def due(self, round: int, weights: np.ndarray) -> dict[str, float]:
        """The metrics that the experiment asks for after this round."""
        experiment = self._setting.experiment
        said: dict[str, float] = {}
        if _due(round, experiment.evaluate, experiment.rounds):
            said |= {f"test_{name}": value for name, value in self.test(weights).items()}
        if _due(round, experiment.evaluate_clients, experiment.rounds):
            summary = self.clients(weights).summary()
            said |= {f"clients_{name}": value for name, value in summary.items()}
        return said

    def test(self, weights: np.ndarray) -> dict[str, float]:
        """The metrics on the server's test set."""
        test = self._setting.task.test
        outputs = self._scorer.outputs(weights, test.inputs)
        return score(self._setting.objective, test.labels, outputs)

    def clients(self, weights: np.ndarray) -> ClientScores:
        """The metrics of each client; the last are kept, as a run's end asks for them twice."""
        if self._last is None or not np.array_equal(self._last[0], weights):
            outputs = self._scorer.outputs(weights, self._examples.inputs)
            scores = score_clients(
                self._setting.objective, self._examples, outputs, self._partition
            )
            self._last = weights, scores
        return self._last[1]


def _client_rows(setting: Setting) -> tuple[Examples, Partition]:
    """On which rows clients evaluate: test rows of their own where there are such, else the rows
    that they train on."""
    own = setting.task.client_test
    if own is None or own.owners is None or not setting.natural:
        return setting.task.train, setting.partition
    return own, Partition.of(own.owners, setting.clients)


def _due(round: int, every: int, last: int) -> bool:
    return round == last or (every > 0 and round % every == 0)
