"""Every engine hands the same updates to the same rule."""

from __future__ import annotations

import numpy as np
import pytest

from fedsys.engines import ENGINES
from fedsys.errors import UsageError
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.partitions import Natural
from fedsys.setting import prepare
from fedsys.task import Examples, Task

from ..engines.rounds import run, same
from ..federations import linear_model

SIZES = (7, 13, 4, 0, 22, 5, 9, 8, 6)


def task():
    """A regression on clients of these sizes, each with a slope of its own."""
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    slopes = rng.normal(size=(len(SIZES), 4))
    inputs = rng.normal(size=(len(owners), 4)).astype("f4")
    labels = (inputs * slopes[owners]).sum(axis=1).astype("f4")

    def model():
        return linear_model(4, "float32")

    examples = Examples(inputs, labels, owners)
    return Task("ragged", model, examples, examples, objective="squared")


def setting(aggregator, **said):
    said = {"cohort": 8, "quorum": 0.75, "rounds": 3, **said}
    return prepare(
        Experiment(
            partition=Natural(), clients=len(SIZES), aggregator=aggregator,
            local=Local(epochs=2, batch=4, rate=0.05), **said,
        ),
        task(),
        2,
    )  # fmt: skip


def compared(engine, aggregator, **said):
    missing = ENGINES.parse(engine).status().missing
    if missing:
        pytest.skip(f"{missing}: fedsys engines install {engine.partition(':')[0]}")
    given = setting(aggregator, **said)
    expected = run(ENGINES.parse("compiled"), given)
    same(expected, run(ENGINES.parse(engine), given))
    assert np.abs(expected[-1][0].weights - given.weights).max() > 1e-2


@pytest.mark.parametrize("aggregator", ["median", "trimmed:1", "krum:1", "krum:1,3", "clipped:0.2"])
def test_flowers_messages_come_to_the_same(aggregator):
    compared("flower:in-process", aggregator, faults="sign-flip:0.2")


def test_tff_says_that_it_has_none():
    with (
        pytest.raises(UsageError, match="engine 'tff': aggregator krum:1 is not to be had in it"),
        ENGINES.parse("tff").open(setting("krum:1"), 1),
    ):
        pass
