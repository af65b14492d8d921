"""Who the clients of an experiment are: whose rows are whose, and how many take part in a round."""

from __future__ import annotations

import numpy as np

from fedsys.errors import UsageError
from fedsys.experiment import Experiment
from fedsys.partition import Partition
from fedsys.partitions import Iid, Natural, Rule, draw
from fedsys.task import Examples

DEFAULT_CLIENTS = 100
DEFAULT_COHORT = 10


def rule_of(experiment: Experiment, examples: Examples) -> Rule:
    """The experiment's rule, or what the data's nature asks for where it names none."""
    return experiment.partition or (Iid() if examples.owners is None else Natural())


def draw_partition(experiment: Experiment, examples: Examples) -> Partition:
    """Who holds which rows: by the experiment's rule, or as the data's nature has it."""
    rule = rule_of(experiment, examples)
    clients = experiment.clients or DEFAULT_CLIENTS
    if isinstance(rule, Natural) and experiment.clients is None and examples.owners is not None:
        clients = int(examples.owners.max()) + 1
    return draw(rule, examples, clients, experiment.seed)


def cohort_size(experiment: Experiment, partition: Partition) -> int:
    """Clients a round. UsageError where there are not so many."""
    cohort = experiment.cohort or min(DEFAULT_COHORT, len(partition))
    if cohort > len(partition):
        raise UsageError(
            f"cohort {cohort} is larger than the {len(partition)} clients: lower --cohort or raise "
            "--clients"
        )
    return cohort


def enrolled_weights(partition: Partition, uniform: bool) -> np.ndarray:
    """[clients], what each counts: as many as its rows, or alike. Those without rows count none."""
    sizes = partition.sizes
    return (sizes > 0) * 1.0 if uniform else sizes * 1.0
