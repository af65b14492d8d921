"""What an aggregator asks of a federation, said before anything runs."""

from __future__ import annotations

import math

from fedsys.aggregator import Aggregator, Mean
from fedsys.aggregators import named
from fedsys.aggregators.median import Median
from fedsys.errors import UsageError
from fedsys.strategies import STRATEGIES
from fedsys.strategy import Strategy


def check_strategy(aggregator: Aggregator, strategy: Strategy) -> None:
    """Raises UsageError where a strategy's clients send more than updates: what an aggregator does
    not look at, a faulty client could fill as it likes."""
    if strategy.remembers and not isinstance(aggregator, Mean):
        raise UsageError(
            f"strategy {STRATEGIES.name_of(strategy)!r} adds up vectors of its clients' own, which "
            f"aggregator {named(aggregator)} does not guard: use another strategy, or the mean"
        )


def check_cohort(aggregator: Aggregator, quorum: float, cohort: int) -> None:
    """Raises UsageError where a round of `cohort` clients could move on fewer updates than the
    aggregator needs, by a quorum that is a part of them."""
    needs, fewest = aggregator.needs, math.ceil(quorum * cohort)
    if fewest >= needs:
        return
    if needs <= cohort:
        remedy = f"raise the quorum to {math.ceil(100 * needs / cohort) / 100:g}"
    else:
        remedy = f"raise the cohort to {math.floor((needs - 1) / quorum) + 1}"
    raise UsageError(
        f"aggregator {named(aggregator)} needs {needs} updates, and with a quorum of {quorum:g} a "
        f"cohort of {cohort} may move on {fewest}: {remedy}{_instead(fewest)}"
    )


def check_quorum(aggregator: Aggregator, quorum: int) -> None:
    """Raises UsageError where a quorum of that many updates is fewer than the aggregator needs."""
    needs = aggregator.needs
    if quorum < needs:
        raise UsageError(
            f"aggregator {named(aggregator)} needs {needs} updates and the quorum is {quorum}: "
            f"raise the quorum to {needs}{_instead(quorum)}"
        )


def _instead(fewest: int) -> str:
    return ", or use median" if fewest >= Median.needs else ""
