"""The compiled engine: a cohort in this process, in compiled calls on threads."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedsys.admission import Gate, Reason, Refusal, Refused, Update
from fedsys.aggregator import Aggregator, Mean, Sees
from fedsys.arithmetic import multiply_accumulates
from fedsys.clients.faults import Fault
from fedsys.engine import Aggregate, Cohorts, Partial, Work, merged
from fedsys.errors import UsageError
from fedsys.lanes import lanes
from fedsys.layers import batch_layers, prefers_xla, random_layers
from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.objectives import objective
from fedsys.owners import enrolled_weights
from fedsys.partition import Partition
from fedsys.plan import Plan, draw_plan, steps_of
from fedsys.strategy import Strategy
from fedsys.task import Task
from fedsys.training import LocalTraining, Share, client_seeds

LAUNCH = 3e-4
"""Seconds that a launch may need the interpreter for, and in which no plan is drawn."""


def use_threads(workers: int, cohort: int) -> None:
    """Divides the cores between calls that run beside each other and the operations in a call.

    TensorFlow fixes this once in a process; where it has started, things stay as they are.
    """
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(max(1, workers // cohort))
        tf.config.threading.set_inter_op_parallelism_threads(workers)


@dataclass(frozen=True)
class Prepared:
    """A cohort's clients that have rows, lane by lane, and what they need that is not weights.

    clients: [clients] numbers, in the order of the lanes; plan and seeds go with them.
    lanes: [lanes + 1]; lane i is the clients `lanes[i]` to `lanes[i + 1]`.
    spoiled: [clients], whose update an injected fault spoils.
    shares: first client of a lane -> the lane, ready for its call. Not of lanes of one client that
        is looked at by itself, which may be many.
    """

    clients: np.ndarray
    plan: Plan
    lanes: np.ndarray
    seeds: np.ndarray
    spoiled: np.ndarray
    shares: Mapping[int, Share]


class CompiledEngine:
    """Runs cohorts of virtual clients in one process.

    Clients of a lane are trained one after another inside one compiled call, which returns their
    sum; lanes run on threads. A client that keeps a vector of its own, whose update is spoiled on
    purpose, or whose update the aggregator wants to see, is a lane by itself, and its update is
    looked at before it is added.

    workers: threads; all cores if None. xla: compile with XLA or not; chosen by layers if None.
    uniform: whether clients count alike, or by their rows.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        partition: Partition,
        strategy: Strategy,
        local: Local,
        *,
        seed: int,
        uniform: bool = False,
        fault: Fault | None = None,
        aggregator: Aggregator = Mean(),  # noqa: B008
        workers: int | None = None,
        xla: bool | None = None,
    ) -> None:
        self.layout = Layout.of(model)
        self.partition = partition
        self.strategy = strategy
        self.local = strategy.local(local)
        self.seed = seed
        self.fault = fault
        self.aggregator = aggregator
        self.weights = enrolled_weights(partition, uniform)
        if xla and batch_layers(model):
            raise UsageError(
                f"compiler 'xla' pads a client's last batch, and layer {batch_layers(model)[0]!r} "
                "mixes the rows of a batch: use 'graph' or 'auto'"
            )
        self.xla = prefers_xla(model, self.local) if xla is None else xla
        if self.xla and not self.local.batch:  # XLA's shapes are fixed: the largest client's
            self.local = replace(self.local, batch=int(partition.sizes.max()))
        self.gate = Gate(self.layout)
        self.workers = workers or os.cpu_count() or 1
        self._random = len(random_layers(model))
        self._accumulates = multiply_accumulates(model)
        self._train = LocalTraining(
            model,
            objective(task.objective),
            self.local,
            strategy.correct,
            task.train,
            partition.order,
            xla=self.xla,
        )
        # The examples lie client by client, as memory likes it: plans count in that order.
        places = np.arange(len(partition.order), dtype=partition.order.dtype)
        self._laid_out = Partition(places, partition.start)
        self._threads = ThreadPoolExecutor(self.workers)
        self._planner = ThreadPoolExecutor(1)
        self._asked: tuple[int, Cohorts] | None = None
        self._ahead: dict[int, Future[Prepared]] = {}

    @property
    def facts(self) -> Mapping[str, Any]:
        compiler = "XLA" if self.xla else "graph"
        threads = f"{self.workers} thread{'s' * (self.workers > 1)}"
        return {"xla": self.xla, "workers": self.workers, "where": f"{compiler}, {threads}"}

    def prepare(self, round: int, cohorts: Cohorts) -> None:
        """Asks for the plan of a round to come, to be drawn beside the work of this one."""
        self._asked = round, cohorts

    def _draw_ahead(self) -> None:
        """Begins to draw the plan that was asked for. Called when a lane is launched: earlier, it
        would compete with the launch for the interpreter."""
        asked, self._asked = self._asked, None
        if asked is not None:
            round, cohorts = asked
            self._ahead[round] = self._planner.submit(self._drawn_ahead, round, cohorts)

    def _drawn_ahead(self, round: int, cohorts: Cohorts) -> Prepared:
        time.sleep(LAUNCH)
        return self._prepare(round, cohorts(round))

    def run(self, work: Work) -> Aggregate:
        return self.partial(work).aggregate(self.layout.dtype, self.aggregator)

    def partial(self, work: Work) -> Partial:
        """The sums over a cohort, or over the part of it that `work` names."""
        ahead = self._ahead.pop(work.round, None)
        prepared = ahead.result() if ahead else self._prepare(work.round, work.cohort)
        tasks = [
            partial(self._lane, work, prepared, int(low), int(high))
            for low, high in itertools.pairwise(prepared.lanes)
        ]
        lanes = in_order(self._threads, tasks, 2 * self.workers)
        sums = merged(lanes, self.layout, remembers=self.strategy.remembers)
        return replace(sums, empty=len(work.cohort) - len(prepared.clients))

    def close(self) -> None:
        """Ends the engine's threads."""
        self._threads.shutdown()
        self._planner.shutdown(cancel_futures=True)

    def _prepare(self, round: int, cohort: np.ndarray) -> Prepared:
        sizes = self.partition.sizes_of(cohort)
        cohort, sizes = cohort[sizes > 0], sizes[sizes > 0]
        spoiled = np.zeros(len(cohort), bool)
        if self.fault is not None:
            spoiled = self.fault.strikes(self.seed, round, cohort)
        looked_at = self.strategy.remembers or self.aggregator.sees is not Sees.SUMS
        alone = np.full(len(cohort), looked_at) | spoiled
        steps = steps_of(self.local, sizes)
        rows = steps * np.minimum(self.local.batch or sizes, sizes)
        together = np.flatnonzero(~alone)
        work = steps[together], rows[together], self._accumulates
        cut = [together[lane] for lane in lanes(*work, self.workers)]
        cut += [np.array([i]) for i in np.flatnonzero(alone)]
        order = np.concatenate([np.zeros(0, np.int64), *cut])
        cohort = cohort[order]
        plan = draw_plan(self.local, self._laid_out, cohort, self.seed, round)
        seeds = client_seeds(self.seed, round, cohort, self._random)
        self._train.reserve(plan)
        bounds = np.cumsum([0, *map(len, cut)])
        shares = {
            int(low): self._train.share(
                plan.between(low, high), self.weights[cohort[low:high]], seeds[low:high]
            )
            for low, high in itertools.pairwise(bounds)
            if high <= len(together)
        }
        return Prepared(cohort, plan, bounds, seeds, spoiled[order], shares)

    def _lane(self, work: Work, prepared: Prepared, low: int, high: int) -> Partial:
        """Trains the clients from `low` to `high`."""
        if low not in prepared.shares:
            return self._alone(work, prepared, low)
        clients = prepared.clients[low:high]
        weights = self.weights[clients]
        sent = self.strategy.send(work.state, work.anchor[:0])
        share = prepared.shares[low]
        moved = self._train(work.anchor, share, sent, launching=self._draw_ahead)
        good, bad = moved.finite, ~moved.finite
        return Partial(
            total=moved.total,
            weight=float(weights[good].sum()),
            clients=clients[good],
            losses=moved.losses[good],
            refused=[
                Refusal(int(client), Reason.FINITE, loss=float(loss))
                for client, loss in zip(clients[bad], moved.losses[bad], strict=True)
            ],
        )

    def _alone(self, work: Work, prepared: Prepared, place: int) -> Partial:
        """Trains one client and looks at its update before it counts."""
        clients = prepared.clients[place : place + 1]
        client = int(clients[0])
        enrolled = float(self.weights[client])
        own = work.memory.get(client, np.zeros(self.layout.parameters, self.layout.dtype))
        plan = prepared.plan.between(place, place + 1)
        share = self._train.share(plan, np.ones(1), prepared.seeds[place : place + 1])
        sent = self.strategy.send(work.state, own)
        moved = self._train(work.anchor, share, sent, launching=self._draw_ahead)
        tensors = self.layout.named(moved.total)
        if not moved.finite[0]:
            tensors = {name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()}
        update = Update(tensors, enrolled)
        if prepared.spoiled[place] and self.fault is not None:
            update = self.fault.spoil(update, client)
        try:
            delta = self.gate.admit(update, enrolled)
        except Refused as refused:
            refusal = Refusal(client, refused.reason, refused.detail, float(moved.losses[0]))
            none = np.zeros(0)
            return Partial(np.zeros(self.layout.length), 0.0, clients[:0], none, [refusal])
        drift, memory = None, {}
        if self.strategy.remembers:
            span = float(prepared.plan.steps[place]) * self.local.rate
            new = self.strategy.receive(work.state, own, delta[: self.layout.parameters], span)
            drift, memory = update.weight * (new - own), {client: new}
        delta = self.aggregator.limit(delta)
        return Partial(
            total=update.weight * delta,
            weight=update.weight,
            clients=clients,
            losses=moved.losses,
            drift=drift,
            memory=memory,
            updates=delta[None] if self.aggregator.sees is Sees.ALL else None,
        )


def in_order(
    threads: ThreadPoolExecutor, tasks: Sequence[Callable[[], Partial]], window: int
) -> Iterator[Partial]:
    """Runs the tasks beside each other and yields their results in order, holding only a few.

    One alone runs here, which saves a switch of threads: where there are several workers, it is
    short. A single worker's may take long, and its thread is waited for, so that Ctrl-C is heard.
    """
    if len(tasks) == 1 and window > 2:
        yield tasks[0]()
        return
    pending: deque[Future[Partial]] = deque()
    for task in tasks:
        if len(pending) == window:
            yield pending.popleft().result()
        pending.append(threads.submit(task))
    while pending:
        yield pending.popleft().result()
