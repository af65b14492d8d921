"""Rounds of a workload as the simulation runs them, with and without what it writes to disk."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.pipes import serve
from benchmarks.timing import seconds
from benchmarks.workloads import SEED, Workload, workload
from fedsys.checkpoint import Checkpoints
from fedsys.engines.compiled import CompiledEngine
from fedsys.events import EventWriter
from fedsys.experiment import Experiment
from fedsys.layout import Layout
from fedsys.records import told
from fedsys.rounds import Round, State, begin, draw_cohort, run_rounds
from fedsys.runs import Run
from fedsys.setting import prepare
from fedsys.task import Task

ENDLESS = 10**9


class Rounds:
    """Rounds of an experiment, one after another, without evaluation."""

    def __init__(
        self, experiment: Experiment, task: Task, weights: list[np.ndarray] | None = None
    ) -> None:
        self.experiment = experiment
        self.setting = setting = prepare(experiment, task)
        self.engine = CompiledEngine(
            task,
            setting.model,
            setting.partition,
            experiment.strategy,
            experiment.local,
            seed=experiment.seed,
        )
        start = setting.weights if weights is None else setting.layout.flatten(weights)
        self._rounds = self._begin(setting.layout, start)

    def next(self) -> tuple[State, Round]:
        return next(self._rounds)

    def close(self) -> None:
        self.engine.close()

    def _begin(self, layout: Layout, weights: np.ndarray) -> Iterator[tuple[State, Round]]:
        strategy = self.experiment.strategy
        return run_rounds(
            begin(strategy, layout, weights),
            strategy,
            self.engine,
            layout,
            cohorts=self._cohort,
            population=self.setting.population,
            rounds=ENDLESS,
            quorum=self.experiment.quorum,
        )

    def _cohort(self, round: int) -> np.ndarray:
        """The cohort of a round; the next one's plan is begun, as in a simulation."""
        self.engine.prepare(round + 1, self._drawn)
        return self._drawn(round)

    def _drawn(self, round: int) -> np.ndarray:
        return draw_cohort(SEED, round, self.setting.clients, self.setting.cohort)


def rounds_of(work: Workload) -> Rounds:
    """The rounds of a workload, from its own first weights."""
    experiment = Experiment(
        clients=work.clients, cohort=work.cohort, local=work.local, partition="iid", seed=SEED
    )
    return Rounds(experiment, work.task(work.examples()), work.weights())


class Asked:
    """What the parent asks of the engine."""

    def __init__(self, work: Workload, folder: Path) -> None:
        self._work = work
        self._rounds = rounds_of(work)
        self._run = Run.create(folder / "run", self._rounds.experiment)
        trajectory = self._rounds.experiment.trajectory
        self._checkpoints = Checkpoints(self._run.folder / "checkpoints", trajectory)
        self._events = EventWriter(self._run.folder / "events")

    def turn(self, times: int, keep: bool) -> float:
        """Mean seconds of some rounds; keep: each is written down as in a simulation."""
        return seconds(self._kept if keep else self._rounds.next, times)

    def agree(self, path: str) -> None:
        """Writes the weights after a round of the comparable workload."""
        rounds = rounds_of(self._work.comparable())
        state, _ = rounds.next()
        rounds.close()
        np.save(path, state.weights)

    def how(self) -> str:
        """The engine's choices."""
        engine = self._rounds.engine
        prepared = engine._prepare(1, draw_cohort(SEED, 1, self._work.clients, self._work.cohort))
        lanes = len(prepared.lanes) - 1
        return f"{'XLA' if engine.xla else 'graph'}, {lanes} lane{'s' * (lanes > 1)}"

    def _kept(self) -> None:
        state, happened = self._rounds.next()
        started = time.perf_counter()
        record = told(happened)
        record["evaluation_seconds"] = round(time.perf_counter() - started, 6)
        self._run.record(record)
        self._events.write(state.round, record)
        self._checkpoints.save(state)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(workload(options.name, options.tiny), Path(folder))
        serve({"ready": asked.how, "turn": asked.turn, "agree": asked.agree})


if __name__ == "__main__":
    main()
