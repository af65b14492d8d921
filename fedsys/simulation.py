"""A simulation, from an experiment to a finished run folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from fedsys.checkpoint import Checkpoints
from fedsys.engine import Cohorts, Engine
from fedsys.engines import ENGINES, EngineChoice, chosen
from fedsys.errors import FedsysError, StorageError, TrainingError, UsageError
from fedsys.evaluation import Evaluator
from fedsys.events import EventWriter
from fedsys.experiment import Experiment
from fedsys.layout import write_weights
from fedsys.records import client_table, facts, told
from fedsys.report import figure_svg, partition_picture
from fedsys.rounds import State, begin, draw_cohort, run_rounds
from fedsys.runs import Run, new_folder
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
    engine: EngineChoice | str = "compiled",
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Runs an experiment and returns the finished run.

    task: data and a model of one's own, in place of the experiment's task.
    folder: where the run goes; by default one named after the experiment in `out`.
    engine: where cohorts are trained, by name or as one of `fedsys.engines`.
    workers: threads, or what works side by side in that engine; all cores by default.

    Raises FedsysError for whatever the caller can mend. Ctrl-C ends the run after the round in
    flight; `resume` goes on from there.
    """
    experiment = experiment or Experiment()
    choice = chosen(engine)
    setting = prepare(experiment, task, workers)
    place = Path(folder) if folder else new_folder(Path(out), setting.name)
    run = Run.create(place, experiment)
    state = begin(experiment.strategy, setting.layout, setting.weights)
    checkpoints = _checkpoints(run, setting)
    with run.locked():
        return _go_on(run, setting, state, checkpoints, choice, workers, watcher or Silent())


