"""Local training as one pure function, compiled once for a model.

`LocalTraining` is a Keras model, an objective, a `Local` and a correction as a function that
trains some clients one after another, from the same anchor, and returns the weighted sum of how
far they moved. One client is a sum of one, so the same function serves the fused cohort and the
client whose update is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.objectives import Objective
from fedsys.parts import Parts, joined
from fedsys.plan import Plan
from fedsys.randomness import Purpose, hashed
from fedsys.task import Examples

Correction = Callable[..., Any]
"""(gradient, weights, anchor, *memory) -> gradient, tensor by tensor; see `Strategy.correct`."""

PIECE = 2**24
"""Bytes of data that are copied at once."""


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


@dataclass(frozen=True)
class Share:
    """Clients to train in one call, as the compiled function takes them."""

    clients: int
    tensors: tuple[Any, ...]


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
    order: [rows], the order in which they are kept, and which plans count by; as given if None.
    xla: compile with XLA, which needs a fixed batch size and layers that treat rows by themselves.
    """

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        local: Local,
        correct: Correction,
        examples: Examples,
        order: np.ndarray | None = None,
        *,
        xla: bool,
    ) -> None:
        self.layout = Layout.of(model)
        self._model = model
        self._objective = objective
        self._local = local
        self._correct = correct
        self._inputs = _kept(examples.inputs, order)
        self._labels = _kept(examples.labels, order)
        self._xla = xla
        self._parts = Parts(model, self.layout)
        self._floating = tf.as_dtype(self.layout.dtype)
        self._capacity: tuple[int, ...] = (1, 1, 1)
        self._graphs: dict[int, Any] = {}
        self._tracing = Lock()
        # As a function of its own, a step in an ordinary graph is no part of the loops' cycles, in
        # which TensorFlow misses oneDNN's gradient of max-pooling.
        self._learn = self._step if xla else _apart(self._step)

    def reserve(self, plan: Plan) -> None:
        """Makes room for any part of a plan, so that XLA, which compiles anew for arrays of other
        lengths, meets few: room grows by doubling, and stays."""
        needed = len(plan.rows), len(plan.begin), len(plan)
        self._capacity = _doubled(needed, self._capacity)

    def share(self, plan: Plan, weights: np.ndarray, seeds: np.ndarray) -> Share:
        """The clients of a plan with their weights ([clients]) and `client_seeds`."""
        clients = len(plan)
        steps = np.stack([plan.begin, plan.length], axis=1)
        arrays = [plan.rows, steps, plan.first, weights.astype(self.layout.dtype)]
        if self._parts.layers:
            arrays.append(seeds)
        if self._xla:
            rows, begun, places = _doubled((len(plan.rows), len(steps), clients), self._capacity)
            lengths = [rows, begun, places + 1, places, places][: len(arrays)]
            arrays = [_padded(array, length) for array, length in zip(arrays, lengths, strict=True)]
        return Share(clients, tuple(tf.constant(array) for array in (np.int32(clients), *arrays)))

    def __call__(
        self,
        anchor: np.ndarray,
        share: Share,
        memory: tuple[np.ndarray, ...] = (),
        *,
        launching: Callable[[], None] = lambda: None,
    ) -> Moved:
        """Trains some clients, each from the anchor. Threads may call it side by side.

        anchor: [layout length]. memory: vectors of [parameters] for the correction, the same for
        every client of the call. launching: called when all that is left to do needs no Python.
        """
        graph = self._graph(len(memory))
        tensors = [tf.constant(anchor), *share.tensors, *map(tf.constant, memory)]
        launching()
        total, losses, finite = map(np.asarray, graph(*tensors))  # not numpy(), which copies
        return Moved(total, losses[: share.clients], finite[: share.clients])

    def _graph(self, memories: int) -> Any:
        """The graph of `_lane`, traced once, for arrays of any length."""
        with self._tracing:
            if memories not in self._graphs:
                layers = self._parts.layers
                seeds = [tf.TensorSpec([None, layers, 2], tf.uint32)] if layers else []
                lane = tf.function(self._lane, jit_compile=self._xla, autograph=False)
                traced = lane.get_concrete_function(
                    tf.TensorSpec([self.layout.length], self._floating),
                    tf.TensorSpec([], tf.int32),
                    tf.TensorSpec([None], tf.int32),
                    tf.TensorSpec([None, 2], tf.int32),
                    tf.TensorSpec([None], tf.int32),
                    tf.TensorSpec([None], self._floating),
                    *seeds,
                    *[tf.TensorSpec([self.layout.parameters], self._floating)] * memories,
                )
                self._graphs[memories] = _direct(traced)
            return self._graphs[memories]

    # --- inside the graph ------------------------------------------------------------------------

    def _lane(
        self,
        anchor: Any,
        clients: Any,
        rows: Any,
        steps: Any,
        first: Any,
        weights: Any,
        *others: Any,
    ) -> tuple[Any, Any, Any]:
        """The fields of `Moved` for the first `clients` of a plan, one client after another.

        steps: [steps, 2], where each begins in `rows` and its length. others: seeds of the
        clients, if the model has random layers, and what the strategy sent.
        """
        seeds, memory = (others[0], others[1:]) if self._parts.layers else (None, others)
        whole = self._parts.split(anchor)

        def client(c: Any, total: Any, losses: Any, finites: Any) -> tuple[Any, ...]:
            # XLA cuts it up anew for each client: so its loops keep to the thread they run on.
            start, state = self._parts.split(anchor) if self._xla else whole
            begun = self._parts.numbers(start, state)
            if seeds is not None:
                state = self._parts.seeded(state, seeds[c])
            span = first[c], first[c + 1]
            ended, loss = self._client(start, state, rows, steps, span, memory)
            total, finite = self._add(total, weights[c], ended, begun)
            return c + 1, total, losses.write(c, loss), finites.write(c, finite)

        def each(dtype: Any) -> Any:
            return tf.TensorArray(dtype, size=tf.shape(weights)[0], element_shape=[])

        zeros = [tf.zeros_like(tensor) for tensor in self._parts.numbers(*whole)]
        _, total, losses, finites = tf.while_loop(
            lambda c, *_: c < clients,
            client,
            (0, zeros, each(self._floating), each(tf.bool)),
            parallel_iterations=1,
        )
        return joined(total), losses.stack(), finites.stack()

    def _add(self, total: Any, weight: Any, ended: Any, begun: Any) -> tuple[Any, Any]:
        """The total with a client's weighted movement added, if it is finite, and whether it is.

        Told from its squared norm: one reading of it, and no sum can overflow by it.
        """
        moved = [after - before for after, before in zip(ended, begun, strict=True)]
        finite = tf.math.is_finite(tf.add_n([tf.nn.l2_loss(tensor) for tensor in moved]))

        def added() -> list[Any]:
            return [t + weight * tensor for t, tensor in zip(total, moved, strict=True)]

        if self._xla:
            chosen = [tf.where(finite, new, t) for new, t in zip(added(), total, strict=True)]
            return chosen, finite
        return tf.cond(finite, added, lambda: list(total)), finite

    def _client(
        self,
        start: Any,
        state: Any,
        rows: Any,
        steps: Any,
        span: Any,
        memory: Any,
    ) -> tuple[Any, Any]:
        """The tensors that one client ends with, and its mean loss."""
        remembered = [self._parts.trainable(vector) for vector in memory]

        def step(s: Any, trained: Any, state: Any, slots: Any, total: Any) -> tuple[Any, ...]:
            chosen, parts = self._batch(rows, steps[s, 0], steps[s, 1])
            count = tf.cast(s - span[0] + 1, self._floating)
            trained, state, slots, value = self._learn(
                trained, state, slots, chosen, parts, count, start, remembered
            )
            return s + 1, trained, state, slots, total + value

        slots = [self._local.optimizer.slots(tensor) for tensor in start]
        _, trained, state, _, total = tf.while_loop(
            lambda s, *_: s < span[1],
            step,
            (span[0], list(start), state, slots, tf.zeros([], self._floating)),
            parallel_iterations=1,
        )
        count = tf.cast(tf.maximum(span[1] - span[0], 1), self._floating)
        return self._parts.numbers(trained, state), total / count

    def _step(
        self,
        trained: Any,
        state: Any,
        slots: Any,
        rows: Any,
        parts: Any,
        count: Any,
        start: Any,
        remembered: Any,
    ) -> tuple[Any, Any, Any, Any]:
        """Weights, state and slots after a step on some rows, and the loss before it."""
        value, gradients, state = self._gradients(trained, state, rows, parts)
        gradients = [
            self._correct(*tensors)
            for tensors in zip(gradients, trained, start, *remembered, strict=True)
        ]
        if self._local.clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._local.clip)
        stepped = [
            self._local.optimizer.step(weight, gradient, slot, self._local.rate, count)
            for weight, gradient, slot in zip(trained, gradients, slots, strict=True)
        ]
        return [weight for weight, _ in stepped], state, [slot for _, slot in stepped], value

    def _batch(self, rows: Any, begin: Any, length: Any) -> tuple[Any, Any]:
        """The data rows of a step and, for XLA, whose shapes are fixed, each row's part in the
        mean: rows beyond the step's length have none."""
        if not self._xla:
            return rows[begin : begin + length], None
        places = tf.range(self._local.batch)
        counts = places < length
        parts = tf.where(counts, 1 / tf.cast(length, self._floating), 0)
        # A row that does not count repeats the first: nothing of another client enters.
        return tf.gather(rows, begin + tf.where(counts, places, 0)), parts

    def _gradients(self, weights: Any, state: Any, rows: Any, parts: Any) -> tuple[Any, Any, Any]:
        """The mean loss on some rows with the model's own penalties, its gradient by each
        weight, and the state that the forward pass leaves."""
        inputs, labels = tf.gather(self._inputs, rows), tf.gather(self._labels, rows)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, state, penalties = self._model.stateless_call(
                weights, state, inputs, training=True, return_losses=True
            )
            each = self._objective.loss(labels, outputs)
            mean = (
                tf.reduce_mean(each)
                if parts is None
                else tf.reduce_sum(each * tf.cast(parts, each.dtype))
            )
            loss = tf.add_n([tf.cast(term, self._floating) for term in (mean, *penalties)])
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients], state


