"""Small federations for the tests: data, models, engines and rounds with few words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from fedsys.aggregator import Mean
from fedsys.engine import Aggregate, Cohorts, Work
from fedsys.engines.compiled import CompiledEngine
from fedsys.layers import random_layers
from fedsys.layout import Layout, read_weights
from fedsys.local import Local
from fedsys.objectives import objective
from fedsys.partition import Partition
from fedsys.plan import draw_plan
from fedsys.rounds import Round, State, begin, draw_cohort, run_rounds
from fedsys.strategies import FedAvg
from fedsys.task import Examples, Task
from fedsys.training import LocalTraining, Moved, client_seeds

FEATURES = 4
COMPILERS = {"xla": True, "graph": False}


def by_sizes(sizes: list[int], seed: int = 0) -> Partition:
    """A partition with clients of these sizes, whose rows lie scattered."""
    rows = np.random.default_rng(seed).permutation(sum(sizes))
    return Partition(rows, np.concatenate([[0], np.cumsum(sizes)]))


def linear_model(features: int = FEATURES, dtype: str = "float64", **dense: Any) -> keras.Model:
    """One dense unit, whose initial weights are not zero."""
    inputs = keras.Input((features,), dtype=dtype, name="inputs")
    dense = {"kernel_initializer": keras.initializers.RandomNormal(seed=1), **dense}
    dense = {"bias_initializer": "ones", "dtype": dtype, "name": "value", **dense}
    outputs = keras.layers.Dense(1, **dense)(inputs)
    return keras.Model(inputs, outputs, name="linear")


def linear_task(partition: Partition, dtype: str = "float64", seed: int = 0) -> Task:
    """Real targets that depend on the inputs in a way of each client's own."""
    rng = np.random.default_rng(seed)
    owner = np.empty(len(partition.order), int)
    for client, rows in enumerate(partition):
        owner[rows] = client
    truths = rng.normal(size=(len(partition), FEATURES)) + 1
    x = rng.normal(size=(len(owner), FEATURES)) + 0.3 * truths[owner]
    y = (x * truths[owner]).sum(axis=1) + rng.normal(size=len(owner)) * 0.1
    return linear_examples(x, y, dtype)


def linear_examples(x: np.ndarray, y: np.ndarray, dtype: str = "float64") -> Task:
    """A regression on these inputs and targets."""
    examples = Examples(x.astype(dtype), y.astype(dtype))
    model = partial(linear_model, x.shape[1], dtype)
    return Task("linear", model, examples, examples, objective="squared")


def classes_task(
    model: Any, rows: int = 60, shape: tuple[int, ...] = (5,), classes: int = 3, seed: int = 0
) -> Task:
    """Noisy classes, for a model that gives one logit a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    inputs = rng.normal(size=(rows, *shape)) + labels.reshape(-1, *[1] * len(shape))
    examples = Examples(inputs.astype(np.float32), labels)
    return Task("noise", model, examples, examples, objective="classes")


class Federation:
    """A task, its clients and an engine, put together."""

    def __init__(
        self,
        task: Task,
        partition: Partition,
        strategy: Any = FedAvg(),  # noqa: B008
        local: Local = Local(),  # noqa: B008
        *,
        seed: int = 3,
        **engine: Any,
    ) -> None:
        self.task, self.partition, self.strategy, self.seed = task, partition, strategy, seed
        self.aggregator = engine.get("aggregator", Mean())
        self.model = task.model()
        self.layout = Layout.of(self.model)
        self.weights = read_weights(self.model)
        self.engine = CompiledEngine(
            task, self.model, partition, strategy, local, seed=seed, **{"workers": 1, **engine}
        )
        self.local = self.engine.local
        self.population = float(self.engine.weights.sum())

    def work(self, round: int, cohort: Any, state: State | None = None) -> Work:
        state = state or begin(self.strategy, self.layout, self.weights)
        return Work(round, np.asarray(cohort), state.weights, state.server, state.memory)

    def round(self, cohort: Any, round: int = 1, state: State | None = None) -> Aggregate:
        """What the engine makes of one round."""
        return self.engine.run(self.work(round, cohort, state))

    def cohort(self, size: int, round: int) -> np.ndarray:
        return draw_cohort(self.seed, round, len(self.partition), size)

    def run(self, rounds: int, cohort: int | None = None, quorum: float = 0.5) -> list[State]:
        """The states after each of some rounds."""
        size = cohort or len(self.partition)
        states = self.rounds(rounds, lambda round: self.cohort(size, round), quorum)
        return [state for state, _ in states]

    def rounds(
        self, rounds: int, cohorts: Cohorts, quorum: float = 0.5
    ) -> Iterator[tuple[State, Round]]:
        """The states after each of some rounds, and what led to them."""
        return run_rounds(
            begin(self.strategy, self.layout, self.weights),
            self.strategy,
            self.engine,
            self.layout,
            cohorts=cohorts,
            population=self.population,
            rounds=rounds,
            quorum=quorum,
            needs=self.aggregator.needs,
        )


class Trainer:
    """The compiled training of a task, without an engine around it."""

    def __init__(self, task: Task, local: Local, *, xla: bool, strategy: Any = FedAvg()) -> None:  # noqa: B008
        self.task, self.local = task, local
        self.model = task.model()
        self.weights = read_weights(self.model)
        self.layers = len(random_layers(self.model))
        goal, correct = objective(task.objective), strategy.correct
        self._call = LocalTraining(self.model, goal, local, correct, task.train, xla=xla)

    def plan(self, partition: Partition, clients: Any, seed: int = 3, round: int = 1) -> Any:
        return draw_plan(self.local, partition, np.asarray(clients), seed, round)

    def __call__(
        self,
        partition: Partition,
        clients: Any,
        *,
        seed: int = 3,
        round: int = 1,
        anchor: Any = None,
        weights: Any = None,
    ) -> Moved:
        clients = np.asarray(clients)
        share = self._call.share(
            self.plan(partition, clients, seed, round),
            np.ones(len(clients)) if weights is None else np.array(weights),
            client_seeds(seed, round, clients, self.layers),
        )
        return self._call(self.weights if anchor is None else anchor, share)
