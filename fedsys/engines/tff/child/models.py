"""A Keras 2 model from a neutral list of layers, as TensorFlow Federated wants a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff


def _classes(labels: Any, outputs: Any) -> Any:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), outputs)


def _binary(labels: Any, outputs: Any) -> Any:
    logits = tf.reshape(outputs, [-1])
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def _squared(labels: Any, outputs: Any) -> Any:
    values = tf.reshape(outputs, [-1])
    return 0.5 * tf.square(values - tf.cast(labels, values.dtype))


LOSSES = {"classes": _classes, "binary": _binary, "squared": _squared}
"""(labels [batch], outputs [batch, ...]) -> [batch]: what `fedsys.objectives` says of the names."""


class PlannedModel(tff.learning.models.VariableModel):
    """A model whose batches say, beside rows and labels, what fedsys' plan says of them.

    A batch has `x` [rows, ...], `y` [rows], `counts` (what the client counts for, on its first
    step, and 0 on the others) and `place` (which of the cohort the client is). `counts` is given
    as the number of examples, so that TFF weights a client by its rows and not by how often it
    visited them. The metrics are two vectors over the cohort, in which each client fills in its
    own place: their sums over the clients then say each client's own loss. TFF forgets the
    metrics of a client whose update is not finite, so its `steps` stay 0.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._model, self._weights = built(job)
        self._loss = LOSSES[job["objective"]]
        self._spec = spec(job)
        shape = [job["cohort"]]
        self._losses = tf.Variable(tf.zeros(shape), trainable=False, name="losses")
        self._steps = tf.Variable(tf.zeros(shape), trainable=False, name="steps")

    @property
    def trainable_variables(self) -> Sequence[Any]:
        return self._weights

    @property
    def non_trainable_variables(self) -> Sequence[Any]:
        return []

    @property
    def local_variables(self) -> Sequence[Any]:
        return [self._losses, self._steps]

    @property
    def input_spec(self) -> Any:
        return self._spec

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        return self._model(tf.cast(x, self._model.input.dtype), training=training)

    def forward_pass(self, batch_input: Any, training: bool = True) -> Any:
        outputs = self.predict_on_batch(batch_input["x"], training)
        terms = [tf.reduce_mean(self._loss(batch_input["y"], outputs)), *self._model.losses]
        loss = tf.add_n(terms)
        mine = tf.equal(tf.range(tf.shape(self._losses)[0]), batch_input["place"])
        self._losses.assign_add(tf.where(mine, loss, 0.0))
        self._steps.assign_add(tf.cast(mine, tf.float32))
        return tff.learning.models.BatchOutput(
            loss=loss, predictions=outputs, num_examples=batch_input["counts"]
        )

    def report_local_unfinalized_metrics(self) -> OrderedDict[str, Any]:
        return OrderedDict(losses=self._losses.read_value(), steps=self._steps.read_value())

    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        def as_they_are(values: Any) -> Any:
            return tf.identity(values)

        return OrderedDict(losses=as_they_are, steps=as_they_are)

    def reset_metrics(self) -> None:
        for variable in self.local_variables:
            variable.assign(tf.zeros_like(variable))


def spec(job: dict[str, Any]) -> OrderedDict[str, Any]:
    """What a batch is made of."""
    return OrderedDict(
        x=tf.TensorSpec([None, *job["shape"]], tf.as_dtype(job["inputs"])),
        y=tf.TensorSpec([None], tf.as_dtype(job["labels"])),
        counts=tf.TensorSpec([], tf.int64),
        place=tf.TensorSpec([], tf.int32),
    )


def built(job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The Keras 2 model of a job, and its variables in the order of the weight vector."""
    layers = {}
    inputs = tf.keras.Input(job["shape"], dtype=job["rows"])
    tensors = {"": inputs}
    for layer in job["layers"]:
        layers[layer["name"]] = made = _layer(layer)
        given = [tensors[name] for name in layer["inputs"]]
        tensors[layer["name"]] = made(given[0] if len(given) == 1 else given)
    model = tf.keras.Model(inputs, tensors[job["layers"][-1]["name"]])
    own = {name: list(made.trainable_weights) for name, made in layers.items()}
    variables = [own[name][place] for name, place in job["variables"]]
    found = [list(variable.shape) for variable in variables]
    if found != job["shapes"]:
        raise ValueError(f"Keras 2 made weights of shapes {found}, not {job['shapes']}")
    return model, variables


def _layer(layer: dict[str, Any]) -> Any:
    options = {name: _fixed(value) for name, value in layer["options"].items()}
    for name, penalty in layer["penalties"].items():
        options[name] = tf.keras.regularizers.L1L2(**penalty)
    return getattr(tf.keras.layers, layer["kind"])(**options, name=layer["name"])


def _fixed(value: Any) -> Any:
    """Lists of JSON as the tuples that Keras wants."""
    return tuple(_fixed(each) for each in value) if isinstance(value, list) else value