def resume(
    folder: Path | str,
    *,
    rounds: int | None = None,
    task: Task | None = None,
    out: Path | str = "runs",
    engine: EngineChoice | str | None = None,
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Goes on with a run from its last checkpoint: bit for bit what it would have come to.

    folder: of the run, or its name within `out`. rounds: where to stop instead, for a longer run.
    engine: the same as before by default; another comes to the same up to rounding.
    workers: as many as before by default: another number adds up in another order.
    """
    watcher = watcher or Silent()
    run = Run.open(folder, out)
    experiment = run.experiment
    if rounds is not None:
        experiment = Experiment.of({**experiment.table(), "rounds": rounds})
    with run.locked():
        workers = workers or run.known.get("workers")
        choice = chosen(engine or run.known.get("engine", "compiled"))
        setting = prepare(experiment, task, workers)
        checkpoints = _checkpoints(run, setting)
        state = _found(run, setting, checkpoints, watcher)
        if state.round > experiment.rounds:
            raise UsageError(
                f"{run.folder}: has done {state.round} rounds already: ask for more with --rounds"
            )
        if rounds is not None:
            write_atomic(run.folder / "experiment.toml", [experiment.toml().encode()])
            run = Run(run.folder)
        return _go_on(run, setting, state, checkpoints, choice, workers, watcher)


def _found(run: Run, setting: Setting, checkpoints: Checkpoints, watcher: Watcher) -> State:
    """The state that a run was left in. One that was killed in its first round has none yet."""
    state = begin(setting.experiment.strategy, setting.layout, setting.weights)
    if not checkpoints.exist() and len(run.records) <= 1:
        return state
    state, warnings = checkpoints.load(state)
    for warning in warnings:
        watcher.said(f"{warning}; going on from the checkpoint before it")
    told = sum(record["round"] <= state.round for record in run.records)
    if told < state.round:
        watcher.said(
            f"{run.folder / 'metrics.jsonl'}: has lost the metrics of {state.round - told} of the "
            f"{state.round} rounds done"
        )
    return state


def _go_on(
    run: Run,
    setting: Setting,
    state: State,
    checkpoints: Checkpoints,
    choice: EngineChoice,
    workers: int | None,
    watcher: Watcher,
) -> Run:
    """Runs the rounds that are left, and writes what a run leaves behind."""
    begun = time.perf_counter() - (_seconds(run) if state.round else 0.0)
    with (
        _telling(run, begun, watcher),
        _heard(watcher),
        choice.open(setting, workers) as engine,
    ):
        run.rewind(state.round)
        known = {key: run.known[key] for key in ("created",) if state.round and key in run.known}
        where = {"engine": ENGINES.short(choice), **engine.facts}
        run.say({"name": run.name, **facts(setting), **where, **known})
        run.say({"status": "running", "error": None})
        picture = partition_picture(
            setting.partition, setting.task.train.labels, setting.task.classes
        )
        write_atomic(run.folder / "partition.svg", [figure_svg(picture).encode()])
        watcher.begun(run, state)
        evaluator = Evaluator(setting)
        state = _rounds(run, setting, engine, evaluator, state, checkpoints, watcher)
        done = state.round == setting.experiment.rounds
        if done:
            _leave(run, setting, evaluator, state)
        _close(run, "done" if done else "stopped", begun)
        run.report()
    return run


@contextmanager
def _heard(watcher: Watcher) -> Iterator[None]:
    """Passes on to the watcher what an engine warns of, such as a worker that died."""
    log, handler = logging.getLogger("fedsys"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: watcher.said(record.getMessage())  # type: ignore[method-assign]
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


@contextmanager
def _telling(run: Run, begun: float, watcher: Watcher) -> Iterator[None]:
    """Writes down how a run ended where it ended badly."""
    try:
        yield
    except StorageError as error:
        with suppress(StorageError):  # there may be no room to say it
            _close(run, "failed", begun, str(error))
        raise StorageError(
            f"{error}; what was there is kept: then go on with --resume {run.folder}"
        ) from error
    except FedsysError as error:
        _close(run, "failed", begun, str(error))
        raise
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        reason = str(getattr(error, "message", error)).partition(" [Op:")[0].splitlines()
        message = f"out of memory ({' '.join(reason[:1])}): lower --batch, --workers or --cohort"
        _close(run, "failed", begun, message)
        raise TrainingError(message) from error
    except KeyboardInterrupt:
        _close(run, "stopped", begun)
        watcher.said(f"interrupted; go on with --resume {run.folder}")
        raise


def _close(run: Run, status: str, begun: float, error: str | None = None) -> None:
    seconds = round(time.perf_counter() - begun, 3)
    run.say({"status": status, "error": error, "seconds": seconds})


def _seconds(run: Run) -> float:
    """How long a run took so far. One that was killed had no time to say it."""
    timed = ("seconds", "evaluation_seconds")
    rounds = sum(record.get(key, 0.0) for record in run.records for key in timed)
    return max(float(run.known.get("seconds", 0.0)), float(rounds))


def _rounds(
    run: Run,
    setting: Setting,
    engine: Engine,
    evaluator: Evaluator,
    state: State,
    checkpoints: Checkpoints,
    watcher: Watcher,
) -> State:
    """Runs rounds until all are done or somebody asks to stop, and returns the last state."""
    experiment = setting.experiment
    rounds = run_rounds(
        state,
        experiment.strategy,
        engine,
        setting.layout,
        cohorts=_cohorts(setting, engine),
        population=setting.population,
        rounds=experiment.rounds,
        quorum=experiment.quorum,
        needs=experiment.aggregator.needs,
    )
    stopping = partial(watcher.said, "stopping after this round; once more to stop at once")
    with EventWriter(run.folder / "events") as events, asked_to_stop(stopping) as stop:
        for state, happened in rounds:
            started = time.perf_counter()
            record = {**told(happened), **evaluator.due(state.round, state.weights)}
            record["evaluation_seconds"] = round(time.perf_counter() - started, 6)
            run.record(record)
            events.write(state.round, record)
            checkpoints.save(state)  # last: a round without it is done again
            watcher.round(record)
            if stop():
                break
    return state


def _cohorts(setting: Setting, engine: Engine) -> Cohorts:
    """The cohorts of a run. As one is asked for, the engine begins to plan the next."""
    experiment = setting.experiment

    def drawn(round: int) -> np.ndarray:
        return draw_cohort(experiment.seed, round, setting.clients, setting.cohort)

    def cohort(round: int) -> np.ndarray:
        if round < experiment.rounds:
            engine.prepare(round + 1, drawn)
        return drawn(round)

    return cohort


def _checkpoints(run: Run, setting: Setting) -> Checkpoints:
    trajectory, data = setting.experiment.trajectory, setting.task.train.fingerprint
    return Checkpoints(run.folder / "checkpoints", trajectory, data)


def _leave(run: Run, setting: Setting, evaluator: Evaluator, state: State) -> None:
    """Writes the model and each client's scores."""
    write_weights(setting.model, state.weights)
    _save_model(setting, run.folder / "model.keras")
    scores = evaluator.clients(state.weights)
    write_atomic(run.folder / "clients.csv", [client_table(setting, scores).encode()])


def _save_model(setting: Setting, path: Path) -> None:
    """Writes the model as a Keras file, which appears whole or not at all."""
    part = path.with_name(f".part{path.suffix}")  # Keras looks at the suffix
    try:
        with storing(path):
            setting.model.save(part)
            os.replace(part, path)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise TrainingError(
            f"task {setting.task.name!r}: Keras cannot save the model: {error}: "
            "give its classes a get_config and @keras.saving.register_keras_serializable()"
        ) from error
    finally:
        part.unlink(missing_ok=True)
