"""Federated algorithms in float64 NumPy, written from their papers, on a linear model.

Nothing here is the library's but the batches of a client and the clients of a round, which are
drawn and not computed. `Problem.clients` is Algorithm 1 of McMahan et al. 2017, ClientUpdate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fedsys.local import Local
from fedsys.plan import draw_plan
from fedsys.rounds import draw_cohort

from ..federations import COMPILERS, FEATURES, Federation, by_sizes, linear_task

SIZES = [7, 13, 1, 0, 22, 5, 9, 16]
ROUNDS, COHORT = 3, 5
LOCAL = Local(epochs=3, batch=4, rate=0.05)

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(weights, rows) -> gradient of the mean half squared error of these rows."""


@dataclass(frozen=True)
class Problem:
    """The numbers of a federation, in float64."""

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    partition: object
    weighted: bool
    seed: int
    local: Local

    def gradient(self, w: np.ndarray, rows: np.ndarray) -> np.ndarray:
        x, error = self.x[rows], self.x[rows] @ w[:-1] + w[-1] - self.y[rows]
        return np.append(x.T @ error, error.sum()) / len(rows)

    def importance(self, client: int) -> float:
        """n_k, or 1 for each client that has rows."""
        size = len(self.partition[client])
        return float(size if self.weighted else size > 0)

    @property
    def population(self) -> float:
        return sum(self.importance(client) for client in range(len(self.partition)))

    def heard(self, round: int) -> Iterator[tuple[int, float, list[np.ndarray]]]:
        """The clients of a round that have rows, with their importance and their batches."""
        cohort = draw_cohort(self.seed, round, len(self.partition), COHORT)
        plan = draw_plan(self.local, self.partition, cohort, self.seed, round)
        for place, client in enumerate(cohort.tolist()):
            if self.importance(client):
                yield client, self.importance(client), plan.batches(place)

    def mean_delta(self, w: np.ndarray, round: int, extra: Gradient | None = None) -> np.ndarray:
        """The weighted mean movement of a round's clients by SGD; `extra` joins the gradient."""
        total, weight = np.zeros_like(w), 0.0
        for _, importance, batches in self.heard(round):
            local = w
            for rows in batches:
                g = self.gradient(local, rows)
                if extra is not None:
                    g = g + extra(local, w)
                local = local - self.local.rate * g
            total, weight = total + importance * (local - w), weight + importance
        return total / weight


def federation(strategy, local=LOCAL, *, dtype="float64", compiler="graph", weighted=True):
    """The library's run of the algorithm."""
    partition = by_sizes(SIZES)
    return Federation(
        linear_task(partition, dtype),
        partition,
        strategy,
        local,
        uniform=not weighted,
        xla=COMPILERS[compiler],
    )


def problem(run: Federation, local: Local = LOCAL, *, weighted: bool = True) -> Problem:
    train = run.task.train
    return Problem(
        train.inputs.astype(np.float64),
        train.labels.astype(np.float64),
        run.weights.astype(np.float64),
        run.partition,
        weighted,
        run.seed,
        local,
    )


def difference(states, expected) -> float:
    """The largest deviation over all rounds, as a part of the largest number expected."""
    assert len(states) == len(expected) == ROUNDS
    assert all(len(w) == FEATURES + 1 for w in expected)
    return max(
        np.abs(state.weights - w).max() / np.abs(w).max()
        for state, w in zip(states, expected, strict=True)
    )


TOLERANCE = {"float64": 1e-9, "float32": 1e-6}
