"""The seam between what is computed and where: an engine runs one cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fedsys.admission import Refusal


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

    delta: [layout length], weighted mean of the admitted movements (zeros where none was).
    drift: [parameters], weighted mean of the changes of the clients' own vectors, or None.
    memory: client -> its new own vector, for those that have one.
    weight: sum of the admitted clients' weights.
    admitted: [admitted] client numbers, ascending; losses: [admitted], their mean training losses.
    refused: the updates that the gate kept out.
    empty: how many of the cohort have no rows.
    """

    delta: np.ndarray
    weight: float
    admitted: np.ndarray
    losses: np.ndarray
    refused: tuple[Refusal, ...] = ()
    empty: int = 0
    drift: np.ndarray | None = None
    memory: Mapping[int, np.ndarray] = field(default_factory=dict)


class Engine(Protocol):
    """Runs one cohort and gives back what the server needs of it."""

    def run(self, work: Work) -> Aggregate: ...
