"""Local training as one pure function, compiled once for a model.

`compile_training` turns a Keras model, an objective, a `Local` and a correction into a function
that trains some clients one after another, from the same anchor, and returns the weighted sum of
how far they moved. One client is a sum of one, so the same function serves the fused cohort and
the client whose update is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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


Training = Callable[..., Moved]
"""(anchor, plan, weights, seeds, memory) -> Moved; see `compile_training`."""


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


def compile_training(
    model: keras.Model,
    objective: Objective,
    local: Local,
    correct: Correction,
    examples: Examples,
    *,
    xla: bool,
) -> Training:
    """Compiles the local training of `model` on `examples`.

    The returned function takes the anchor ([layout length]), a plan, the clients' weights
    ([clients]), the seeds of random layers (`client_seeds`), and the memory of the correction: a
    tuple of vectors ([parameters]), the same for every client of the call.
    """
    layout = Layout.of(model)
    parts = Parts(model, layout)
    inputs, labels = tf.constant(examples.inputs), tf.constant(examples.labels)
    floating = tf.as_dtype(layout.dtype)

    def batch(rows: Any, begin: Any, length: Any) -> tuple[Any, Any]:
        """The data rows of a step and, for XLA, whose shapes are fixed, which of them count."""
        if not xla:
            return rows[begin : begin + length], None
        places = tf.range(local.batch)
        mask = places < length
        # A row that does not count repeats the first: nothing of another client enters.
        return tf.gather(rows, begin + tf.where(mask, places, 0)), mask

    def loss(weights: Any, state: Any, x: Any, y: Any, mask: Any) -> tuple[Any, Any]:
        outputs, state, penalties = model.stateless_call(
            weights, state, x, training=True, return_losses=True
        )
        each = objective.loss(y, outputs)
        if mask is None:
            value = tf.reduce_mean(each)
        else:
            value = tf.reduce_sum(tf.where(mask, each, 0)) / tf.reduce_sum(
                tf.cast(mask, each.dtype)
            )
        return tf.add_n([tf.cast(part, floating) for part in (value, *penalties)]), state

    def train_client(
        anchor: Any, state: Any, rows: Any, begin: Any, length: Any, span: Any, memory: Any
    ) -> tuple[Any, Any, Any]:
        """The weights, state and summed loss after the steps `span[0]` to `span[1]`."""

        def step(s: Any, weights: Any, state: Any, slots: Any, total: Any) -> tuple[Any, ...]:
            chosen, mask = batch(rows, begin[s], length[s])
            x, y = tf.gather(inputs, chosen), tf.gather(labels, chosen)
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value, state = loss(weights, state, x, y, mask)
            gradients = tape.gradient(value, weights, unconnected_gradients="zero")
            gradients = [
                correct(tf.convert_to_tensor(g), w, a, *m)
                for g, w, a, m in zip(gradients, weights, anchor, memory, strict=True)
            ]
            if local.clip is not None:
                gradients, _ = tf.clip_by_global_norm(gradients, local.clip)
            count = tf.cast(s - span[0] + 1, floating)
            stepped = [
                local.optimizer.step(w, g, slot, local.rate, count)
                for w, g, slot in zip(weights, gradients, slots, strict=True)
            ]
            weights, slots = [w for w, _ in stepped], [slot for _, slot in stepped]
            return s + 1, weights, state, slots, total + value

        slots = [local.optimizer.slots(weight) for weight in anchor]
        start = (span[0], list(anchor), state, slots, tf.zeros([], floating))
        _, weights, state, _, total = tf.while_loop(
            lambda s, *_: s < span[1], step, start, parallel_iterations=1
        )
        return weights, state, total

    def train_one(
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
        tensors, state = parts.split(anchor)
        state = parts.seeded(state, seeds)
        remembered = list(zip(*(parts.split_trainable(m) for m in memory), strict=True))
        remembered = remembered or [()] * len(tensors)
        trained, state, loss = train_client(tensors, state, rows, begin, length, span, remembered)
        moved = weight * (parts.join(trained, state) - anchor)
        finite = tf.reduce_all(tf.math.is_finite(moved))
        steps = tf.cast(tf.maximum(span[1] - span[0], 1), floating)
        return tf.where(finite, moved, tf.zeros_like(moved)), loss / steps, finite

    @tf.function(jit_compile=xla, autograph=False)
    def train(
        anchor: Any,
        rows: Any,
        begin: Any,
        length: Any,
        first: Any,
        weights: Any,
        seeds: Any,
        count: Any,
        memory: Any,
    ) -> tuple[Any, ...]:
        def client(c: Any, total: Any, losses: Any, finites: Any) -> tuple[Any, ...]:
            span = first[c], first[c + 1]
            moved, loss, finite = train_one(
                anchor, rows, begin, length, span, weights[c], seeds[c], memory
            )
            return c + 1, total + moved, losses.write(c, loss), finites.write(c, finite)

        def of(dtype: Any) -> Any:
            return tf.TensorArray(dtype, size=tf.shape(weights)[0], element_shape=[])

        _, total, losses, finites = tf.while_loop(
            lambda c, *_: c < count,
            client,
            (0, tf.zeros_like(anchor), of(floating), of(tf.bool)),
            parallel_iterations=1,
        )
        return total, losses.stack(), finites.stack()

    @cache
    def traced(memories: int) -> Any:
        """The graph, traced once for arrays of any length."""
        numbers = tf.TensorSpec([None], tf.int32)
        weights = tf.TensorSpec([None], floating)
        seeds = tf.TensorSpec([None, parts.layers, 2], tf.uint32)
        memory = (tf.TensorSpec([layout.parameters], floating),) * memories
        anchor, count = tf.TensorSpec([layout.length], floating), tf.TensorSpec([], tf.int32)
        return train.get_concrete_function(anchor, *[numbers] * 4, weights, seeds, count, memory)

    tracing = Lock()

    def call(
        anchor: np.ndarray,
        plan: Plan,
        weights: np.ndarray,
        seeds: np.ndarray,
        memory: tuple[np.ndarray, ...] = (),
    ) -> Moved:
        clients = len(plan)
        arrays = [
            plan.rows,
            plan.begin,
            plan.length,
            plan.first,
            weights.astype(layout.dtype),
            seeds,
        ]
        if xla:
            arrays = _padded(arrays)
        with tracing:
            graph = traced(len(memory))
        total, *each = graph(*map(tf.constant, (anchor, *arrays, np.int32(clients), *memory)))
        losses, finite = (values.numpy()[:clients] for values in each)
        return Moved(total.numpy(), losses, finite)

    return call


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

    def split_trainable(self, vector: Any) -> list[Any]:
        """The trainable tensors of a vector of [parameters]."""
        shapes = self.layout.shapes[: self.layout.trainable]
        pieces = tf.split(vector, self.layout.sizes[: self.layout.trainable])
        return [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def split(self, vector: Any) -> tuple[list[Any], list[Any]]:
        """The trainable tensors, and the state to start from but for its seeds."""
        pieces = tf.split(vector, self.layout.sizes)
        tensors = [tf.reshape(p, s) for p, s in zip(pieces, self.layout.shapes, strict=True)]
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


def _padded(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays with their first axis grown to a power of two, so that XLA compiles few shapes."""
    grown = []
    for array in arrays:
        capacity = 1 << (len(array) - 1).bit_length()
        padded = np.zeros((capacity, *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        grown.append(padded)
    return grown
