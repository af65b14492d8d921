"""The clients of a simulation: many members in one process, over one compiled training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.admission import Update
from fedsys.aggregator import Mean
from fedsys.clients.trainer import Trained
from fedsys.engine import Work
from fedsys.engines.in_process import Compiled
from fedsys.flower.rounds.client import Member
from fedsys.strategy import Vector

if TYPE_CHECKING:
    from fedsys.engines.compiled import CompiledEngine
    from fedsys.setting import Setting


@dataclass(frozen=True)
class VirtualClients:
    """All clients of a setting. The model is built and compiled once for them all."""

    setting: Setting
    engine: CompiledEngine

    @classmethod
    @contextmanager
    def of(cls, setting: Setting, workers: int) -> Iterator[VirtualClients]:
        """workers: how many threads may ask clients to train side by side."""
        # Faults and the aggregator come into it when the client has trained.
        plain = replace(setting.experiment, faults=None, aggregator=Mean())
        honest = replace(setting, experiment=plain)
        with Compiled().open(honest, workers) as engine:
            yield cls(setting, engine)  # type: ignore[arg-type]

    def member(self, experiment: str, client: int, context: Any = None) -> Member:
        """One of the clients; every node of a simulation can be any of them."""
        return Member(
            client,
            self.setting.experiment.trajectory,
            self.setting.layout,
            self.setting.experiment.strategy,
            partial(self._train, client),
        )

    def _train(
        self, client: int, round: int, anchor: Vector, state: Any, own: Vector | None
    ) -> Trained:
        """What the compiled engine makes of a cohort of this client alone."""
        experiment, layout = self.setting.experiment, self.setting.layout
        memory = {} if own is None else {client: own}
        sums = self.engine.partial(Work(round, np.array([client]), anchor, state, memory))
        weight = float(self.setting.enrolled[client])
        if sums.refused:  # the training lost its numbers
            tensors = layout.named(np.full(layout.length, np.nan, layout.dtype))
            return Trained(Update(tensors, weight), sums.refused[0].loss, None)
        update = Update(layout.named((sums.total / weight).astype(layout.dtype)), weight)
        fault = experiment.faults
        if fault is not None and fault.strikes(experiment.seed, round, np.array([client]))[0]:
            update = fault.spoil(update, client)
        return Trained(update, float(sums.losses[0]), sums.memory.get(client))
