"""The child of the engine: builds the process of a job and runs the rounds that it is asked for.

    python -m child.serve FOLDER DESCRIPTOR

FOLDER has `job.json`, `inputs.npy` and `labels.npy` (the rows, client by client). DESCRIPTOR is a
socket, over which come a round's plan and server state and go the new state, the clients' mean
movement, its weight, and each client's loss.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from .algorithms import filled, moved, process, read
from .models import PlannedModel, spec
from .wire import Closed, receive, send

WATCH = 0.5
"""Seconds between two looks at the keeper."""


class Rounds:
    """A process that is ready, and the rows of its clients."""

    def __init__(self, folder: Path) -> None:
        self.job = json.loads((folder / "job.json").read_text())
        self.start = np.array(self.job["start"])
        self.inputs = np.load(folder / "inputs.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy", mmap_mode="r")
        tff.backends.native.set_sync_local_cpp_execution_context(
            max_concurrent_computation_calls=self.job["workers"]
        )
        self.process = process(self.job, lambda: PlannedModel(self.job))
        self.begun = self.process.initialize()
        self.batches = _batches(self.job)

    def run(self, asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One round.

        asked: `clients` [clients]; their plan, as `fedsys.plan.Plan` has it, in places of the laid
        out rows; `counts` [clients], what each counts for; and the vectors of the server state,
        whose names begin with "state.", in the answer as well.
        """
        begun = time.perf_counter()
        strategy = self.job["strategy"]
        clients = [self._dataset(asked, place) for place in range(len(asked["clients"]))]
        before = {key: asked[f"state.{key}"] for key in self.job["state"]}
        output = self.process.next(filled(self.begun, strategy, before), clients)
        told = output.metrics["client_work"]["train"]
        delta = moved(output.metrics["aggregator"]["mean"], self.job)
        return {
            **{f"state.{key}": v for key, v in read(output.state, strategy, delta).items()},
            "delta": delta,
            "weight": np.array(output.metrics["aggregator"]["weight"], np.float64),
            "losses": np.asarray(told["losses"])[: len(clients)],
            "steps": np.asarray(told["steps"])[: len(clients)],
            "seconds": np.array(time.perf_counter() - begun),
        }

    def _dataset(self, asked: dict[str, np.ndarray], place: int) -> Any:
        """The batches of one client, in the order of its plan."""
        client = int(asked["clients"][place])
        low, high = self.start[client], self.start[client + 1]
        steps = slice(int(asked["first"][place]), int(asked["first"][place + 1]))
        begin, length = asked["begin"][steps], asked["length"][steps]
        base = int(begin[0])
        rows = asked["rows"][base : int(begin[-1] + length[-1])] - low
        counts = np.zeros(len(begin), np.int64)
        counts[0] = int(asked["counts"][place])
        whole = (np.array(self.inputs[low:high]), np.array(self.labels[low:high]), rows)
        variant = self.batches(*whole, np.int32(place), begin - base, length, counts)
        return tf.data.experimental.from_variant(variant, spec(self.job))


def _batches(job: dict[str, Any]) -> Callable[..., Any]:
    """The function that makes a data set of one client's rows and its plan, as a tensor. Traced
    once for all clients, which would else take longer than their training."""
    kinds = spec(job)
    vector = tf.TensorSpec([None], tf.int32)
    rows = kinds["x"], kinds["y"], vector, kinds["place"]

    @tf.function(input_signature=[*rows, vector, vector, tf.TensorSpec([None], tf.int64)])
    def batches(x: Any, y: Any, rows: Any, place: Any, begin: Any, length: Any, counts: Any) -> Any:
        def batch(begin: Any, length: Any, counts: Any) -> Any:
            chosen = rows[begin : begin + length]
            chosen_x, chosen_y = tf.gather(x, chosen), tf.gather(y, chosen)
            return OrderedDict(x=chosen_x, y=chosen_y, counts=counts, place=place)

        steps = tf.data.Dataset.from_tensor_slices((begin, length, counts))
        return tf.data.experimental.to_variant(steps.map(batch))

    return batches


def end_with(keeper: int) -> None:
    """Ends the group when the keeper is gone, which would have done it. There is no pipe to tell of
    that: TFF's worker would hold it open."""

    def watch() -> None:
        while os.getppid() == keeper:
            time.sleep(WATCH)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: Path, channel: socket.socket) -> None:
    """Serves rounds until the other side is gone. What goes wrong is told, and ends it."""
    try:
        rounds = Rounds(folder)
        gc.freeze()  # what is there stays: it need not be looked through after each round
        send(channel, {"ready": np.array([tff.__version__, tf.__version__])})
        while True:
            asked = receive(channel)
            send(channel, rounds.run(asked))
            gc.collect()  # TFF's computations hold on to their values in cycles
    except Closed:
        return
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        reason = " ".join(str(error).split())[:500]
        send(channel, {"error": np.array(f"{type(error).__name__}: {reason}")})


if __name__ == "__main__":
    end_with(os.getppid())
    main(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
