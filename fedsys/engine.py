"""The seam between what is computed and where: an engine runs one cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fedsys.admission import Refusal
from fedsys.aggregator import Aggregator, Mean, Sees
from fedsys.layout import Layout

Cohorts = Callable[[int], np.ndarray]
"""Round number -> [cohort] clients."""


@dataclass(frozen=True)
class Work:
    """One round's work.

    round: its number, from 1.
    cohort: [cohort] client numbers.
    anchor: [layout length], the weights that clients train from.
    state: the strategy's server state, for what it sends to clients.
    memory: client -> its own vector, where the strategy remembers; absent before its first round.
    """

    round: int
    cohort: np.ndarray
    anchor: np.ndarray
    state: Any
    memory: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Aggregate:
    """What a cohort gave.

    delta: [layout length], what the aggregator made of the admitted movements: their weighted mean
        unless it is another (zeros where they were fewer than it needs).
    drift: [parameters], weighted mean of the changes of the clients' own vectors, or None.
    memory: client -> its new own vector, for those that have one.
    weight: sum of the admitted clients' weights.
    admitted: [admitted] client numbers, ascending; losses: [admitted], their mean training losses.
    refused: the updates that the gate kept out.
    empty: how many of the cohort have no rows.
    server: the strategy's server state after the round, where the engine is a whole other
        implementation that takes the server's step, too; else None, and the round loop takes it.
    """

    delta: np.ndarray
    weight: float
    admitted: np.ndarray
    losses: np.ndarray
    refused: tuple[Refusal, ...] = ()
    empty: int = 0
    drift: np.ndarray | None = None
    memory: Mapping[int, np.ndarray] = field(default_factory=dict)
    server: Any = None


@dataclass(frozen=True)
class Partial:
    """Sums over some clients of a cohort: partials of its parts add up to the cohort's.

    total: [layout length], sum of weight times movement over the admitted clients.
    weight: sum of their weights. clients, losses: [admitted], in the order in which they were
    added. drift: [parameters], sum of weight times the change of their own vectors, or None.
    updates: [admitted, length], each one's movement, in that order, where the aggregator sees all
        of them beside each other; else None.
    """

    total: np.ndarray
    weight: float
    clients: np.ndarray
    losses: np.ndarray
    refused: Sequence[Refusal] = ()
    empty: int = 0
    drift: np.ndarray | None = None
    memory: Mapping[int, np.ndarray] = field(default_factory=dict)
    updates: np.ndarray | None = None

    def aggregate(self, dtype: np.dtype[Any], aggregator: Aggregator = Mean()) -> Aggregate:  # noqa: B008
        """What the aggregator makes of it, the sums as means, and the clients ascending."""
        order = self.clients.argsort()
        weight = self.weight or 1.0
        if aggregator.sees is not Sees.ALL:
            delta = self.total / weight
        elif self.updates is None or len(order) < aggregator.needs:
            delta = np.zeros(len(self.total))
        else:
            delta = aggregator.combine(self.updates[order])
        return Aggregate(
            delta=delta.astype(dtype),
            weight=self.weight,
            admitted=self.clients[order],
            losses=self.losses[order],
            refused=tuple(sorted(self.refused, key=lambda refusal: refusal.client)),
            empty=self.empty,
            drift=None if self.drift is None else (self.drift / weight).astype(dtype),
            memory=self.memory,
        )


def merged(partials: Iterable[Partial], layout: Layout, *, remembers: bool) -> Partial:
    """The sum of partials, in float64 and in their order; only one is held at a time, but for the
    updates that an aggregator sees beside each other.

    remembers: whether clients have vectors of their own, and so a drift.
    """
    total = np.zeros(layout.length)
    drift = np.zeros(layout.parameters) if remembers else None
    weight, empty = 0.0, 0
    clients, losses = [np.zeros(0, np.int64)], [np.zeros(0)]
    refused: list[Refusal] = []
    memory: dict[int, np.ndarray] = {}
    updates: list[np.ndarray] = []
    for partial in partials:
        total += partial.total
        weight += partial.weight
        clients.append(partial.clients)
        losses.append(partial.losses)
        refused += partial.refused
        empty += partial.empty
        memory.update(partial.memory)
        if drift is not None and partial.drift is not None:
            drift += partial.drift
        if partial.updates is not None:
            updates.append(partial.updates)
    return Partial(
        total,
        weight,
        np.concatenate(clients),
        np.concatenate(losses),
        refused,
        empty,
        drift,
        memory,
        np.concatenate(updates) if updates else None,
    )


class Engine(Protocol):
    """Runs cohorts of one experiment and gives back what the server needs of them."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Plain values that say where a run happens, for `run.json`: `workers` and `where` (a
        phrase for a terminal), and what else there is to say."""
        ...

    def prepare(self, round: int, cohorts: Cohorts) -> None:
        """Says which round comes next. An engine may plan it beside the work of this one."""
        ...

    def run(self, work: Work) -> Aggregate: ...

    def close(self) -> None: ...
