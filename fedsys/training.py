"""Local training as one pure function, compiled once for a model.

`LocalTraining` is a Keras model, an objective, a `Local` and a correction as a function that
trains some clients one after another, from the same anchor, and returns the weighted sum of how
far they moved. One client is a sum of one, so the same function serves the fused cohort and the
client whose update is looked at by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedsys.layout import Layout, buffers
from fedsys.local import Local
from fedsys.objectives import Objective
from fedsys.plan import Plan
from fedsys.randomness import Purpose, hashed
from fedsys.task import Examples

Correction = Callable[..., Any]
"""(gradient, weights, anchor, *memory) -> gradient, tensor by tensor; see `Strategy.correct`."""

# Layers that treat each row by itself and cost little beside their matrix products. For a
# network of these alone XLA is the fastest on a CPU; its convolutions, batch normalisation and
# dropout are 5 to 30 times slower than the ordinary graph's.
DENSE_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Rescaling,
)


@dataclass(frozen=True)
class Moved:
    """What training some clients gave.

    total: [length of the layout], sum over the clients of weight times movement; a client whose
        movement is not finite adds nothing.
    losses: [clients], mean training loss of each client over its steps.
    finite: [clients], whether the client's movement is finite.
    """

    total: np.ndarray
    losses: np.ndarray
    finite: np.ndarray


def prefers_xla(model: keras.Model, local: Local) -> bool:
    """Whether XLA is the faster way to train this model.

    Decided by the layers alone, so that a run is the same on every machine. Batches of all rows
    differ in size from client to client, which XLA would have to compile anew each time.
    """
    return local.batch > 0 and all(
        type(operation) in DENSE_LAYERS for operation in operations(model)
    )


def operations(model: keras.Model) -> list[Any]:
    """Layers and other operations of a model, those of models inside it included. A model with
    code of its own in `call` counts as one operation: what it does is not known."""
    if not type(model).__module__.startswith("keras."):
        return [model]
    inner = model.operations if hasattr(model, "operations") else model.layers
    return [
        found
        for operation in inner
        for found in (operations(operation) if isinstance(operation, keras.Model) else [operation])
    ]


def batch_layers(model: keras.Model) -> list[str]:
    """Names of the layers that compute over the rows of a batch together."""
    return [
        operation.name
        for operation in operations(model)
        if isinstance(operation, keras.layers.BatchNormalization)
    ]


def random_layers(model: keras.Model) -> list[int]:
    """Places, among the model's non-trainable variables, of the seeds of dropout and its like."""
    states = {
        id(generator.state)
        for layer in model._flatten_layers()
        for generator in layer._seed_generators
    }
    return [i for i, v in enumerate(model.non_trainable_variables) if id(v) in states]


def client_seeds(seed: int, round: int, clients: np.ndarray, layers: int) -> np.ndarray:
    """[clients, layers, 2] uint32: the state each random layer starts from at each client."""
    drawn = hashed(
        seed, Purpose.LAYERS, round, np.asarray(clients)[:, None, None], np.arange(layers)[:, None]
    )
    words = np.concatenate([drawn >> np.uint64(32), drawn & np.uint64(0xFFFFFFFF)], axis=-1)
    return words.astype(np.uint32)


