"""The floor: a round of each workload written by hand in TensorFlow, without Keras or the engine.

Every size is known beforehand and the same for all clients, the data lies in memory, and the rows
of each step are drawn before the clock starts. What is left is the arithmetic and its dispatch,
in several ways (`VARIANTS`), of which the quickest counts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, product
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.pipes import serve
from benchmarks.timing import seconds
from benchmarks.workloads import Workload, workload

ROUNDS = 100
"""Rounds whose plans are drawn; used in turn. So many that their rows do not stay in a cache."""

Tensors = list[Any]
Step = Callable[[Tensors, Any], Tensors]


# --- forward passes -----------------------------------------------------------------------------


def _logistic(w: Tensors, x: Any, seed: Any) -> Any:
    return tf.nn.bias_add(tf.matmul(x, w[0]), w[1])


def _two_layers(w: Tensors, x: Any, seed: Any) -> Any:
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, w[0]), w[1]))
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, w[2]), w[3]))
    return tf.nn.bias_add(tf.matmul(x, w[4]), w[5])


def _convolution(w: Tensors, x: Any, seed: Any) -> Any:
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[0], 1, "SAME"), w[1]))
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[2], 1, "SAME"), w[3]))
    x = tf.reshape(tf.nn.max_pool2d(x, 2, 2, "VALID"), [-1, 784])
    return tf.nn.bias_add(tf.matmul(x, w[4]), w[5])


def _cifar(w: Tensors, x: Any, seed: Any) -> Any:
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[0], 1, "VALID"), w[1]))
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[2], 1, "VALID"), w[3]))
    x = _dropout(tf.nn.max_pool2d(x, 2, 2, "VALID"), 0.25, seed, 0)
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, 12544]), w[4]), w[5]))
    return tf.nn.bias_add(tf.matmul(_dropout(x, 0.5, seed, 1), w[6]), w[7])


def _dropout(x: Any, rate: float, seed: Any, layer: int) -> Any:
    if seed is None:
        return x
    return tf.nn.experimental.stateless_dropout(x, rate, seed=tf.stack([seed, layer]))


FORWARD = {
    "logistic": _logistic,
    "2nn": _two_layers,
    "convolution": _convolution,
    "cifar": _cifar,
}


# --- rounds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A way to run a round.

    xla: compiled by XLA, or an ordinary graph. whole: one call for all clients of a thread, or one
    call a client. threads: how many Python threads share the clients.
    """

    xla: bool
    whole: bool
    threads: int

    def __str__(self) -> str:
        compiler = "XLA" if self.xla else "graph"
        call = "one call a thread" if self.whole else "one call a client"
        return f"{compiler}, {call}, {self.threads} thread{'s' * (self.threads > 1)}"


def variants(xla: bool) -> list[Variant]:
    """The ways to run a round with XLA or without."""
    threads = sorted({1, os.cpu_count() or 1})
    return [Variant(xla, whole, count) for whole, count in product((True, False), threads)]


