"""Flower's simulation: its `FedAvg` and a ClientApp on Ray, with an actor a core.

A SuperNode for each client; the strategy sends a round to the plan's cohort. An actor keeps its
model and reads its rows from mapped files, as whoever wants speed does; the documentation's first
example builds and loads them anew for each message. Ways: `fit`, `keras.Model.fit` as in the
documentation; `graph`, an epoch of the client in one `tf.function`.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "KERAS_BACKEND": "tensorflow",
}

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers.federation import AGREED, Federation
from benchmarks.pipes import serve

# --- the client -----------------------------------------------------------------------------------


@functools.cache
def training(folder: str, way: str) -> tuple[Federation, Callable[..., list[np.ndarray]]]:
    """The federation and how a client of it is trained; kept by an actor for later messages."""
    import keras
    import tensorflow as tf

    from benchmarks.workloads import WORKLOADS

    tf.config.threading.set_intra_op_parallelism_threads(1)  # the actors have a core each
    federation = Federation.read(Path(folder), mapped=True)
    work = WORKLOADS[federation.name]
    model = work.model() if federation.dropout else work.comparable().model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(federation.rate), loss)

    @tf.function
    def epoch(x: tf.Tensor, y: tf.Tensor) -> None:
        for step in tf.range(tf.shape(x)[0]):
            with tf.GradientTape() as tape:
                value = loss(y[step], model(x[step], training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
                variable.assign_sub(federation.rate * gradient)

    def train(weights: list[np.ndarray], plan: np.ndarray) -> list[np.ndarray]:
        model.set_weights(weights)
        if way == "graph":
            epoch(federation.inputs[plan], federation.labels[plan])
        else:
            rows = plan.ravel()
            x, y = federation.inputs[rows], federation.labels[rows]
            model.fit(x, y, batch_size=federation.batch, shuffle=False, verbose=0)
        return model.get_weights()

    return federation, train


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """A client's epoch, in the plan's order."""
    asked = message.content["config"]
    federation, epoch = training(str(asked["folder"]), str(asked["way"]))
    plan = federation.plan_of(int(asked["round"]))[int(asked["place"])]
    weights = epoch(message.content["arrays"].to_numpy_ndarrays(), plan)
    answer = {
        "arrays": ArrayRecord(weights),
        "metrics": MetricRecord({"num-examples": plan.size}),
    }
    return Message(RecordDict(answer), reply_to=message)


# --- the server -----------------------------------------------------------------------------------


class Planned(FedAvg):
    """Flower's FedAvg, whose cohorts are the plan's: client k is the k-th node."""

    def __init__(self, federation: Federation, folder: Path, way: str) -> None:
        super().__init__(fraction_evaluate=0.0)
        self._federation = federation
        self._asked = {"folder": str(folder), "way": way}
        self.done = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        nodes = sorted(grid.get_node_ids())
        for place, number in enumerate(self._federation.cohort_of(self.done)):
            asked = ConfigRecord({**self._asked, "round": self.done, "place": place})
            yield Message(
                RecordDict({"arrays": arrays, "config": asked}),
                message_type="train",
                dst_node_id=nodes[int(number)],
            )
        self.done += 1


class Flower:
    """A strategy and the arrays it has come to."""

    def __init__(self, grid: Grid, folder: Path, way: str) -> None:
        federation = Federation.read(folder, mapped=True)
        while len(list(grid.get_node_ids())) < federation.clients:  # nodes join one by one
            time.sleep(0.05)
        self._grid = grid
        self._strategy = Planned(federation, folder, way)
        self._arrays = ArrayRecord(list(federation.weights))

    def run(self, rounds: int) -> None:
        done = self._strategy.done
        result = self._strategy.start(self._grid, self._arrays, num_rounds=rounds)
        if self._strategy.done != done + rounds or len(result.train_metrics_clientapp) != rounds:
            raise RuntimeError("clients failed")
        self._arrays = result.arrays

    def weights(self) -> list[np.ndarray]:
        return self._arrays.to_numpy_ndarrays()


def functions(grid: Grid, folder: Path, way: str) -> dict[str, Callable[..., Any]]:
    """What the benchmark may ask, as of the other peers."""
    running: list[Flower] = []

    def turn(times: int) -> float:
        if not running:
            running.append(Flower(grid, folder / "measured", way))
        began = time.perf_counter()
        running[0].run(times)
        return (time.perf_counter() - began) / times

    def agree(path: str, federation: str) -> None:
        other = Flower(grid, folder / federation, way)
        other.run(AGREED)
        np.save(path, np.concatenate([weight.ravel() for weight in other.weights()]))

    return {"turn": turn, "agree": agree}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("way", choices=["fit", "graph"])
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    server = ServerApp()

    @server.main()
    def serve_benchmark(grid: Grid, context: Context) -> None:
        serve(functions(grid, options.folder, options.way))

    ray = {"address": "local", "num_cpus": os.cpu_count() or 1, "include_dashboard": False}
    try:
        run_simulation(
            server_app=server,
            client_app=client,
            num_supernodes=Federation.read(options.folder / "measured", mapped=True).clients,
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": ray,
            },
        )
    except BaseException:  # the ServerApp's thread would wait for ever
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    from benchmarks.peers.flower import main as importable

    # Ray's actors import the ClientApp by name, which a module that is run does not have.
    importable()
