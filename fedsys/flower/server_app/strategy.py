"""Our algorithms in a plain ServerApp of Flower's, with any ClientApp that Flower's FedAvg has.

    from fedsys.flower import Strategy
    from fedsys.strategies import FedAdam

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = Strategy(FedAdam(rate=0.01), fraction_train=0.5, min_available_nodes=10)
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=20)

Beside the algorithms: a reply that is not finite, or not of the model's names and shapes, or of no
weight, is refused and named, and the round goes on; arrays keep their types; replies are added up
as they come, so that the server's memory is that of a few models, however many clients answer. With
an aggregator that sees all updates beside each other, such as `Median()`, it holds them all.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Result

from fedsys import strategies
from fedsys.admission import Gate, Reason, Refusal, Refused, Update
from fedsys.aggregator import Aggregator, Sees
from fedsys.aggregators import Mean as WeightedMean
from fedsys.aggregators import named
from fedsys.checks import above, at_least, at_most
from fedsys.errors import TrainingError, UsageError
from fedsys.flower.rounds.exact import ExactSum
from fedsys.flower.server_app.arrays import Arrays
from fedsys.flower.server_app.streaming import StreamingGrid
from fedsys.strategy import Mean
from fedsys.strategy import Strategy as Algorithm

LOG = logging.getLogger("flwr")
WAIT = 0.1
"""Seconds between two looks for nodes."""


class Strategy(FlowerFedAvg):
    """One of `fedsys.strategies` as a strategy of Flower's.

    algorithm: such as `FedAdam(rate=0.01)`. For FedProx, clients find its mu in their config as
    'proximal-mu', as with Flower's own. UsageError for one that has a say in the clients'
    training that a ClientApp would not know of (SCAFFOLD, FedSGD): `--engine flower` runs those.
    aggregator: such as `fedsys.aggregators.Median()`; how replies become one movement [their mean].
    quorum: part of the replies that must be admitted for the model to move.
    heaviest: a reply that claims more examples is refused.
    averaged: whether an array, by its name, is averaged instead of optimised, as the moving
    averages of batch normalisation should be. Integers always are, and rounded.
    options: of Flower's FedAvg, such as fraction_train and min_available_nodes.

    refusals: after a round, by its number, the replies that were refused; clients are node ids.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        aggregator: Aggregator = WeightedMean(),  # noqa: B008
        quorum: float = 0.5,
        heaviest: float = math.inf,
        averaged: Callable[[str], bool] = lambda name: False,
        **options: Any,
    ) -> None:
        _made(algorithm, "algorithm")
        _made(aggregator, "aggregator")
        _fits(algorithm)
        above(0, heaviest=heaviest if math.isfinite(heaviest) else None)
        at_least(0, quorum=quorum)
        at_most(1, quorum=quorum)
        super().__init__(**options)
        self.algorithm, self.aggregator = algorithm, aggregator
        self.quorum = quorum
        self.heaviest = heaviest
        self.averaged = averaged
        self.refusals: dict[int, tuple[Refusal, ...]] = {}
        self._arrays: Arrays | None = None
        self._anchor: ArrayRecord | None = None
        self._state: Any = None

    def summary(self) -> None:
        """Logs what is run, and how."""
        LOG.info("\t├──> fedsys: %s, %s", self.algorithm, named(self.aggregator))
        super().summary()

    def start(self, grid: Grid, *arguments: Any, **named: Any) -> Result:
        """As Flower's, but replies are counted as they come."""
        return super().start(StreamingGrid(grid), *arguments, **named)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's, with what the algorithm has to say to clients."""
        if self.fraction_train:
            while len(list(grid.get_node_ids())) < self.min_available_nodes:
                time.sleep(WAIT)  # a part of all nodes is counted when all are there
        if isinstance(self.algorithm, strategies.FedProx):
            config["proximal-mu"] = self.algorithm.mu
        self._arrays, self._anchor = Arrays.of(arrays, self.averaged), arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admits each reply, or refuses it, and takes the server's step.

        Raises TrainingError where the step gives numbers that are not finite.
        """
        arrays, anchor = self._arrays, self._anchor
        assert arrays is not None and anchor is not None, "configure_train comes first"
        total, weights = ExactSum(arrays.layout.length), []
        updates: dict[int, np.ndarray] = {}
        metrics: list[RecordDict] = []
        refused: list[Refusal] = []
        gate = Gate(arrays.layout)
        start = arrays.vector(anchor)
        for reply in replies:
            try:
                record, metric, weight = self._parts(reply)
                update = Update(arrays.moved(record, start), weight)
                delta = self.aggregator.limit(gate.admit(update, self.heaviest))
            except Refused as why:
                refused.append(Refusal(reply.metadata.src_node_id, why.reason, why.detail))
                LOG.warning("aggregate_train: refused node %s: %s", reply.metadata.src_node_id, why)
                continue
            if self.aggregator.sees is Sees.ALL:
                updates[reply.metadata.src_node_id] = delta
            else:
                total.add(delta, weight)
            weights.append(weight)
            metrics.append(RecordDict({"metrics": metric}))
        self.refusals[server_round] = tuple(refused)
        heard = len(weights) + len(refused)
        LOG.info("aggregate_train: Admitted %s of %s replies", len(weights), heard)
        if len(weights) < max(self.aggregator.needs, self.quorum * heard):
            LOG.warning("aggregate_train: too few were admitted: the model stays as it is")
            return None, None
        if updates:  # by node, and not as they came
            mean = self.aggregator.combine(np.stack([updates[node] for node in sorted(updates)]))
        else:
            mean = total.value / math.fsum(weights)
        moved = arrays.record(anchor, self._step(server_round, arrays, start, mean))
        return moved, self.train_metrics_aggr_fn(_alike(metrics), self.weighted_by_key)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The mean of the metrics of the replies that have some."""
        metrics = []
        for reply in replies:
            try:
                metric, _ = self._weighed(_content(reply))
            except Refused as why:
                LOG.warning(
                    "aggregate_evaluate: refused node %s: %s", reply.metadata.src_node_id, why
                )
                continue
            metrics.append(RecordDict({"metrics": metric}))
        LOG.info("aggregate_evaluate: Admitted %s replies", len(metrics))
        if not metrics:
            return None
        return self.evaluate_metrics_aggr_fn(_alike(metrics), self.weighted_by_key)

    def _step(
        self, server_round: int, arrays: Arrays, start: np.ndarray, mean: np.ndarray
    ) -> np.ndarray:
        """The global vector after the server's step along the clients' mean movement."""
        cut, dtype = arrays.layout.parameters, arrays.layout.dtype
        weights, delta = start[:cut].astype(dtype), mean[:cut].astype(dtype)
        if self._state is None:
            self._state = self.algorithm.begin(weights)
        state = self._state._replace(weights=weights)  # as the clients got them
        with np.errstate(all="ignore"):  # what is not finite is looked for afterwards
            self._state = self.algorithm.finish(state, Mean(delta, share=1.0))
        after = np.concatenate([self._state.weights, start[cut:] + mean[cut:]])
        if not np.isfinite(after).all():
            raise TrainingError(
                f"round {server_round}: the global weights became NaN or infinite: try a lower "
                "server rate, or a lower learning rate at the clients"
            )
        return after

    def _parts(self, reply: Message) -> tuple[ArrayRecord, MetricRecord, float]:
        """Arrays, metrics and weight of a reply to a training message."""
        content = _content(reply)
        metric, weight = self._weighed(content)
        records = list(content.array_records.values())
        if len(records) != 1:
            raise Refused(Reason.FORMAT, f"has {len(records)} records of arrays, not one")
        return records[0], metric, weight

    def _weighed(self, content: RecordDict) -> tuple[MetricRecord, float]:
        """The metrics of a reply, and its weight among them."""
        records = list(content.metric_records.values())
        if len(records) != 1:
            raise Refused(Reason.FORMAT, f"has {len(records)} records of metrics, not one")
        value = records[0].get(self.weighted_by_key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(Reason.MISSING, f"{self.weighted_by_key!r} among its metrics")
        if not 0 < value < math.inf:  # False for NaN, too
            raise Refused(Reason.WEIGHT, f"{self.weighted_by_key} is {value:g}")
        return records[0], float(value)


def _made(given: object, what: str) -> None:
    """Raises UsageError for a class where one of its objects is meant."""
    if isinstance(given, type):
        raise UsageError(f"{what} is the class {given.__name__}: give {given.__name__}()")


def _fits(algorithm: Algorithm) -> None:
    """Raises UsageError for an algorithm that a plain ClientApp would not carry out."""
    name, plain = type(algorithm).__name__, strategies.FedAvg
    own_step = type(algorithm).correct is not plain.correct
    own_step &= type(algorithm).correct is not strategies.FedProx.correct
    if algorithm.remembers or own_step or type(algorithm).local is not plain.local:
        raise UsageError(
            f"strategy {name} changes how clients train, which a ClientApp of your own does not "
            "know: run it with `fedsys simulate --engine flower`, or take another strategy"
        )


def _content(reply: Message) -> RecordDict:
    if not reply.has_content():
        reason = " ".join(str(reply.error.reason).split())[:200]
        raise Refused(Reason.FAILED, f"error {reply.error.code}: {reason}")
    return reply.content


def _alike(metrics: list[RecordDict]) -> list[RecordDict]:
    """Those that have the metrics which most of them have: others would spoil a mean."""

    def keys(one: RecordDict) -> frozenset[str]:
        return frozenset(one.metric_records["metrics"])

    usual, _ = Counter(map(keys, metrics)).most_common(1)[0]
    return [one for one in metrics if keys(one) == usual]