class Floor:
    """Rounds of one workload on resident data."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        examples = work.examples()
        self.plans = work.plans(work.partition(examples), 1, ROUNDS)
        self.weights = [tf.constant(weight) for weight in work.weights()]
        self._inputs = tf.constant(examples.inputs)
        self._labels = tf.constant(examples.labels.astype(np.int32))
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._compiled: dict[tuple[str, bool], Any] = {}
        # As a function of its own, a step in an ordinary graph is no part of the loop's cycle, in
        # which TensorFlow may miss oneDNN's gradient of max-pooling.
        self._step_apart = tf.function(
            self._step, autograph=False, experimental_attributes={"_noinline": True}
        )

    def rounds(self, variant: Variant) -> Callable[[], Tensors]:
        """A function that runs the next round at each call and returns the new weights."""
        ready = cycle([self._ready(variant, plan) for plan in self.plans])
        weights = self.weights

        def run() -> Tensors:
            nonlocal weights
            weights = self._round(variant, weights, next(ready))
            return weights

        return run

    def client(self, xla: bool) -> Callable[[], object]:
        """A function that trains one client, for a first guess."""
        call = self._function("client", xla)
        rows = tf.constant(self.plans[0, 0])
        total = [tf.zeros_like(weight) for weight in self.weights]
        return lambda: call(self.weights, total, rows)[0].numpy()

    def _ready(self, variant: Variant, plan: np.ndarray) -> list[Any]:
        """What each thread needs to know: its clients' rows, as one tensor or one a client."""
        parts = np.array_split(plan, min(variant.threads, len(plan)))
        if variant.whole:
            return [tf.constant(part) for part in parts]
        return [[tf.constant(rows) for rows in part] for part in parts]

    def _round(self, variant: Variant, weights: Tensors, parts: list[Any]) -> Tensors:
        if variant.whole and len(parts) == 1:
            moved: Tensors = self._function("round", variant.xla)(weights, parts[0])
            return moved
        share = self._function("clients", variant.xla) if variant.whole else self._each(variant)

        def run(part: Any) -> Tensors:
            total: Tensors = share(weights, part)
            return total

        totals = [run(parts[0])] if len(parts) == 1 else list(self._threads.map(run, parts))
        finished: Tensors = self._function("finish", variant.xla)(weights, totals)
        return finished

    def _each(self, variant: Variant) -> Callable[[Tensors, list[Any]], Tensors]:
        """The sum over some clients, by one call a client."""
        call = self._function("client", variant.xla)

        def each(weights: Tensors, part: list[Any]) -> Tensors:
            total = [tf.zeros_like(weight) for weight in weights]
            for rows in part:
                total = call(weights, total, rows)
            return total

        return each

    def _function(self, name: str, xla: bool) -> Any:
        if (name, xla) not in self._compiled:
            step = self._step if xla else self._step_apart
            function = {
                "client": partial(self._add_client, step),
                "clients": partial(self._add_clients, step),
                "round": partial(self._whole_round, step),
                "finish": self._finish,
            }[name]
            self._compiled[name, xla] = tf.function(function, jit_compile=xla, autograph=False)
        return self._compiled[name, xla]

    def _step(self, weights: Tensors, rows: Any) -> Tensors:
        seed = rows[0] if self.work.dropout else None
        x, y = tf.gather(self._inputs, rows), tf.gather(self._labels, rows)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = FORWARD[self.work.name](weights, x, seed)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(each)
        gradients = tape.gradient(loss, weights)
        return [w - self.work.rate * g for w, g in zip(weights, gradients, strict=True)]

    def _add_client(self, step: Step, anchor: Tensors, total: Tensors, plan: Any) -> Tensors:
        """The total with the weighted movement of a client added; plan: [steps, batch]."""

        _, weights = tf.while_loop(
            lambda s, _: s < self.work.steps,
            lambda s, weights: (s + 1, step(weights, plan[s])),
            (0, list(anchor)),
            parallel_iterations=1,
        )
        count = float(self.work.rows)
        return [t + count * (w - a) for t, w, a in zip(total, weights, anchor, strict=True)]

    def _add_clients(self, step: Step, anchor: Tensors, plan: Any) -> Tensors:
        """The sum of the weighted movements of some clients; plan: [clients, steps, batch]."""
        _, total = tf.while_loop(
            lambda c, _: c < plan.shape[0],
            lambda c, total: (c + 1, self._add_client(step, anchor, total, plan[c])),
            (0, [tf.zeros_like(weight) for weight in anchor]),
            parallel_iterations=1,
        )
        return total

    def _whole_round(self, step: Step, anchor: Tensors, plan: Any) -> Tensors:
        return self._finish(anchor, [self._add_clients(step, anchor, plan)])

    def _finish(self, anchor: Tensors, totals: list[Tensors]) -> Tensors:
        """The server's average."""
        rows = float(self.work.rows * self.work.cohort)
        sums = [tf.add_n(parts) for parts in zip(*totals, strict=True)]
        return [a + s / rows for a, s in zip(anchor, sums, strict=True)]


# --- the worker ---------------------------------------------------------------------------------


class Asked:
    """What the parent asks of a floor."""

    def __init__(self, work: Workload) -> None:
        self._floor = Floor(work)
        self._runs: dict[Variant, Callable[[], Tensors]] = {}

    def guess(self, xla: bool) -> float:
        """Seconds of one client, after a first time."""
        call = self._floor.client(xla)
        call()
        return seconds(call)

    def turn(self, variant: dict[str, Any], times: int) -> float:
        """Mean seconds of some rounds."""
        run = self._run(Variant(**variant))

        def rounds() -> None:
            for _ in range(times):
                last = run()
            last[0].numpy()

        return seconds(rounds) / times

    def variants(self, xla: bool) -> list[tuple[dict[str, Any], str]]:
        """The variants with XLA or without, and what they are called."""
        return [(asdict(variant), str(variant)) for variant in variants(xla)]

    def agree(self, variant: dict[str, Any], path: str) -> None:
        """Writes the weights after a round of the comparable workload."""
        weights = Floor(self._floor.work.comparable()).rounds(Variant(**variant))()
        np.save(path, np.concatenate([weight.numpy().ravel() for weight in weights]))

    def _run(self, variant: Variant) -> Callable[[], Tensors]:
        if variant not in self._runs:
            self._runs[variant] = self._floor.rounds(variant)
        return self._runs[variant]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("intra", type=int, help="Threads of one operation.")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.intra)
    tf.config.threading.set_inter_op_parallelism_threads(os.cpu_count() or 1)
    asked = Asked(workload(options.name, options.tiny))
    serve(
        {
            "ready": lambda: None,
            "guess": asked.guess,
            "variants": asked.variants,
            "turn": asked.turn,
            "agree": asked.agree,
        }
    )


if __name__ == "__main__":
    main()
