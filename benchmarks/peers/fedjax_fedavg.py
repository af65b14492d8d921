"""FedJAX: its federated averaging, over `for_each_client` with the jit or the pmap backend.

The model is plain JAX in FedJAX's `grad_fn`, which its documentation allows beside Haiku. Rows are
laid in the plan's order, and its batching goes through them without shuffling. Ways: `jit`, clients
one after another; `pmap`, one XLA device a core and a client on each, as its documentation has it.
"""

from __future__ import annotations

import os
import sys

if sys.argv[-1] == "pmap":  # read when JAX begins
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.cpu_count()}"

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

from benchmarks.peers.federation import Federation, answer


def dense(w, x, layer):
    return x @ w[2 * layer] + w[2 * layer + 1]


def convolution(w, x, layer, padding):
    layout = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(x, w[2 * layer], (1, 1), padding, dimension_numbers=layout)
    return jax.nn.relu(found + w[2 * layer + 1])


def pool(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def dropped(x, rate, key):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def logistic(w, x, key, dropout):
    return dense(w, x, 0)


def two_layers(w, x, key, dropout):
    x = jax.nn.relu(dense(w, x, 0))
    return dense(w, jax.nn.relu(dense(w, x, 1)), 2)


def small(w, x, key, dropout):
    x = pool(convolution(w, x, 0, "SAME"))
    x = pool(convolution(w, x, 1, "SAME"))
    return dense(w, x.reshape(len(x), -1), 2)


def cifar(w, x, key, dropout):
    first, second = jax.random.split(key)
    x = pool(convolution(w, convolution(w, x, 0, "VALID"), 1, "VALID"))
    x = dropped(x, 0.25, first) if dropout else x
    x = jax.nn.relu(dense(w, x.reshape(len(x), -1), 2))
    return dense(w, dropped(x, 0.5, second) if dropout else x, 3)


FORWARD = {"logistic": logistic, "2nn": two_layers, "convolution": small, "cifar": cifar}


class FedJax:
    """`fedjax.algorithms.fed_avg` from one round to the next."""

    def __init__(self, federation: Federation, way: str) -> None:
        fedjax.set_for_each_client_backend(way)
        self._federation = federation
        forward = FORWARD[federation.name]

        def loss(w, batch, key):
            logits = forward(w, batch["x"], key, federation.dropout)
            chosen = jnp.take_along_axis(logits, batch["y"][:, None], 1)[:, 0]
            return jnp.mean(jax.nn.logsumexp(logits, 1) - chosen)

        self._algorithm = fed_avg.federated_averaging(
            jax.grad(loss),
            fedjax.optimizers.sgd(federation.rate),
            fedjax.optimizers.sgd(1.0),
            fedjax.ShuffleRepeatBatchHParams(federation.batch, num_epochs=1, skip_shuffle=True),
        )
        self._state = self._algorithm.init([jnp.asarray(w) for w in federation.weights])
        self._keys = jax.random.PRNGKey(0)
        self._round = 0

    def run(self, rounds: int) -> None:
        federation = self._federation
        for _ in range(rounds):
            plan = federation.plan_of(self._round)
            self._keys, *keys = jax.random.split(self._keys, len(plan) + 1)
            clients = []
            for number, key, rows in zip(
                federation.cohort_of(self._round), keys, plan.reshape(len(plan), -1), strict=True
            ):
                columns = {"x": federation.inputs[rows], "y": federation.labels[rows]}
                clients.append((int(number), fedjax.ClientDataset(columns), key))
            self._state, _ = self._algorithm.apply(self._state, clients)
            self._round += 1
        jax.block_until_ready(self._state.params)

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self._state.params]


if __name__ == "__main__":
    answer(FedJax)
