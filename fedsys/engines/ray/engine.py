"""The Ray engine: cohorts in workers, each of which returns one sum over its part."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.aggregator import Sees
from fedsys.arithmetic import multiply_accumulates
from fedsys.engine import Aggregate, Cohorts, Work
from fedsys.engines.in_process import XLA
from fedsys.engines.ray.cluster import shared_memory_left
from fedsys.engines.ray.messages import Connected, Held, Job, Opening, Ready, Recruits, Summed
from fedsys.engines.ray.parcels import Recipe, packed_state, reader_of
from fedsys.engines.ray.process import Foreman
from fedsys.engines.ray.shards import Cutter, homes

if TYPE_CHECKING:
    from fedsys.engines.ray import Ray
    from fedsys.setting import Setting

log = logging.getLogger("fedsys")

CONNECTED = 90.0
"""Seconds in which Ray must be there."""

STORE = 2**28
"""Bytes of Ray's object store, beside what rows and weights need."""

PIECE = 2**24
"""Bytes of rows that are sent at once."""

SHARE = 0.25
"""Part of this machine's memory that the workers' rows may fill before clients get homes."""


class RayEngine:
    """Runs cohorts in workers on Ray, through a foreman.

    Each worker trains a shard of the cohort as the compiled engine does, and returns its sum. The
    sums are added in the order of the shards: the same number of workers gives the same bits,
    whoever dies on the way.
    """

    def __init__(self, setting: Setting, choice: Ray, workers: int | None, foreman: Foreman):
        self._foreman = foreman
        self._setting = setting
        self._asked: tuple[int, Cohorts] | None = None
        cores = max(1, (os.cpu_count() or 1) // choice.threads)
        if choice.address is None:
            workers = workers or cores
        foreman.send(
            Opening(
                choice.address,
                foreman.folder,
                workers,
                choice.threads,
                _store(setting, foreman.folder, workers or 1),
                version("fedsys"),
            )
        )
        where = f"the Ray at {choice.address}" if choice.address else "Ray"
        late = f"{where} does not answer within {CONNECTED:.0f} s: is it overloaded, or no Ray?"
        connected: Connected = foreman.receive(Connected, CONNECTED, late)
        self.held = self._recruit(choice, connected.workers)
        nodes = len({held.node for held in self.held})
        on = f"{nodes} node{'s' * (nodes > 1)}"
        self._facts = {
            "xla": self.held[0].xla,
            "workers": connected.workers,
            "where": f"Ray, {connected.workers} worker{'s' * (connected.workers > 1)} on {on}",
            "nodes": nodes,
            "threads": choice.threads,
            "data": "shared" if self._cutter.home is None else "homes",
            "ray": connected.ray,
        }
        self._layout, self._aggregator = setting.layout, setting.experiment.aggregator

    @classmethod
    @contextmanager
    def opened(cls, setting: Setting, choice: Ray, workers: int | None) -> Iterator[RayEngine]:
        """The engine, until the context ends: with it, all of Ray that was started for it."""
        foreman = Foreman(log.warning)
        try:
            engine = cls(setting, choice, workers, foreman)
            yield engine
        except BaseException:
            foreman.kill()  # nobody waits for what is in flight
            raise
        engine.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def prepare(self, round: int, cohorts: Cohorts) -> None:
        """Says which round comes next: workers plan their shards of it beside this one's."""
        self._asked = round, cohorts

    def run(self, work: Work) -> Aggregate:
        shards = self._cutter.shards(work.cohort)
        memory = [_of(shard, work.memory) for shard in shards]
        given = packed_state(work.anchor, work.state)
        self._foreman.send(Job(work.round, given, shards, memory, self._ahead(work.round)))
        summed: Summed = self._foreman.receive(Summed)
        return summed.partial.aggregate(self._layout.dtype, self._aggregator)

    def close(self) -> None:
        self._foreman.close()

    def _ahead(self, round: int) -> list[np.ndarray]:
        """The shards of the next round, if it was asked for."""
        asked, self._asked = self._asked, None
        if asked is None or asked[0] != round + 1:
            return []
        return self._cutter.shards(asked[1](asked[0]))

    def _recruit(self, choice: Ray, workers: int) -> Sequence[Held]:
        """Sends the foreman what workers are made of, and waits for them."""
        setting = self._setting
        experiment, train = setting.experiment, setting.task.train
        apart = choice.data == "homes" or (choice.data == "auto" and _large(setting, workers))
        home = homes(setting.partition.sizes, workers) if apart else None
        local = experiment.strategy.local(experiment.local)
        accumulates = multiply_accumulates(setting.model)
        self._cutter = Cutter(setting.partition, local, accumulates, workers, home)
        reader = reader_of(setting) if apart else None
        recipe = Recipe.of(setting, XLA[experiment.compiler], choice.threads, reader)
        parts = (
            [] if home is None else [_part(setting, home == worker) for worker in range(workers)]
        )
        orders = [order for order, _ in parts] or [setting.partition.order]
        sent = [] if reader else [(array, order) for order in orders
                                  for array in (train.inputs, train.labels)]  # fmt: skip
        arrays = [((len(order), *array.shape[1:]), array.dtype.str) for array, order in sent]
        self._foreman.send(
            Recruits(recipe.packed(), setting.layout, experiment.strategy.remembers, parts, arrays)
        )
        for array, order in sent:
            _send_rows(self._foreman.send, array, order)
        ready: Ready = self._foreman.receive(Ready)
        return ready.held


def _of(shard: np.ndarray, memory: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The own vectors of a shard's clients, of those that have one."""
    if not memory:
        return {}
    return {client: memory[client] for client in shard.tolist() if client in memory}


def _part(setting: Setting, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of some clients ([clients] bool), client by client, and [clients + 1] where each
    client begins in them; the others have none."""
    partition = setting.partition
    start = np.concatenate([[0], np.cumsum(np.where(members, partition.sizes, 0))])
    return partition.order[np.repeat(members, partition.sizes)], start


def _send_rows(send: Callable[[bytes], None], array: np.ndarray, order: np.ndarray) -> None:
    """Sends rows in an order, piece by piece."""
    block = max(1, PIECE * len(array) // max(1, array.nbytes))
    for low in range(0, len(order), block):
        send(np.ascontiguousarray(array[order[low : low + block]]).tobytes())


def _large(setting: Setting, workers: int) -> bool:
    """Whether the rows of all, once a worker, are much for this machine's memory."""
    train = setting.task.train
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return workers * (train.inputs.nbytes + train.labels.nbytes) > SHARE * memory


def _store(setting: Setting, folder: str, workers: int) -> int:
    """Bytes for Ray's object store: the rows once, each worker's weights and sums, and vectors that
    clients send one by one."""
    train, vector = setting.task.train, 8 * setting.layout.length
    experiment = setting.experiment
    one_by_one = experiment.strategy.remembers or experiment.aggregator.sees is Sees.ALL
    vectors = setting.cohort if one_by_one else 0
    needed = STORE + (train.inputs.nbytes + train.labels.nbytes) * 5 // 4
    needed += vector * (4 * workers + 8 + 2 * vectors)
    return max(STORE // 2, min(needed, int(0.8 * shared_memory_left(folder))))
