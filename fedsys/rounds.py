"""The round loop: state -> round -> state, over any engine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from fedsys.admission import Reason
from fedsys.engine import Aggregate, Cohorts, Engine, Work
from fedsys.errors import QuorumError, TrainingError
from fedsys.layout import Layout
from fedsys.randomness import Purpose, generator
from fedsys.strategy import Mean, Strategy

PATIENCE = 3
"""Rounds in a row that may miss their quorum before the run gives up."""


@dataclass(frozen=True)
class State:
    """All that a federation knows after a round; the next round follows from it alone.

    round: rounds done. server: the strategy's state, whose first vector is the trainable weights.
    buffers: [buffers], the floating weights that are not trained but averaged.
    memory: client -> its own vector, where the strategy remembers.
    missed: rounds in a row that missed their quorum.
    """

    round: int
    server: Any
    buffers: np.ndarray
    memory: Mapping[int, np.ndarray] = field(default_factory=dict)
    missed: int = 0

    @property
    def weights(self) -> np.ndarray:
        """[layout length], the global model."""
        return np.concatenate([self.server.weights, self.buffers])


@dataclass(frozen=True)
class Round:
    """What happened in a round, for whoever watches."""

    number: int
    cohort: np.ndarray
    aggregate: Aggregate
    moved: bool
    seconds: float

    @property
    def refusals(self) -> dict[str, int]:
        """How many updates were refused, by reason."""
        return dict(Counter(str(refusal.reason) for refusal in self.aggregate.refused))

    @property
    def loss(self) -> float:
        """Mean training loss of the admitted clients that said it; NaN if there are none."""
        losses = self.aggregate.losses[~np.isnan(self.aggregate.losses)]
        return float(losses.mean()) if len(losses) else float("nan")


def begin(strategy: Strategy, layout: Layout, weights: np.ndarray) -> State:
    """The state before the first round."""
    return State(0, strategy.begin(weights[: layout.parameters]), weights[layout.parameters :])


@lru_cache(maxsize=4)
def draw_cohort(seed: int, round: int, clients: int, cohort: int) -> np.ndarray:
    """[cohort] client numbers, ascending, drawn without replacement. Not to be written to."""
    if cohort == clients:
        drawn = np.arange(clients)
    else:
        drawn = generator(seed, Purpose.COHORT, round).choice(clients, cohort, replace=False)
        drawn.sort()
    drawn.setflags(write=False)
    return drawn


def run_rounds(
    state: State,
    strategy: Strategy,
    engine: Engine,
    layout: Layout,
    *,
    cohorts: Cohorts,
    population: float,
    rounds: int,
    quorum: float,
    needs: int = 1,
) -> Iterator[tuple[State, Round]]:
    """Yields each state and what led to it, from the round after `state` to number `rounds`.

    cohorts: round number -> [cohort] clients. population: the weight of all clients together.
    quorum: part of the updates of a cohort that must be admitted; else the model stays where it
    is. needs: how many the aggregator needs, with the same end. Raises TrainingError where no
    client's training gives finite numbers, and QuorumError after PATIENCE rounds in a row without
    a quorum.
    """
    while state.round < rounds:
        number = state.round + 1
        started = time.perf_counter()
        cohort = cohorts(number)
        work = Work(number, cohort, state.weights, state.server, state.memory)
        aggregate = engine.run(work)
        _losses_finite(aggregate, number)
        sent = len(aggregate.admitted) + len(aggregate.refused)
        enough = len(aggregate.admitted) >= max(quorum * sent, needs if sent else 0)
        moved = enough and len(aggregate.admitted) > 0
        if moved:
            state = _step(state, strategy, layout, aggregate, population)
            _weights_finite(state, number)
        else:
            state = _wait(state, enough)
        yield state, Round(number, cohort, aggregate, moved, time.perf_counter() - started)
        if state.missed >= PATIENCE:  # above, where a run that gave up was resumed
            raise QuorumError(
                f"round {number}: {len(aggregate.admitted)} of {sent} updates were admitted, "
                f"fewer than {_wanted(aggregate, quorum, needs)}"
            )


def _step(
    state: State, strategy: Strategy, layout: Layout, aggregate: Aggregate, population: float
) -> State:
    trained, averaged = np.split(aggregate.delta, [layout.parameters])
    mean = Mean(trained, aggregate.weight / population, aggregate.drift)
    server = aggregate.server
    if server is None:
        with np.errstate(all="ignore"):  # what is not finite is looked for afterwards
            server = strategy.finish(state.server, mean)
    return State(
        round=state.round + 1,
        server=server,
        buffers=state.buffers + averaged,
        memory={**state.memory, **aggregate.memory} if aggregate.memory else state.memory,
    )


def _wait(state: State, enough: bool) -> State:
    """The state after a round that moved nothing: a cohort without rows is no fault of it."""
    missed = state.missed if enough else state.missed + 1
    return State(state.round + 1, state.server, state.buffers, state.memory, missed)


def _losses_finite(aggregate: Aggregate, round: int) -> None:
    """Ends a run in which every client of a round lost its numbers in training."""
    lost = [
        refusal
        for refusal in aggregate.refused
        if refusal.reason is Reason.FINITE and not np.isfinite(refusal.loss)
    ]
    if lost and len(lost) == len(aggregate.refused) and not len(aggregate.admitted):
        _diverged(round, f"the loss became NaN or infinite at all {len(lost)} clients")


def _weights_finite(state: State, round: int) -> None:
    if not np.isfinite(state.weights).all():
        _diverged(round, "the global weights became NaN or infinite")


def _diverged(round: int, what: str) -> None:
    raise TrainingError(
        f"round {round}: {what}: try a lower --rate, gradient clipping (--clip 1), "
        "a lower server rate, or look for NaN in the data"
    )


def _wanted(aggregate: Aggregate, quorum: float, needs: int) -> str:
    """What a round had too few updates for, and the remedy."""
    admitted, refused = len(aggregate.admitted), len(aggregate.refused)
    reasons = f" ({_reasons(aggregate)})" if refused else ""
    if admitted < quorum * (admitted + refused):
        return (
            f"the quorum of {quorum:g}, {PATIENCE} rounds in a row{reasons}: "
            "mend the clients or lower --quorum"
        )
    return (
        f"the {needs} that the aggregator needs, {PATIENCE} rounds in a row{reasons}: "
        "mend the clients or raise --cohort"
    )


def _reasons(aggregate: Aggregate) -> str:
    counted = Counter(str(refusal.reason) for refusal in aggregate.refused)
    return ", ".join(f"{count} {reason}" for reason, count in counted.items())
