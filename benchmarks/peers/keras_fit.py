"""Plain Keras: `set_weights`, `fit`, `get_weights` for each client, by one compiled model.

Ways: `graph` (Keras's own choice on a CPU) and `xla`.
"""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.peers.federation import Federation, answer
from benchmarks.workloads import WORKLOADS


class Fit:
    """Clients trained one after another, and their average."""

    def __init__(self, federation: Federation, way: str) -> None:
        self._federation = federation
        self._weights = list(federation.weights)
        self._round = 0
        work = WORKLOADS[federation.name]
        self._model = work.model() if federation.dropout else work.comparable().model()
        self._model.compile(
            keras.optimizers.SGD(federation.rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=way == "xla",
        )

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            total = [np.zeros_like(weight) for weight in self._weights]
            plan = self._federation.plan_of(self._round)
            for rows in plan.reshape(len(plan), -1):
                for part, new in zip(total, self._client(rows), strict=True):
                    part += new
            self._weights = [part / len(plan) for part in total]
            self._round += 1

    def weights(self) -> list[np.ndarray]:
        return self._weights

    def _client(self, rows: np.ndarray) -> list[np.ndarray]:
        federation = self._federation
        self._model.set_weights(self._weights)
        self._model.fit(
            federation.inputs[rows],
            federation.labels[rows],
            batch_size=federation.batch,
            epochs=1,
            shuffle=False,  # the rows come in the order of the plan
            verbose=0,
        )
        return self._model.get_weights()


if __name__ == "__main__":
    answer(Fit)
