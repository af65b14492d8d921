"""What every peer is given: the same rows, first weights, cohorts and batches, as files.

This module is imported in the peers' own environments: it needs NumPy alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.pipes import serve

AGREED = 2
"""Rounds after which the weights are compared: the second starts from the server's average."""


@dataclass(frozen=True)
class Federation:
    """A workload in which every client has the same number of rows, and what happens each round.

    inputs: [rows of all, *shape] float32; labels: [rows of all] int32.
    weights: where training starts, kernel and bias in turn, as Keras lays them out.
    cohorts: [rounds, cohort] client numbers; plans: [rounds, cohort, steps, batch] int32, the rows
    of each step. Rounds beyond these begin again with the first.
    """

    name: str
    clients: int
    rate: float
    dropout: bool
    inputs: np.ndarray
    labels: np.ndarray
    weights: tuple[np.ndarray, ...]
    cohorts: np.ndarray
    plans: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row of the inputs."""
        return self.inputs.shape[1:]

    @property
    def cohort(self) -> int:
        return self.plans.shape[1]

    @property
    def batch(self) -> int:
        return self.plans.shape[3]

    @property
    def rows(self) -> int:
        """Rows of a client."""
        return self.plans.shape[2] * self.batch

    def cohort_of(self, round: int) -> np.ndarray:
        """[cohort] client numbers; rounds count from 0."""
        return self.cohorts[round % len(self.cohorts)]

    def plan_of(self, round: int) -> np.ndarray:
        """[cohort, steps, batch] rows; rounds count from 0."""
        return self.plans[round % len(self.plans)]

    def nudged(self) -> Federation:
        """The same, but each first weight is a neighbouring float, by turns above and below."""
        ways = np.array([np.inf, -np.inf], np.float32)
        weights = tuple(
            np.nextafter(weight, np.resize(ways, weight.shape)) for weight in self.weights
        )
        return replace(self, weights=weights)

    def write(self, folder: Path) -> None:
        """Lays everything down in a new folder."""
        folder.mkdir(parents=True)
        for name in ("inputs", "labels", "cohorts", "plans"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        np.savez(folder / "weights.npz", *self.weights)
        plain = {name: getattr(self, name) for name in ("name", "clients", "rate", "dropout")}
        (folder / "federation.json").write_text(json.dumps(plain))

    @classmethod
    def read(cls, folder: Path, *, mapped: bool = False) -> Federation:
        """What lies in the folder; mapped: rows stay in the file until they are used."""
        plain = json.loads((folder / "federation.json").read_text())
        with np.load(folder / "weights.npz") as kept:
            weights = tuple(kept[f"arr_{number}"] for number in range(len(kept.files)))
        mode = "r" if mapped else None
        names = ("inputs", "labels", "cohorts", "plans")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in names}
        return cls(weights=weights, **arrays, **plain)


class Simulation(Protocol):
    """A peer at work on a federation."""

    def run(self, rounds: int) -> None:
        """The next rounds, to their end."""
        ...

    def weights(self) -> list[np.ndarray]:
        """The weights now, as Keras lays them out."""
        ...


def answer(start: Callable[[Federation, str], Simulation]) -> None:
    """Serves the benchmark: the command line is the folder and the way to run.

    start: makes a simulation of a federation in a way.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("way")
    options = parser.parse_args()
    serve(answers(start, options.folder, options.way))


def answers(
    start: Callable[[Federation, str], Simulation], folder: Path, way: str
) -> dict[str, Callable[..., Any]]:
    """What the benchmark may ask: `turn` starts the simulation at the first time."""
    running: list[Simulation] = []

    def turn(times: int) -> float:
        """Mean seconds of some rounds."""
        if not running:
            running.append(start(Federation.read(folder / "measured"), way))
        began = time.perf_counter()
        running[0].run(times)
        return (time.perf_counter() - began) / times

    def agree(path: str, federation: str) -> None:
        """Writes the weights after some rounds of a federation that is there for comparison."""
        simulation = start(Federation.read(folder / federation), way)
        simulation.run(AGREED)
        flat = [np.asarray(weight, np.float32).ravel() for weight in simulation.weights()]
        np.save(path, np.concatenate(flat))

    return {"turn": turn, "agree": agree}
