"""Rounds of any engine from one setting, for tests that compare engines."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedsys.engine import Engine
from fedsys.engines import EngineChoice
from fedsys.rounds import Round, State, begin, draw_cohort, run_rounds
from fedsys.setting import Setting


def rounds(
    engine: Engine, setting: Setting, count: int, start: State | None = None
) -> list[tuple[State, Round]]:
    """The states after each of the rounds up to number `count`, and what led to them."""
    experiment = setting.experiment
    strategy, seed = experiment.strategy, experiment.seed
    return list(
        run_rounds(
            start or begin(strategy, setting.layout, setting.weights),
            strategy,
            engine,
            setting.layout,
            cohorts=lambda n: draw_cohort(seed, n, setting.clients, setting.cohort),
            population=setting.population,
            rounds=count,
            quorum=experiment.quorum,
            needs=experiment.aggregator.needs,
        )
    )


def run(choice: EngineChoice, setting: Setting, count: int = 3) -> list[tuple[State, Round]]:
    """The rounds of an engine that is opened for them."""
    with choice.open(setting, 2) as engine:
        return rounds(engine, setting, count)


def same(one: Any, other: Any, atol: float = 1e-6) -> None:
    """Asserts that two runs came to the same: states, clients, weights, losses and refusals."""
    assert len(one) == len(other)
    for (state, happened), (other_state, other_happened) in zip(one, other, strict=True):
        for mine, theirs in zip(state.server, other_state.server, strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=atol)
        mine, theirs = happened.aggregate, other_happened.aggregate
        np.testing.assert_allclose(theirs.delta, mine.delta, rtol=0, atol=atol)
        np.testing.assert_array_equal(theirs.admitted, mine.admitted)
        np.testing.assert_allclose(theirs.losses, mine.losses, rtol=1e-5, atol=1e-6)
        assert theirs.weight == mine.weight and theirs.empty == mine.empty
        assert [r.client for r in theirs.refused] == [r.client for r in mine.refused]
