"""TensorFlow Federated: `build_weighted_fed_avg` in its default, native C++ runtime.

Clients' rows are datasets that a round is called with, as its tutorials have it, batched in the
plan's order (a shuffling of its own would be another order). Ways: `keras`, the model from Keras;
`functional`, its functional form, which TFF has for speed.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks.peers.federation import Federation, answer
from benchmarks.peers.networks import network


class Tff:
    """A learning process, from one state to the next."""

    def __init__(self, federation: Federation, way: str) -> None:
        self._federation = federation
        self._round = 0
        specification = (
            tf.TensorSpec((None, *federation.shape), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        )
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if way == "functional":
            model = tff.learning.models.functional_model_from_keras(
                lambda: network(tf.keras, federation), loss, specification
            )
        else:

            def model() -> tff.learning.models.VariableModel:
                return tff.learning.models.from_keras_model(
                    network(tf.keras, federation), loss, specification
                )

        self._process = tff.learning.algorithms.build_weighted_fed_avg(
            model,
            client_optimizer_fn=tff.learning.optimizers.build_sgdm(federation.rate),
            server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
        )
        state = self._process.initialize()
        before = self._process.get_model_weights(state)
        first = tff.learning.models.ModelWeights(list(federation.weights), before.non_trainable)
        self._state = self._process.set_model_weights(state, first)

    def run(self, rounds: int) -> None:
        federation = self._federation
        for _ in range(rounds):
            plan = federation.plan_of(self._round)
            clients = [
                tf.data.Dataset.from_tensor_slices(
                    (federation.inputs[rows], federation.labels[rows])
                ).batch(federation.batch)
                for rows in plan.reshape(len(plan), -1)
            ]
            self._state = self._process.next(self._state, clients).state
            self._round += 1

    def weights(self) -> list[np.ndarray]:
        return list(self._process.get_model_weights(self._state).trainable)


if __name__ == "__main__":
    answer(Tff)
