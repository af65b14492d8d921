"""Models that a demonstration compares with the federation's, and all of them on the test rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.federation.demo.outcome import POOLED
from fedsys.federation.home import Home
from fedsys.federation.jobs.request import Request
from fedsys.partitions import Iid
from fedsys.tables import Preparation, Schema, Source, prepare, task_of_sources

if TYPE_CHECKING:
    import keras

    from fedsys.runs import Run


def simulated(
    schema: Schema,
    request: Request,
    sources: Mapping[str, Source],
    test: Source,
    folder: Path,
    look: Callable[[], object],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(labels [test rows], model -> its outputs on them): of each owner alone, and of all pooled.

    Each is the request's experiment with one client that has all the rows, scaled by their own
    statistics. folder: where the runs go. look: is called after every round.
    """
    from fedsys.flower.app.loading import quiet_imports
    from fedsys.stopping import asked_to_stop

    experiment = replace(request.experiment, partition=Iid(), clients=1, evaluate=0)
    held = {**{name: {name: source} for name, source in sources.items()}, POOLED: sources}
    build = partial(request.build, schema)
    outputs = {}
    # An import that is cut off by Ctrl-C may fail as anything, so it is heard between the steps.
    with asked_to_stop(lambda: None) as asked:
        with quiet_imports():
            from fedsys.simulation import simulate
        for name, rows in held.items():
            if asked():
                raise KeyboardInterrupt
            task = task_of_sources(schema, rows, build, test=test, name=name)
            run = simulate(experiment, task=task, folder=folder / name, watcher=_Looking(look))
            if run.facts["status"] != "done":  # the simulation heard it, and ended its run
                raise KeyboardInterrupt
            outputs[name] = _outputs(run.model, task.test.inputs)
    if asked():
        raise KeyboardInterrupt
    return task.test.labels, outputs


def federated(
    home: Home, request: Request, tensors: Mapping[str, np.ndarray], test: Source
) -> np.ndarray:
    """[test rows], the outputs of a federation's model, with the scaling that its banks had."""
    from fedsys.layout import write_weights

    said = json.loads((home.folder / "preparation.json").read_text())
    preparation = Preparation.of(said, home.schema)
    model = request.build(home.schema)
    write_weights(model, np.concatenate([tensor.ravel() for tensor in tensors.values()]))
    return _outputs(model, prepare(test, home.schema, preparation).inputs)


def _outputs(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(model(inputs)).reshape(-1)


class _Looking:
    """A watcher of a simulation that looks after something else meanwhile."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look

    def begun(self, run: Run, state: Any) -> None:
        self._look()

    def round(self, record: dict[str, Any]) -> None:
        self._look()

    def said(self, line: str) -> None: ...
