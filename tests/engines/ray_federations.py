"""Federations for the tests of the Ray engine, and clients, strategies and tasks that end badly."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.admission import Update
from fedsys.clients.faults import Fault
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.rounds import State, begin, run_rounds
from fedsys.setting import Setting, prepare
from fedsys.simulation import _cohorts
from fedsys.strategies import FedAvg
from fedsys.task import Examples, Task

from ..federations import linear_model

SIZES = [7, 13, 3, 0, 22, 5, 9, 16, 4, 11]
LOCAL = Local(epochs=2, batch=4, rate=0.05)


def ragged_task(sizes: list[int] = SIZES) -> Task:
    """A regression whose rows have owners, some with many rows and one with none."""
    rng = np.random.default_rng(5)
    owners = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    inputs = rng.normal(size=(len(owners), 4)).astype("float32")
    labels = (inputs @ np.arange(1, 5) + owners / 5).astype("float32")
    examples = Examples(inputs, labels, owners)
    return Task("ragged", single_unit, examples, examples, objective="squared")


def single_unit() -> Any:
    return linear_model(dtype="float32")


def setting(strategy: Any = "fedavg", task: Task | None = None, **experiment: Any) -> Setting:
    given = {"cohort": 7, "rounds": 3, "local": LOCAL, "seed": 3, **experiment}
    return prepare(Experiment(strategy=strategy, **given), task or ragged_task(), workers=1)


def states(given: Setting, engine: Any, rounds: int | None = None) -> list[State]:
    """The states after each round."""
    start = begin(given.experiment.strategy, given.layout, given.weights)
    return [state for state, _ in happened(given, engine, start, rounds)]


def happened(given: Setting, engine: Any, start: State, rounds: int | None = None) -> Any:
    return run_rounds(
        start,
        given.experiment.strategy,
        engine,
        given.layout,
        cohorts=_cohorts(given, engine),
        population=given.population,
        rounds=rounds or given.experiment.rounds,
        quorum=given.experiment.quorum,
        needs=given.experiment.aggregator.needs,
    )


def same(one: list[State], other: list[State], atol: float = 1e-6) -> None:
    """Asserts that all that a federation knows is the same after each round."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, atol=atol, rtol=0)
        for x, y in zip(a.server, b.server, strict=True):
            np.testing.assert_allclose(x, y, atol=atol, rtol=0)
        assert a.memory.keys() == b.memory.keys()
        for client, own in a.memory.items():
            np.testing.assert_allclose(own, b.memory[client], atol=atol * 100, rtol=0)


@dataclass(frozen=True)
class Deadly(FedAvg):
    """Ends the first worker that trains with it after `rounds` calls; `mark` says that it did."""

    mark: str = ""

    def send(self, state: Any, own: Any) -> tuple[Any, ...]:
        path = Path(self.mark)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return ()
        os.kill(os.getpid(), signal.SIGKILL)
        return ()


@dataclass(frozen=True)
class Slow(FedAvg):
    """Takes its time in workers; `mark` is there once it is at it."""

    mark: str = ""
    seconds: float = 5.0

    def send(self, state: Any, own: Any) -> tuple[Any, ...]:
        Path(self.mark).touch()
        time.sleep(self.seconds)
        return ()


@dataclass(frozen=True)
class Poison(Fault):
    """Ends every worker that trains a certain client."""

    share: float = 1.0
    client: int = 4

    def spoil(self, update: Update, client: int) -> Update:
        if client == self.client:
            os.kill(os.getpid(), signal.SIGKILL)
        return update
