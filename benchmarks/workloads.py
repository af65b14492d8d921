"""The four workloads: what is trained, on random data of the shape, and the rows of each step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.partitions import Iid, draw
from fedsys.plan import draw_plan
from fedsys.rounds import draw_cohort
from fedsys.task import Examples

if TYPE_CHECKING:
    import keras

    from fedsys.task import Task

SEED = 0
CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A federation in which every client has the same number of rows, a multiple of the batch.

    shape: of an input row. clients, rows: how many, and rows of each. tensors: shapes of the
    model's weights, kernel and bias in turn. fit: how many times `keras.Model.fit` should take
    longer than the engine, or None where that is not asked. dropout: whether the model has it.
    middle: of the values of the rows, which spread half a unit to either side.
    """

    name: str
    shape: tuple[int, ...]
    clients: int
    rows: int
    cohort: int
    batch: int
    rate: float
    tensors: tuple[tuple[int, ...], ...]
    fit: float | None = None
    dropout: bool = False
    middle: float = 0.5

    @property
    def steps(self) -> int:
        """Steps of a client in a round."""
        return self.rows // self.batch

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.tensors)

    @property
    def local(self) -> Local:
        return Local(epochs=1, batch=self.batch, rate=self.rate)

    def tiny(self) -> Workload:
        """The same with few clients of two batches, for a test of the benchmark itself."""
        return replace(self, clients=5, cohort=3, rows=2 * self.batch)

    def comparable(self) -> Workload:
        """A small one without dropout, whose new weights must be the same whoever computes them.

        Rows about zero and a tenth of the rate: else training makes so much of a last digit (of
        the 2NN's a fifth of the whole movement within two rounds) that nothing could be compared.
        """
        clients = min(self.clients, 12)
        return replace(
            self,
            clients=clients,
            cohort=min(self.cohort, 10, clients),
            dropout=False,
            rate=self.rate / 10,
            middle=0.0,
        )

    def examples(self) -> Examples:
        """Random rows."""
        rng = np.random.default_rng(SEED)
        count = self.clients * self.rows
        inputs = rng.random((count, *self.shape), np.float32) + np.float32(self.middle - 0.5)
        return Examples(inputs, rng.integers(0, CLASSES, count))

    def weights(self) -> list[np.ndarray]:
        """Where training starts: kernels uniform as Glorot and Bengio have it, biases zero."""
        rng = np.random.default_rng(SEED + 1)
        return [_initial(rng, shape) for shape in self.tensors]

    def partition(self, examples: Examples) -> Partition:
        return draw(Iid(), examples, self.clients, SEED)

    def plans(self, partition: Partition, first: int, count: int) -> np.ndarray:
        """[count, cohort, steps, batch] int32, the rows that the engine uses in these rounds."""
        shape = (self.cohort, self.steps, self.batch)
        return np.stack(
            [
                draw_plan(
                    self.local,
                    partition,
                    draw_cohort(SEED, number, self.clients, self.cohort),
                    SEED,
                    number,
                ).rows.reshape(shape)
                for number in range(first, first + count)
            ]
        )

    def model(self) -> keras.Model:
        return _models()[self.name](self)

    def task(self, examples: Examples) -> Task:
        from fedsys.task import Task

        test = Examples(examples.inputs[:100], examples.labels[:100])
        return Task(self.name, self.model, examples, test)


def _initial(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    field = int(np.prod(shape[:-2]))
    bound = np.sqrt(6 / (field * (shape[-2] + shape[-1])))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _models() -> dict:
    from keras import Input, Sequential, layers

    def logistic(work: Workload) -> keras.Model:
        return Sequential([Input(work.shape), layers.Dense(CLASSES)])

    def two_layers(work: Workload) -> keras.Model:
        hidden = [layers.Dense(200, activation="relu") for _ in range(2)]
        return Sequential([Input(work.shape), *hidden, layers.Dense(CLASSES)])

    def convolution(work: Workload) -> keras.Model:
        return Sequential(
            [
                Input(work.shape),
                layers.Conv2D(8, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(16, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(CLASSES),
            ]
        )

    def cifar(work: Workload) -> keras.Model:
        def dropout(rate: float) -> list[keras.Layer]:
            return [layers.Dropout(rate)] if work.dropout else []

        return Sequential(
            [
                Input(work.shape),
                layers.Conv2D(32, 3, activation="relu"),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(),
                *dropout(0.25),
                layers.Flatten(),
                layers.Dense(128, activation="relu"),
                *dropout(0.5),
                layers.Dense(CLASSES),
            ]
        )

    return {"logistic": logistic, "2nn": two_layers, "convolution": convolution, "cifar": cifar}


def _stack(*kernels: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(shape for kernel in kernels for shape in (kernel, kernel[-1:]))


WORKLOADS = {
    work.name: work
    for work in (
        Workload("logistic", (784,), 1000, 60, 10, 10, 0.1, _stack((784, 10)), fit=100),
        Workload("2nn", (784,), 100, 600, 10, 10, 0.1, _stack((784, 200), (200, 200), (200, 10))),
        Workload(
            "convolution",
            (28, 28, 1),
            100,
            512,
            100,
            32,
            0.05,
            _stack((3, 3, 1, 8), (3, 3, 8, 16), (784, 10)),
            fit=20,
        ),
        Workload(
            "cifar",
            (32, 32, 3),
            1000,
            50,
            50,
            10,
            0.02,
            _stack((3, 3, 3, 32), (3, 3, 32, 64), (12544, 128), (128, 10)),
            fit=2,
            dropout=True,
        ),
    )
}


def workload(name: str, tiny: bool = False) -> Workload:
    """The workload of that name, or the tiny one like it."""
    return WORKLOADS[name].tiny() if tiny else WORKLOADS[name]
