"""A simulation, from an experiment to a finished run folder."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fedsys.checkpoint import Checkpoints
from fedsys.compiled import CompiledEngine
from fedsys.errors import FedsysError, StorageError, UsageError
from fedsys.evaluation import Evaluator
from fedsys.events import EventWriter
from fedsys.experiment import Experiment
from fedsys.layout import write_weights
from fedsys.pictures import figure_svg, partition_picture
from fedsys.records import client_table, facts, told
from fedsys.rounds import State, begin, draw_cohort, run_rounds
from fedsys.runs import Run, free_folder
from fedsys.setting import Setting, prepare
from fedsys.stopping import asked_to_stop
from fedsys.storage import storing, write_atomic
from fedsys.task import Task


class Watcher(Protocol):
    """Sees a run as it goes, such as a progress bar."""

    def begun(self, run: Run, state: State) -> None:
        """The run is about to go on from `state`."""

    def round(self, record: dict[str, Any]) -> None:
        """A round is done and safe on disk; `record` is its line of metrics."""

    def said(self, line: str) -> None:
        """Something that the user should know, and that ends nothing."""


class Silent:
    """A watcher that looks away."""

    def begun(self, run: Run, state: State) -> None: ...

    def round(self, record: dict[str, Any]) -> None: ...

    def said(self, line: str) -> None: ...


def simulate(
    experiment: Experiment | None = None,
    *,
    task: Task | None = None,
    folder: Path | str | None = None,
    out: Path | str = "runs",
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Runs an experiment on this machine and returns the finished run.

    task: data and a model of one's own, in place of the experiment's task.
    folder: where the run goes; by default one named after the experiment in `out`.
    workers: threads; all cores by default.

    Raises FedsysError for whatever the caller can mend. Ctrl-C ends the run after the round in
    flight; `resume` goes on from there.
    """
    experiment = experiment or Experiment()
    setting = prepare(experiment, task, workers)
    place = Path(folder) if folder else free_folder(Path(out), setting.name)
    run = Run.create(place, experiment)
    state = begin(experiment.strategy, setting.layout, setting.weights)
    return _go_on(run, setting, state, _checkpoints(run, setting), workers, watcher or Silent())


def resume(
    folder: Path | str,
    *,
    rounds: int | None = None,
    task: Task | None = None,
    out: Path | str = "runs",
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Goes on with a run from its last checkpoint: bit for bit what it would have come to.

    folder: of the run, or its name within `out`. rounds: where to stop instead, for a longer run.
    """
    watcher = watcher or Silent()
    run = Run.open(Path(folder), Path(out))
    experiment = run.experiment
    if rounds is not None:
        experiment = Experiment.of({**experiment.table(), "rounds": rounds})
    setting = prepare(experiment, task, workers)
    state = begin(experiment.strategy, setting.layout, setting.weights)
    checkpoints = _checkpoints(run, setting)
    if run.records:
        state, warnings = checkpoints.load(state)
        for warning in warnings:
            watcher.said(f"{warning}; going on from the checkpoint before it")
    if state.round > experiment.rounds:
        raise UsageError(
            f"{run.folder}: has done {state.round} rounds already: ask for more with --rounds"
        )
    write_atomic(run.folder / "experiment.toml", [experiment.toml().encode()])
    return _go_on(Run(run.folder), setting, state, checkpoints, workers, watcher)


def _go_on(
    run: Run,
    setting: Setting,
    state: State,
    checkpoints: Checkpoints,
    workers: int | None,
    watcher: Watcher,
) -> Run:
    """Runs the rounds that are left, and writes what a run leaves behind."""
    with run.locked():
        started = time.perf_counter()
        before = run.facts.get("seconds", 0.0) if state.round else 0.0

        def close(status: str, error: str | None = None) -> None:
            seconds = round(before + time.perf_counter() - started, 3)
            run.say({"status": status, "error": error, "seconds": seconds})

        run.rewind(state.round)
        engine = _engine(setting, workers)
        try:
            run.say({"name": run.name, **facts(setting, engine), "status": "running"})
            picture = partition_picture(
                setting.partition, setting.task.train.labels, setting.task.classes
            )
            write_atomic(run.folder / "partition.svg", [figure_svg(picture).encode()])
            watcher.begun(run, state)
            state = _rounds(run, setting, engine, state, checkpoints, watcher)
            if state.round == setting.experiment.rounds:
                _leave(run, setting, state)
                close("done")
            else:
                close("stopped")
            run.report()
        except StorageError:
            raise  # there may be no room to say more
        except FedsysError as error:
            close("failed", str(error))
            raise
        finally:
            engine.close()
    return run


def _rounds(
    run: Run,
    setting: Setting,
    engine: CompiledEngine,
    state: State,
    checkpoints: Checkpoints,
    watcher: Watcher,
) -> State:
    """Runs rounds until all are done or somebody asks to stop, and returns the last state."""
    experiment = setting.experiment
    evaluator = Evaluator(setting)
    rounds = run_rounds(
        state,
        experiment.strategy,
        engine,
        setting.layout,
        cohorts=partial(_cohort, setting, engine),
        population=engine.population,
        rounds=experiment.rounds,
        quorum=experiment.quorum,
    )
    with EventWriter(run.folder / "events") as events, asked_to_stop() as stop:
        for state, happened in rounds:
            started = time.perf_counter()
            record = {**told(happened), **evaluator.due(state.round, state.weights)}
            record["evaluation_seconds"] = round(time.perf_counter() - started, 6)
            run.record(record)
            checkpoints.save(state)
            events.write(state.round, record)
            watcher.round(record)
            if stop():
                break
    return state


def _cohort(setting: Setting, engine: CompiledEngine, round: int) -> np.ndarray:
    """The cohort of a round. The plan of the next is begun to be drawn, beside this one's work."""
    seed, clients, cohort = setting.experiment.seed, setting.clients, setting.cohort
    if round < setting.experiment.rounds:
        engine.prepare(round + 1, draw_cohort(seed, round + 1, clients, cohort))
    return draw_cohort(seed, round, clients, cohort)


def _engine(setting: Setting, workers: int | None) -> CompiledEngine:
    experiment = setting.experiment
    return CompiledEngine(
        setting.task,
        setting.model,
        setting.partition,
        experiment.strategy,
        experiment.local,
        seed=experiment.seed,
        uniform=experiment.weighting == "uniform",
        fault=experiment.faults,
        workers=workers,
        xla={"auto": None, "xla": True, "graph": False}[experiment.compiler],
    )


def _checkpoints(run: Run, setting: Setting) -> Checkpoints:
    return Checkpoints(run.folder / "checkpoints", setting.experiment.trajectory)


def _leave(run: Run, setting: Setting, state: State) -> None:
    """Writes the model and each client's scores."""
    write_weights(setting.model, state.weights)
    part = run.folder / "part.keras"
    with storing(run.folder / "model.keras"):
        setting.model.save(part)
        os.replace(part, run.folder / "model.keras")
    scores = Evaluator(setting).clients(state.weights)
    write_atomic(run.folder / "clients.csv", [client_table(setting, scores).encode()])
