"""Plans: which rows a client uses in which step, as integer arrays.

No data is copied or shuffled; the compiled training gathers the rows of a step. Every engine that
gets the same plan sees the same batches, and one compiled function serves clients of every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.errors import UsageError
from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.randomness import Purpose, hashed, shuffled_segments


@dataclass(frozen=True)
class Plan:
    """The steps of some clients, one client after another.

    rows: [entries] int32, numbers of data rows.
    begin, length: [steps] int32; step s uses `rows[begin[s]:begin[s] + length[s]]`.
    first: [clients + 1] int32; client c takes the steps `first[c]` to `first[c + 1]`.
    """

    rows: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def steps(self) -> np.ndarray:
        """[clients], steps of each client."""
        return np.diff(self.first)

    def batches(self, client: int) -> list[np.ndarray]:
        """The rows of each step of a client, for reading and for oracles."""
        steps = range(self.first[client], self.first[client + 1])
        return [self.rows[self.begin[s] : self.begin[s] + self.length[s]] for s in steps]

    def between(self, low: int, high: int) -> Plan:
        """The plan of clients low to high - 1 alone, as views."""
        steps = slice(self.first[low], self.first[high])
        begin, length = self.begin[steps], self.length[steps]
        if not len(begin):
            return Plan(self.rows[:0], begin, length, self.first[low : high + 1] * 0)
        start, stop = begin[0], begin[-1] + length[-1]
        first = self.first[low : high + 1] - self.first[low]
        return Plan(self.rows[start:stop], begin - start, length, first)


LONGEST = 2**27
"""Visits of rows in one round, of all its clients: what drawing them needs is 10 GB or so."""


def steps_of(local: Local, sizes: np.ndarray) -> np.ndarray:
    """[clients], steps in a round of clients that have `sizes` rows."""
    an_epoch = _an_epoch(local, sizes)
    if local.steps is None:
        return an_epoch * local.epochs
    return np.where(an_epoch > 0, local.steps, 0)


def _an_epoch(local: Local, sizes: np.ndarray) -> np.ndarray:
    """[clients], steps in one pass over a client's rows."""
    return -(-sizes // (local.batch or np.maximum(sizes, 1)))


def draw_plan(
    local: Local, partition: Partition, clients: np.ndarray, seed: int, round: int
) -> Plan:
    """The plan of `clients` ([cohort] client numbers) for a round.

    Each epoch is a new permutation of the client's rows, cut into batches; the last batch of an
    epoch has what is left. With `local.steps`, epochs follow each other until there are enough
    steps. A client without rows takes no step.
    """
    sizes = partition.sizes_of(clients)
    batch = np.full(len(clients), local.batch) if local.batch else np.maximum(sizes, 1)
    an_epoch = _an_epoch(local, sizes)
    if local.steps is None:
        epochs = np.full(len(clients), local.epochs)
    else:
        epochs = -(-local.steps // np.maximum(an_epoch, 1))

    visits = int((sizes * epochs.astype(float)).sum())
    if visits > LONGEST:
        raise UsageError(
            f"a round of {len(clients)} clients would visit {visits:,} rows, more than the "
            f"{LONGEST:,} that can be planned at once: lower --epochs, --steps or --cohort"
        )
    # One segment is one epoch of one client.
    client = np.repeat(np.arange(len(clients)), epochs)
    epoch = np.arange(len(client)) - np.repeat(np.cumsum(epochs) - epochs, epochs)
    entries = sizes[client]
    row = np.arange(entries.sum()) - np.repeat(np.cumsum(entries) - entries, entries)
    keys = np.repeat(hashed(seed, Purpose.ORDER, round, clients[client], epoch), entries)
    order = row[shuffled_segments(hashed(keys, row), entries)]
    rows = partition.order[np.repeat(partition.start[clients[client]], entries) + order]

    steps = an_epoch[client]
    step = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    offset = np.repeat(np.cumsum(entries) - entries, steps)
    width = np.repeat(batch[client], steps)
    begin = offset + step * width
    length = np.minimum(width, np.repeat(entries, steps) - step * width)

    if local.steps is not None:
        drawn = an_epoch * epochs
        kept = np.arange(drawn.sum()) - np.repeat(np.cumsum(drawn) - drawn, drawn) < local.steps
        begin, length = begin[kept], length[kept]
    first = np.concatenate([[0], np.cumsum(steps_of(local, sizes))])
    return Plan(*(array.astype(np.int32) for array in (rows, begin, length, first)))
