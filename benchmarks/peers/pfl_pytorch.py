"""pfl-research with PyTorch: `FederatedAveraging` over `SimulatedBackend`.

Ways: `one`, one process with all cores; `many`, a process a core with one thread each, among which
pfl divides the cohort and adds up by `torch.distributed`, as under torchrun. Weights are turned
from Keras's layout to PyTorch's and back: filters, and the rows of the kernel after a flattening.
"""
# ruff: noqa: E402 - importing pfl waits for the other processes

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORLD = (os.cpu_count() or 1) if sys.argv[-1] == "many" else 1
RANK = int(os.environ.get("RANK", "0"))
OTHERS: list[subprocess.Popen] = []


def start_others() -> None:
    """Starts the other processes, which wait for each other as soon as they import pfl."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "peers",  # what torchrun sets, and pfl looks for
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
    }
    command = [sys.executable, "-m", "benchmarks.peers.pfl_pytorch", *sys.argv[1:]]
    for rank in range(1, WORLD):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        OTHERS.append(subprocess.Popen(command, env={**os.environ, **place}, **pipes))
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}


if __name__ == "__main__" and WORLD > 1 and "RANK" not in os.environ:
    start_others()

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.federation import Federation, answers
from benchmarks.pipes import serve


class Network(nn.Module):
    """The workload's network, with the loss that pfl asks of a module."""

    def __init__(self, federation: Federation) -> None:
        super().__init__()
        dropout = [nn.Dropout(0.25), nn.Dropout(0.5)] if federation.dropout else [nn.Identity()] * 2
        self.body = {
            "logistic": lambda: nn.Sequential(nn.Linear(784, 10)),
            "2nn": lambda: nn.Sequential(
                nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
            ),
            "convolution": lambda: nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(784, 10),
            ),
            "cifar": lambda: nn.Sequential(
                nn.Conv2d(3, 32, 3),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                dropout[0],
                nn.Flatten(),
                nn.Linear(12544, 128),
                nn.ReLU(),
                dropout[1],
                nn.Linear(128, 10),
            ),
        }[federation.name]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.train()
        return cross_entropy(self(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict:
        return {}


def to_torch(weights: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Keras's kernels and biases as PyTorch has them."""
    found = []
    for weight, channels in _with_channels(weights):
        if weight.ndim == 4:
            found.append(weight.transpose(3, 2, 0, 1))
        elif channels:  # rows were counted [height, width, channels]
            side = int(np.sqrt(len(weight) // channels))
            cube = weight.reshape(side, side, channels, -1)
            found.append(cube.transpose(3, 2, 0, 1).reshape(weight.shape[1], -1))
        else:
            found.append(weight.T)
    return found


def to_keras(weights: list[np.ndarray], like: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """What `to_torch` turned, turned back."""
    found = []
    for weight, (shape, channels) in zip(weights, _with_channels(like), strict=True):
        if shape.ndim == 4:
            found.append(weight.transpose(2, 3, 1, 0))
        elif channels:
            side = int(np.sqrt(len(shape) // channels))
            cube = weight.reshape(-1, channels, side, side)
            found.append(cube.transpose(2, 3, 1, 0).reshape(shape.shape))
        else:
            found.append(weight.T)
    return found


def _with_channels(weights: tuple[np.ndarray, ...]) -> Iterator[tuple[np.ndarray, int]]:
    """Each weight, and the channels that were flattened before it if it comes after that."""
    before = 0
    for weight in weights:
        yield weight, before if weight.ndim == 2 else 0
        before = weight.shape[-1] if weight.ndim == 4 or (weight.ndim == 1 and before) else 0


class Pfl:
    """pfl's loop over central iterations, some rounds at a time."""

    def __init__(self, federation: Federation, way: str) -> None:
        torch.set_num_threads(1 if WORLD > 1 else os.cpu_count() or 1)
        self._federation = federation
        self._round = 0
        network = Network(federation)
        self._parameters = list(network.parameters())
        with torch.no_grad():
            for mine, given in zip(self._parameters, to_torch(federation.weights), strict=True):
                mine.copy_(torch.from_numpy(np.ascontiguousarray(given)))
        central = torch.optim.SGD(self._parameters, lr=1.0)
        self._model = PyTorchModel(network, torch.optim.SGD, central)
        inputs = torch.from_numpy(federation.inputs)
        pictures = len(federation.shape) == 3
        self._inputs = inputs.permute(0, 3, 1, 2).contiguous() if pictures else inputs
        self._labels = torch.from_numpy(federation.labels.astype(np.int64))

    def run(self, rounds: int) -> None:
        federation = self._federation
        data = FederatedDataset(self._dataset, Users(federation, self._round, rounds))
        FederatedAveraging().run(
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
        found = [weight.detach().numpy() for weight in self._parameters]
        return to_keras(found, self._federation.weights)

    def _dataset(self, user: tuple[int, int]) -> Dataset:
        round, place = user
        rows = torch.from_numpy(self._federation.plan_of(round)[place].ravel())
        return Dataset((self._inputs[rows], self._labels[rows]))


class Users:
    """pfl's user sampler: whose turn it is in this process, as the plans have it.

    pfl draws one user for each process and takes its own of them: here they are all the same.
    """

    def __init__(self, federation: Federation, first: int, rounds: int) -> None:
        mine = [
            (round, place)
            for round in range(first, first + rounds)
            for place in range(RANK, federation.cohort, WORLD)
        ]
        self._ahead = iter([user for user in mine for _ in range(WORLD)])

    def __call__(self) -> tuple[int, int]:
        return next(self._ahead)


def together(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call in this process, while the others are asked the same."""

    def asked(**options: Any) -> Any:
        for rank, other in enumerate(OTHERS, start=1):
            theirs = dict(options)
            if "path" in theirs:
                theirs["path"] += f".{rank}.npy"
            print(json.dumps({"do": name, **theirs}), file=other.stdin, flush=True)
        answer = call(**options)
        for other in OTHERS:
            if not other.stdout.readline():
                raise RuntimeError("another process of pfl ended")
        return answer

    return asked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("way", choices=["one", "many"])
    options = parser.parse_args()
    mine = answers(Pfl, options.folder, options.way)
    serve({name: together(name, call) for name, call in mine.items()})


if __name__ == "__main__":
    main()