def _kept(array: np.ndarray, order: np.ndarray | None) -> Any:
    """Rows in TensorFlow's memory, in an order of their own.

    A variable, since it can be filled piece by piece: `tf.constant` takes twice the room.
    """
    kept = tf.Variable(tf.raw_ops.Empty(shape=array.shape, dtype=array.dtype), trainable=False)
    block = max(1, PIECE * len(array) // max(1, array.nbytes))
    for low in range(0, len(array), block):
        places = np.arange(low, min(low + block, len(array)))
        rows = array[places if order is None else order[places]]
        kept.scatter_update(tf.IndexedSlices(rows, places))
    return kept


def _direct(graph: Any) -> Callable[..., Any]:
    """A traced function without the check of its arguments, 0.1 ms a call.

    TensorFlow does not promise the way around; where it is gone, the checked call serves.
    """
    call = getattr(getattr(graph, "_inference_function", None), "call_preflattened", None)
    if call is None:
        return graph
    captured = graph.captured_inputs
    return lambda *tensors: call([*tensors, *captured])


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a part of a graph that is not inlined."""
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def _doubled(needed: tuple[int, ...], capacity: tuple[int, ...]) -> tuple[int, ...]:
    """The capacity, doubled where it does not hold what is needed until it does."""
    return tuple(max(c, 1 << (n - 1).bit_length()) for n, c in zip(needed, capacity, strict=True))


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with its first axis grown by zeros."""
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
