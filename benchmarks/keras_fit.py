"""`keras.Model.fit`, once a client: what one would write first.

The model is compiled once; each client starts from the anchor by `set_weights`. A few clients are
timed, without XLA (Keras's own choice on a CPU) and with; the quicker counts.
"""

from __future__ import annotations

import argparse
from itertools import cycle

import keras
import numpy as np

from benchmarks.pipes import serve
from benchmarks.timing import seconds
from benchmarks.workloads import Workload, workload

CLIENTS = 20
"""Clients that are trained, again and again."""

Client = tuple[np.ndarray, np.ndarray]


class Fit:
    """Clients of a workload, trained one after another by one compiled model."""

    def __init__(self, work: Workload, clients: list[Client], jit: bool) -> None:
        self.work = work
        self._clients = cycle(clients)
        self._anchor = work.weights()
        self._model = work.model()
        self._model.compile(
            keras.optimizers.SGD(work.rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
        )

    def clients(self, count: int) -> list[np.ndarray]:
        """The average of some clients, the next ones at each call."""
        total = [np.zeros_like(weight) for weight in self._anchor]
        for _ in range(count):
            x, y = next(self._clients)
            self._model.set_weights(self._anchor)
            self._model.fit(x, y, batch_size=self.work.batch, epochs=1, verbose=0, shuffle=True)
            for part, new in zip(total, self._model.get_weights(), strict=True):
                part += new
        return [part / count for part in total]


class Asked:
    """What the parent asks of Keras."""

    def __init__(self, work: Workload) -> None:
        examples = work.examples()
        some = [work.partition(examples)[client] for client in range(min(CLIENTS, work.clients))]
        clients = [(examples.inputs[rows], examples.labels[rows]) for rows in some]
        self._fits = {jit: Fit(work, clients, jit) for jit in (False, True)}

    def best(self) -> tuple[bool, float]:
        """The quicker way to compile, and its seconds a client."""
        found = {}
        for jit, fit in self._fits.items():
            fit.clients(1)
            found[jit] = seconds(lambda fit=fit: fit.clients(2)) / 2
        jit = min(found, key=found.__getitem__)
        return jit, found[jit]

    def turn(self, jit: bool, clients: int) -> float:
        """Mean seconds of a client."""
        return seconds(lambda: self._fits[jit].clients(clients)) / clients


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    asked = Asked(workload(options.name, options.tiny))
    serve({"ready": lambda: None, "best": asked.best, "turn": asked.turn})


if __name__ == "__main__":
    main()