class LocalTraining:
    """The local training of a model on some examples, compiled when it is first called.

    model, objective: what is trained, and the loss. local: how. correct: see `Correction`.
    examples: all rows of all clients; a plan says which of them a client uses.
    xla: compile with XLA, which needs a fixed batch size and layers that treat rows by themselves.
    """

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        local: Local,
        correct: Correction,
        examples: Examples,
        *,
        xla: bool,
    ) -> None:
        self.layout = Layout.of(model)
        self._model = model
        self._objective = objective
        self._local = local
        self._correct = correct
        self._inputs = tf.constant(examples.inputs)
        self._labels = tf.constant(examples.labels)
        self._xla = xla
        self._parts = Parts(model, self.layout)
        self._floating = tf.as_dtype(self.layout.dtype)
        self._capacity: tuple[int, ...] = (1, 1, 1)
        self._graphs: dict[int, Any] = {}
        self._tracing = Lock()

    def reserve(self, plan: Plan) -> None:
        """Makes room for any part of a plan, so that XLA, which compiles anew for arrays of other
        lengths, meets few: room grows by doubling, and stays."""
        needed = len(plan.rows), len(plan.begin), len(plan)
        self._capacity = _doubled(needed, self._capacity)

    def __call__(
        self,
        anchor: np.ndarray,
        plan: Plan,
        weights: np.ndarray,
        seeds: np.ndarray,
        memory: tuple[np.ndarray, ...] = (),
        *,
        launching: Callable[[], None] = lambda: None,
    ) -> Moved:
        """Trains the clients of a plan, each from the anchor. Threads may call it side by side.

        anchor: [layout length]. weights: [clients]. seeds: `client_seeds` of the clients.
        memory: vectors of [parameters] for the correction, the same for every client of the call.
        launching: called when all that is left to do needs no Python.
        """
        clients = len(plan)
        weights = weights.astype(self.layout.dtype)
        arrays = [plan.rows, plan.begin, plan.length, plan.first, weights, seeds]
        if self._xla:
            needed = len(plan.rows), len(plan.begin), clients
            rows, steps, places = _doubled(needed, self._capacity)
            lengths = rows, steps, steps, places + 1, places, places
            arrays = [_padded(array, length) for array, length in zip(arrays, lengths, strict=True)]
        tensors = [tf.constant(array) for array in (anchor, *arrays, np.int32(clients), *memory)]
        graph = self._graph(len(memory))
        launching()
        total, losses, finite = graph(*tensors)
        return Moved(total.numpy(), losses.numpy()[:clients], finite.numpy()[:clients])

    def _graph(self, memories: int) -> Any:
        """The graph of `_lane`, traced once, for arrays of any length."""
        with self._tracing:
            if memories not in self._graphs:
                numbers = tf.TensorSpec([None], tf.int32)
                vector = tf.TensorSpec([self.layout.parameters], self._floating)
                lane = tf.function(self._lane, jit_compile=self._xla, autograph=False)
                self._graphs[memories] = lane.get_concrete_function(
                    tf.TensorSpec([self.layout.length], self._floating),
                    *[numbers] * 4,
                    tf.TensorSpec([None], self._floating),
                    tf.TensorSpec([None, self._parts.layers, 2], tf.uint32),
                    tf.TensorSpec([], tf.int32),
                    *[vector] * memories,
                )
            return self._graphs[memories]

    # --- inside the graph ------------------------------------------------------------------------

    def _lane(
        self,
        anchor: Any,
        rows: Any,
        begin: Any,
        length: Any,
        first: Any,
        weights: Any,
        seeds: Any,
        clients: Any,
        *memory: Any,
    ) -> tuple[Any, Any, Any]:
        """The fields of `Moved` for the first `clients` of a plan, one client after another."""

        def client(c: Any, total: Any, losses: Any, finites: Any) -> tuple[Any, ...]:
            span = first[c], first[c + 1]
            moved, loss, finite = self._client(
                anchor, rows, begin, length, span, weights[c], seeds[c], memory
            )
            return c + 1, total + moved, losses.write(c, loss), finites.write(c, finite)

        def each(dtype: Any) -> Any:
            return tf.TensorArray(dtype, size=tf.shape(weights)[0], element_shape=[])

        _, total, losses, finites = tf.while_loop(
            lambda c, *_: c < clients,
            client,
            (0, tf.zeros_like(anchor), each(self._floating), each(tf.bool)),
            parallel_iterations=1,
        )
        return total, losses.stack(), finites.stack()

    def _client(
        self,
        anchor: Any,
        rows: Any,
        begin: Any,
        length: Any,
        span: Any,
        weight: Any,
        seeds: Any,
        memory: Any,
    ) -> tuple[Any, Any, Any]:
        """How far one client moved times its weight, its mean loss, and whether all of that is
        finite; where it is not, the movement counts as none."""
        # Cut up here and not once for all clients: so XLA's loops keep to the thread they run on.
        start, state = self._parts.split(anchor)
        state = self._parts.seeded(state, seeds)
        remembered = [self._parts.trainable(vector) for vector in memory]

        def step(s: Any, trained: Any, state: Any, slots: Any, total: Any) -> tuple[Any, ...]:
            chosen, mask = self._batch(rows, begin[s], length[s])
            value, gradients, state = self._gradients(trained, state, chosen, mask)
            gradients = [
                self._correct(*tensors)
                for tensors in zip(gradients, trained, start, *remembered, strict=True)
            ]
            if self._local.clip is not None:
                gradients, _ = tf.clip_by_global_norm(gradients, self._local.clip)
            count = tf.cast(s - span[0] + 1, self._floating)
            stepped = [
                self._local.optimizer.step(weight, gradient, slot, self._local.rate, count)
                for weight, gradient, slot in zip(trained, gradients, slots, strict=True)
            ]
            trained, slots = [weight for weight, _ in stepped], [slot for _, slot in stepped]
            return s + 1, trained, state, slots, total + value

        slots = [self._local.optimizer.slots(tensor) for tensor in start]
        _, trained, state, _, total = tf.while_loop(
            lambda s, *_: s < span[1],
            step,
            (span[0], list(start), state, slots, tf.zeros([], self._floating)),
            parallel_iterations=1,
        )
        moved = weight * (self._parts.join(trained, state) - anchor)
        finite = tf.reduce_all(tf.math.is_finite(moved))
        steps = tf.cast(tf.maximum(span[1] - span[0], 1), self._floating)
        return tf.where(finite, moved, tf.zeros_like(moved)), total / steps, finite

    def _batch(self, rows: Any, begin: Any, length: Any) -> tuple[Any, Any]:
        """The data rows of a step and, for XLA, whose shapes are fixed, which of them count."""
        if not self._xla:
            return rows[begin : begin + length], None
        places = tf.range(self._local.batch)
        mask = places < length
        # A row that does not count repeats the first: nothing of another client enters.
        return tf.gather(rows, begin + tf.where(mask, places, 0)), mask

    def _gradients(self, weights: Any, state: Any, rows: Any, mask: Any) -> tuple[Any, Any, Any]:
        """The mean loss on some rows with the model's own penalties, its gradient by each
        weight, and the state that the forward pass leaves."""
        inputs, labels = tf.gather(self._inputs, rows), tf.gather(self._labels, rows)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, state, penalties = self._model.stateless_call(
                weights, state, inputs, training=True, return_losses=True
            )
            each = self._objective.loss(labels, outputs)
            if mask is None:
                mean = tf.reduce_mean(each)
            else:
                counted = tf.reduce_sum(tf.cast(mask, each.dtype))
                mean = tf.reduce_sum(tf.where(mask, each, 0)) / counted
            loss = tf.add_n([tf.cast(part, self._floating) for part in (mean, *penalties)])
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients], state


