"""pfl-research with TensorFlow: `FederatedAveraging` over `SimulatedBackend`, in one process.

As its benchmarks have it, rows become tensors before they are cut into users. pfl goes through a
dataset from the front, and keeps its batches for the next time; here they follow the plan, and are
cut in one operation, which is quicker than pfl's own slicing. Keras is the older one that pfl is
written for (TF_USE_LEGACY_KERAS=1): with Keras 3, whose variables of different layers share their
names, pfl keeps one kernel and one bias of the whole network. Ways: `graph`; `xla`, which pfl
offers as an environment variable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_FUNCTION_JIT_COMPILE_DEFAULT"] = "1" if sys.argv[-1] == "xla" else "0"

import numpy as np
import tensorflow as tf
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.tensorflow import TFModel

from benchmarks.peers.federation import Federation, answer
from benchmarks.peers.networks import network

keras = tf.keras


class Pfl:
    """pfl's loop over central iterations, some rounds at a time."""

    def __init__(self, federation: Federation, way: str) -> None:
        self._federation = federation
        self._round = 0
        self._network = network(keras, federation)
        self._network.set_weights(federation.weights)
        self._network.compile(
            keras.optimizers.SGD(federation.rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self._model = TFModel(self._network, {}, keras.optimizers.SGD(1.0))
        self._inputs = tf.constant(federation.inputs)
        self._labels = tf.constant(federation.labels)

    def run(self, rounds: int) -> None:
        federation = self._federation
        users = Users(federation, self._round, rounds)
        data = FederatedDataset(self._dataset, users)
        self._model = FederatedAveraging().run(
            NNAlgorithmParams(
                central_num_iterations=rounds,
                evaluation_frequency=rounds + 1,
                train_cohort_size=federation.cohort,
                val_cohort_size=0,
            ),
            SimulatedBackend(data, data, [WeightByDatapoints()]),
            self._model,
            NNTrainHyperParams(
                local_num_epochs=1,
                local_learning_rate=federation.rate,
                local_batch_size=federation.batch,
            ),
            send_metrics_to_platform=False,  # which would print them
        )
        self._round += rounds

    def weights(self) -> list[np.ndarray]:
        return self._network.get_weights()

    def _dataset(self, user: tuple[int, int]) -> Dataset:
        round, place = user
        rows = self._federation.plan_of(round)[place]
        return Planned((tf.gather(self._inputs, rows), tf.gather(self._labels, rows)))


class Planned(Dataset):
    """A user's rows, [steps, batch, ...]: cut into batches at once, not batch by batch."""

    def __len__(self) -> int:
        return int(np.prod(self.raw_data[1].shape))

    def iter(self, batch_size: int | None) -> Iterator[tuple]:
        return zip(*map(tf.unstack, self.raw_data), strict=True)


class Users:
    """pfl's user sampler: whose turn it is, as the plans have it."""

    def __init__(self, federation: Federation, first: int, rounds: int) -> None:
        ahead = range(first, first + rounds)
        self._ahead = iter([(r, place) for r in ahead for place in range(federation.cohort)])

    def __call__(self) -> tuple[int, int]:
        return next(self._ahead)


if __name__ == "__main__":
    answer(Pfl)
