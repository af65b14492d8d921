"""Which worker trains which clients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.lanes import STEP, lanes
from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.plan import steps_of

WORTHWHILE = 1e8
"""Multiply-accumulates that make a further shard worth its messages: some 20 ms of work."""


@dataclass(frozen=True)
class Cutter:
    """Cuts cohorts into shards, the same way each time: what a shard is follows from the cohort
    and the number of workers, not from who is alive.

    partition, local: of the experiment. accumulates: multiply-accumulates of the model a row.
    home: [clients], the worker that alone has a client's rows, or None where all have all.
    """

    partition: Partition
    local: Local
    accumulates: int
    workers: int
    home: np.ndarray | None = None

    def shards(self, cohort: np.ndarray) -> list[np.ndarray]:
        """The cohort as shards of client numbers, the one of worker i in place i; some may be
        empty. Longest client first onto the least loaded, or each where its home is."""
        if self.home is not None:
            homes = self.home[cohort]
            return [cohort[homes == worker] for worker in range(self.workers)]
        sizes = self.partition.sizes_of(cohort)
        steps = steps_of(self.local, sizes)
        rows = steps * np.minimum(self.local.batch or sizes, sizes)
        work = float((steps * STEP + rows * float(self.accumulates)).sum())
        count = int(np.clip(work // WORTHWHILE, 1, self.workers))
        return [cohort[part] for part in lanes(steps, rows, self.accumulates, count)]


def homes(sizes: np.ndarray, workers: int) -> np.ndarray:
    """[clients], a worker for each client, so that all have about as many rows.

    sizes: [clients], rows of each. Largest client first, onto the worker with the fewest rows.
    """
    home = np.zeros(len(sizes), np.int32)
    # In blocks of one client a worker, since there may be a million.
    order = np.argsort(-sizes, kind="stable")
    loads = np.zeros(workers, np.int64)
    for low in range(0, len(order), workers):
        block = order[low : low + workers]
        least = np.argsort(loads, kind="stable")[: len(block)]
        home[block] = least
        loads[least] += sizes[block]
    return home
