"""Ours: a round as a simulation runs it, on the rows of the files. It draws its own plans.

Cohorts and plans are drawn from the seed within the round, as ever; that they are the others', too,
the comparison of the weights shows.
"""

from __future__ import annotations

import numpy as np

from benchmarks.ours import Rounds
from benchmarks.peers.federation import Federation, answer
from benchmarks.workloads import SEED, WORKLOADS
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.task import Examples, Task


class Ours:
    """The compiled engine."""

    def __init__(self, federation: Federation, way: str) -> None:
        work = WORKLOADS[federation.name]
        # The network of the federation, which may be the one without dropout.
        model = work.model if federation.dropout == work.dropout else work.comparable().model
        examples = Examples(federation.inputs, federation.labels)
        test = Examples(federation.inputs[:100], federation.labels[:100])
        experiment = Experiment(
            clients=federation.clients,
            cohort=federation.cohort,
            local=Local(epochs=1, batch=federation.batch, rate=federation.rate),
            partition="iid",
            seed=SEED,
        )
        task = Task(federation.name, model, examples, test)
        self._rounds = Rounds(experiment, task, list(federation.weights))
        self._layout = self._rounds.setting.layout
        self._state = None

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self._state, _ = self._rounds.next()

    def weights(self) -> list[np.ndarray]:
        return [self._state.weights]


if __name__ == "__main__":
    answer(Ours)