class Parts:
    """Takes the weight vector apart and together again, inside a graph.

    The model's non-trainable variables, in the order that `stateless_call` wants, are buffers
    (in the vector), states of random layers (given for each client) and counters (left as built).
    """

    def __init__(self, model: keras.Model, layout: Layout) -> None:
        self.layout = layout
        variables = list(model.non_trainable_variables)
        averaged = {id(variable) for variable in buffers(model)}
        self.built = [tf.constant(np.asarray(variable)) for variable in variables]
        self.buffers = [i for i, variable in enumerate(variables) if id(variable) in averaged]
        self.random = random_layers(model)
        self.layers = len(self.random)

    def trainable(self, vector: Any) -> list[Any]:
        """The trainable tensors of a vector of [parameters]."""
        return _cut(vector, self.layout.shapes[: self.layout.trainable])

    def split(self, vector: Any) -> tuple[list[Any], list[Any]]:
        """The trainable tensors, and the state to start from but for its seeds."""
        tensors = _cut(vector, self.layout.shapes)
        state = list(self.built)
        for place, tensor in zip(self.buffers, tensors[self.layout.trainable :], strict=True):
            state[place] = tf.cast(tensor, state[place].dtype)
        return tensors[: self.layout.trainable], state

    def seeded(self, state: list[Any], seeds: Any) -> list[Any]:
        """The state with the random layers' seeds, [layers, 2], in it."""
        state = list(state)
        for layer, place in enumerate(self.random):
            state[place] = tf.cast(seeds[layer], state[place].dtype)
        return state

    def join(self, trained: list[Any], state: list[Any]) -> Any:
        """The vector of trained weights and the state's buffers."""
        tensors = trained + [state[place] for place in self.buffers]
        dtype = tf.as_dtype(self.layout.dtype)
        return tf.concat([tf.cast(tf.reshape(tensor, [-1]), dtype) for tensor in tensors], 0)


def _cut(vector: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """A vector as tensors of these shapes, one after another."""
    pieces = tf.split(vector, [math.prod(shape) for shape in shapes])
    return [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _doubled(needed: tuple[int, ...], capacity: tuple[int, ...]) -> tuple[int, ...]:
    """The capacity, doubled where it does not hold what is needed until it does."""
    return tuple(max(c, 1 << (n - 1).bit_length()) for n, c in zip(needed, capacity, strict=True))


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with its first axis grown by zeros."""
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
