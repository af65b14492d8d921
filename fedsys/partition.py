"""Who holds which rows: two arrays, whichever rule drew them and however many clients there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fedsys.errors import DataError

BLOCK = 2**20  # cells of a [clients, classes] table held at once: 8 MiB


@dataclass(frozen=True, eq=False)
class Partition:
    """Client `i` owns the rows `order[start[i]:start[i + 1]]`, in no particular order.

    order: [rows] row numbers, int32 where they fit and int64 beyond.
    start: [clients + 1] int64, from 0 up to the number of rows.

    Both are read-only, so that a client's view cannot disturb its neighbours. Raises ValueError
    where `start` does not cut `order` into clients.
    """

    order: np.ndarray
    start: np.ndarray

    def __post_init__(self) -> None:
        small = len(self.order) < 2**31
        order = np.asarray(self.order, np.int32 if small else np.int64).view()
        start = np.asarray(self.start, np.int64).view()
        if order.ndim != 1 or start.ndim != 1 or len(start) < 2:
            raise ValueError("order and start must be vectors, for at least one client")
        if start[0] != 0 or start[-1] != len(order) or (np.diff(start) < 0).any():
            raise ValueError(f"start must rise from 0 to the number of rows, {len(order)}")
        for name, array in (("order", order), ("start", start)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, owner: np.ndarray, clients: int) -> Partition:
        """The partition in which row `r` belongs to client `owner[r]`, rows ascending in each.

        owner: [rows] integers from 0 to clients - 1; ValueError otherwise.
        """
        if clients < 1 or (len(owner) and not 0 <= owner.min() <= owner.max() < clients):
            raise ValueError(f"owners must be clients from 0 to {clients - 1}")
        sizes = np.bincount(owner, minlength=clients)
        return cls(np.argsort(owner, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        """The number of clients."""
        return len(self.start) - 1

    def __getitem__(self, client: int) -> np.ndarray:
        """The rows of one client: a view, not a copy. IndexError where there is no such client."""
        if not 0 <= client < len(self):
            raise IndexError(f"client {client} of {len(self)}")
        return self.order[self.start[client] : self.start[client + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rows of each client in turn."""
        return (self[client] for client in range(len(self)))

    @property
    def sizes(self) -> np.ndarray:
        """[clients] int64, how many rows each client owns."""
        return np.diff(self.start)

    def sizes_of(self, clients: np.ndarray) -> np.ndarray:
        """[clients] int64, how many rows each of some clients owns, without a look at the rest."""
        return self.start[clients + 1] - self.start[clients]

    def counts(self, labels: np.ndarray) -> np.ndarray:
        """[clients, classes] int64, how many rows of each class each client owns.

        labels: [rows] class numbers; the last class is the largest label. DataError where they
        are no class numbers, ValueError where there is not one a row.
        """
        return np.concatenate(list(self.count_blocks(labels)))

    def count_blocks(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """The lines of `counts`, in consecutive blocks of clients of at most `BLOCK` cells."""
        self._one_label_a_row(labels)
        classes = _classes(labels)
        step = max(1, BLOCK // max(1, classes))
        for first in range(0, len(self), step):
            start = self.start[first : first + step + 1]
            clients = len(start) - 1
            owner = np.repeat(np.arange(clients), np.diff(start))
            label = labels[self.order[start[0] : start[-1]]].astype(np.int64)
            cells = np.bincount(owner * classes + label, minlength=clients * classes)
            yield cells.reshape(clients, classes)

    def summary(self, labels: np.ndarray) -> Summary:
        """What the partition amounts to; the errors are those of `counts`.

        labels: [rows] class numbers, or targets (floats), of which only the sizes are told.
        """
        self._one_label_a_row(labels)
        sizes = self.sizes
        holders = int(np.count_nonzero(sizes))
        told = Summary(
            clients=len(self),
            rows=len(self.order),
            smallest=int(sizes.min()),
            median=float(np.median(sizes)),
            largest=int(sizes.max()),
            empty=len(self) - holders,
        )
        if not has_classes(labels) or not holders:
            return told
        everyone = np.bincount(labels.astype(np.int64)) / len(labels)
        single, held, distance = 0, 0, 0.0
        for counts in self.count_blocks(labels):
            counts = counts[counts.any(axis=1)]
            kinds = np.count_nonzero(counts, axis=1)
            shares = counts / counts.sum(axis=1, keepdims=True)
            single += int(np.count_nonzero(kinds == 1))
            held += int(kinds.sum())
            distance += float(np.abs(shares - everyone).sum()) / 2
        return replace(
            told,
            single=single,
            labels=held / holders,
            heterogeneity=distance / holders,
        )

    def _one_label_a_row(self, labels: np.ndarray) -> None:
        if labels.shape != self.order.shape:
            raise ValueError(f"labels {labels.shape} for a partition of {len(self.order)} rows")


@dataclass(frozen=True)
class Summary:
    """What a partition amounts to, in plain numbers.

    smallest, median, largest: rows a client, over all clients.
    empty: clients without a row.
    single: clients all of whose rows bear one label.
    labels: different labels a client holds, averaged over the clients that hold rows.
    heterogeneity: total-variation distance between a client's distribution of labels and that of
        all rows, sum(|p - q|) / 2, averaged over the clients that hold rows. 0: every client
        mirrors the whole; towards 1: clients have little in common. Chance alone makes it larger
        the fewer rows a client has, so compare partitions with the same number of clients.

    The last three are None where the labels are targets, not classes.
    """

    clients: int
    rows: int
    smallest: int
    median: float
    largest: int
    empty: int
    single: int | None = None
    labels: float | None = None
    heterogeneity: float | None = None

    def lines(self) -> list[str]:
        """The summary for people to read, a few short lines."""
        told = [
            f"{_many(self.clients, 'client')}, {_many(self.rows, 'row')}",
            f"rows a client: {self.smallest:,} to {self.largest:,}, median {self.median:,g}"
            + (f"; {self.empty:,} without a row" if self.empty else ""),
        ]
        if self.heterogeneity is not None:
            told += [
                f"labels a client: {self.labels:.1f} on average; {self.single:,} with only one",
                f"heterogeneity: {self.heterogeneity:.3f} (0: all alike, 1: nothing in common)",
            ]
        return told

    def __str__(self) -> str:
        return "\n".join(self.lines())


def has_classes(labels: np.ndarray) -> bool:
    """Whether labels are class numbers (integers), not targets (floats)."""
    return labels.dtype.kind in "biu"


def _classes(labels: np.ndarray) -> int:
    """How many classes there are, counted up to the largest label."""
    if not has_classes(labels):
        raise DataError(
            f"labels must be class numbers 0, 1, 2, ... to be counted, not {labels.dtype}"
        )
    if len(labels) and labels.min() < 0:
        raise DataError(f"labels must be class numbers 0, 1, 2, ..., found {labels.min()}")
    return int(labels.max()) + 1 if len(labels) else 0


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
