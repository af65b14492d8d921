"""An experiment made concrete: data loaded, partition drawn, model built."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from fedsys.aggregators.bounds import check_cohort
from fedsys.engines.compiled import use_threads
from fedsys.errors import FedsysError, TrainingError
from fedsys.experiment import Experiment
from fedsys.layout import Layout, read_weights
from fedsys.objectives import Objective, objective
from fedsys.owners import cohort_size, draw_partition, enrolled_weights, rule_of
from fedsys.partition import Partition
from fedsys.partitions import Natural
from fedsys.randomness import seeded_globals
from fedsys.strategies import STRATEGIES
from fedsys.task import Task


@dataclass(frozen=True)
class Setting:
    """What a run needs beside an engine.

    weights: [layout length], of the model before the first round.
    handed: whether the task is a value of the caller's, and not what the experiment names.
    """

    experiment: Experiment
    task: Task
    objective: Objective
    partition: Partition
    cohort: int
    model: keras.Model
    layout: Layout
    weights: np.ndarray
    handed: bool = False

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self.partition)

    @cached_property
    def enrolled(self) -> np.ndarray:
        """[clients], the weight that each counts with."""
        return enrolled_weights(self.partition, self.experiment.weighting == "uniform")

    @property
    def population(self) -> float:
        """The weight of all clients together."""
        return float(self.enrolled.sum())

    @property
    def natural(self) -> bool:
        """Whether the clients are the owners that the data has in nature."""
        return isinstance(rule_of(self.experiment, self.task.train), Natural)

    @property
    def name(self) -> str:
        """A name that says what is run, and tells experiments apart."""
        strategy = STRATEGIES.name_of(self.experiment.strategy)
        return f"{self.task.name}-{strategy}-{self.experiment.name[:8]}"


def prepare(
    experiment: Experiment, task: Task | None = None, workers: int | None = None
) -> Setting:
    """Loads the data, draws the partition and builds the model of an experiment."""
    handed = task is not None
    task = task or experiment.task.load()
    partition = draw_partition(experiment, task.train)
    cohort = cohort_size(experiment, partition)
    check_cohort(experiment.aggregator, experiment.quorum, cohort)
    use_threads(workers or os.cpu_count() or 1, cohort)
    with seeded_globals(experiment.seed):
        model = _built(task)
    goal = objective(task.objective)
    goal.fits(tuple(model.output_shape), np.concatenate([task.train.labels, task.test.labels]))
    return Setting(
        experiment,
        task,
        goal,
        partition,
        cohort,
        model,
        Layout.of(model),
        read_weights(model),
        handed,
    )


def _built(task: Task) -> keras.Model:
    shape = task.train.inputs.shape[1:]
    try:
        model = task.model()
        if isinstance(model, keras.Model):
            if not model.built:
                model.build((None, *shape))
            # Without numbers: says whether the layers fit each other and the rows.
            model(keras.KerasTensor((None, *shape), task.train.inputs.dtype.name))
    except FedsysError:
        raise
    except Exception as error:  # a user's model may raise anything
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"task {task.name!r}: the model cannot be built for rows of shape {shape}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if not isinstance(model, keras.Model):
        raise TrainingError(
            f"task {task.name!r}: model() gave {type(model).__name__}, not a Keras model"
        )
    return model
