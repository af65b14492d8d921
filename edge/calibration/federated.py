"""Federated calibration: the ranges that int8 needs, from clients that keep their rows.

The server sends the float model. Each client of a cohort runs it on its own rows (ranges.py) and
sends one small message. A gate looks at each; what it lets in is merged (merges.py, histogram.py)
if a quorum is left. Merged by their envelope, the ranges are those of all rows on one machine, and
so is every byte of the model that is quantised with them. That holds where clients compute alike:
another processor's float kernels may differ in the last bit of an activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.edge.calibration.histogram import SHARE, Histogram
from fedsys.edge.calibration.merges import MERGES, Envelope, Merge
from fedsys.edge.calibration.ranges import Ranges, Rows, activations, calibrate, traced
from fedsys.errors import DataError, QuorumError

if TYPE_CHECKING:
    from fedsys.partition import Partition

__all__ = ["Calibration", "Collector", "Gate", "Ranges", "calibrate", "calibrate_clients",
           "envelope", "federated_calibration", "message"]  # fmt: skip

LIMIT = 1e6
"""Magnitude of an activation beyond which a message is absurd: trained models keep far below."""

ENVELOPE = Envelope()

CLIENTS = 100
"""Clients that calibrate a model where nobody says how many."""


class Reason(StrEnum):
    """Why a client's message is refused, or why it has none."""

    SIZE = "wrong size"
    FINITE = "not finite"
    ORDER = "low above high"
    MAGNITUDE = "absurd magnitude"
    COUNTS = "counts out of bounds"
    ROWS = "rows unfit"


@dataclass(frozen=True)
class Refusal:
    """A client whose message was kept out. detail names the tensor or the value."""

    client: int
    reason: Reason
    detail: str


class Refused(Exception):
    """Raised by the gate; carries what to put into a Refusal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Calibration:
    """What a federated calibration came to.

    ranges: of every activation. rule: how they were merged, in the short form ("trimmed:most=1").
    clients: whose messages were merged. empty: clients without a row, which sent nothing.
    refused: messages that were kept out. rows: that the merged clients ran the model on; None
        where clients do not say. payload: bytes that a client sends. reveals: in words.
    """

    ranges: dict[str, tuple[float, float]]
    rule: str
    clients: int
    empty: int
    refused: tuple[Refusal, ...]
    rows: int | None
    payload: int
    reveals: str

    @property
    def refusals(self) -> dict[str, int]:
        """How many messages were refused, by reason."""
        return dict(Counter(str(refusal.reason) for refusal in self.refused))

    def table(self) -> dict[str, Any]:
        """Plain values, for a report in JSON."""
        return {
            "rule": self.rule,
            "clients": self.clients,
            "empty": self.empty,
            "rows": self.rows,
            "refused": self.refusals,
            "payload_bytes": self.payload,
            "reveals": self.reveals,
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
        }


# --- the client ----------------------------------------------------------------------------------


def message(float_model: bytes, rows: Rows, rule: Merge = ENVELOPE) -> bytes | None:
    """What a client sends about its rows; None if it has none.

    The ends of the range of each activation as two float32, or its histogram as uint32, in the
    model's order of tensors, little-endian.
    """
    names = list(activations(float_model))
    if isinstance(rule, Histogram):
        counts = np.zeros((len(names), rule.buckets), np.int64)
        for tensors in traced(float_model, rows):
            for place, name in enumerate(names):
                counts[place] += rule.count(tensors[name])
        if not counts.any():
            return None
        return rule.shared(counts).clip(0, 2**32 - 1).astype("<u4").tobytes()
    ranges = calibrate(float_model, rows)
    if not ranges:
        return None
    return np.array([ranges[name] for name in names], "<f4").tobytes()


# --- the server ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """Checks a client's message before it is merged.

    names: the activations. limit: the greatest magnitude that an end may have.
    """

    names: Sequence[str]
    rule: Merge
    limit: float = LIMIT

    @property
    def size(self) -> int:
        """Bytes of a message."""
        width = self.rule.buckets if isinstance(self.rule, Histogram) else 2
        return 4 * width * len(self.names)

    def admit(self, sent: bytes) -> np.ndarray:
        """The message as [tensors, 2] float32 or [tensors, buckets] int64; else Refused."""
        if len(sent) != self.size:
            raise Refused(Reason.SIZE, f"{len(sent)} bytes, not {self.size}")
        if isinstance(self.rule, Histogram):
            return self._counts(np.frombuffer(sent, "<u4"), self.rule)
        return self._ends(np.frombuffer(sent, "<f4").reshape(-1, 2))

    def _ends(self, ends: np.ndarray) -> np.ndarray:
        for name, (low, high) in zip(self.names, ends, strict=True):
            if not np.isfinite([low, high]).all():
                raise Refused(Reason.FINITE, name)
            if low > high:
                raise Refused(Reason.ORDER, f"{name}: {low:g} above {high:g}")
            if max(-low, high) > self.limit:
                raise Refused(Reason.MAGNITUDE, f"{name}: {max(-low, high):g}")
        return ends

    def _counts(self, counts: np.ndarray, rule: Histogram) -> np.ndarray:
        counts = counts.reshape(len(self.names), rule.buckets).astype(np.int64)
        totals = counts.sum(axis=1)
        if not (totals == SHARE).all() if rule.alike else not (totals > 0).all():
            wrong = int(np.argmin(totals == SHARE if rule.alike else totals > 0))
            raise Refused(Reason.COUNTS, f"{self.names[wrong]}: {totals[wrong]} in all")
        edges = rule.edges
        far = (edges[1:] < -self.limit) | (edges[:-1] > self.limit)
        if counts[:, far].any():
            wrong = int(np.argmax(counts[:, far].any(axis=1)))
            raise Refused(Reason.MAGNITUDE, f"{self.names[wrong]}: beyond {self.limit:g}")
        return counts


def envelope(all_ranges: Iterable[Ranges]) -> dict[str, tuple[float, float]]:
    """The least low and the greatest high of each tensor; those without any ranges say nothing.

    Raises DataError where two name different tensors, or none has any.
    """
    merged: dict[str, tuple[float, float]] = {}
    for ranges in filter(None, all_ranges):
        if merged and ranges.keys() != merged.keys():
            odd = sorted(ranges.keys() ^ merged.keys())[0]
            raise DataError(f"ranges of different models: {odd!r} is only in some")
        for name, (low, high) in ranges.items():
            least, most = merged.get(name, (low, high))
            merged[name] = min(least, low), max(most, high)
    if not merged:
        raise DataError("no ranges: calibrate on at least one row")
    return merged


class Collector:
    """Hears the messages of a cohort, in any order, and merges them."""

    def __init__(self, float_model: bytes, rule: Merge | str = "envelope", limit: float = LIMIT):
        self._names = list(activations(float_model))
        self._rule: Merge = MERGES.parse(rule, "rule") if isinstance(rule, str) else rule
        self._gate = Gate(self._names, self._rule, limit)
        self._ends: list[np.ndarray] = []
        self._counts = np.zeros((len(self._names), 0), np.int64)
        self._clients = self._empty = 0
        self._refused: list[Refusal] = []

    @property
    def rule(self) -> Merge:
        """How messages are merged, which clients must know."""
        return self._rule

    def hear(self, client: int, sent: bytes | None) -> bool:
        """Takes a client's message, None if it has no rows. Returns whether it was let in."""
        if sent is None:
            self._empty += 1
            return False
        try:
            admitted = self._gate.admit(sent)
        except Refused as refused:
            self.refuse(client, refused.reason, refused.detail)
            return False
        if isinstance(self._rule, Histogram):
            self._counts = self._counts + admitted if self._counts.size else admitted
        else:
            self._ends.append(admitted)
        self._clients += 1
        return True

    def refuse(self, client: int, reason: Reason, detail: str) -> None:
        """Notes a client that cannot be heard."""
        self._refused.append(Refusal(client, reason, detail))

    def close(self, quorum: float = 0.5, rows: int | None = None) -> Calibration:
        """The calibration. quorum: part of the messages that must have been let in.

        Raises QuorumError where fewer were, or none.
        """
        sent = self._clients + len(self._refused)
        if self._clients < quorum * sent or not self._clients:
            reasons = Counter(str(refusal.reason) for refusal in self._refused)
            said = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            raise QuorumError(
                f"calibration: {self._clients} of {sent} clients' ranges were admitted, with a "
                f"quorum of {quorum:g} ({said or 'no client has rows'}): mend the clients, ask "
                "more of them or lower the quorum"
            )
        if isinstance(self._rule, Histogram):
            merged = self._rule.ranges(self._counts)
        else:
            merged = self._rule.merge(np.stack(self._ends))
        ranges = {
            name: (float(low), float(high))
            for name, (low, high) in zip(self._names, merged, strict=True)
        }
        return Calibration(
            ranges=ranges,
            rule=MERGES.short(self._rule),
            clients=self._clients,
            empty=self._empty,
            refused=tuple(self._refused),
            rows=rows,
            payload=self._gate.size,
            reveals=_reveals(self._rule),
        )


def _reveals(rule: Merge) -> str:
    """What a server learns of a client's data from its message."""
    if isinstance(rule, Histogram):
        return (
            "each client's histogram of every activation, the model's inputs among them, in "
            f"{rule.resolution} buckets an octave: how its values are spread, but not which lie "
            "together in a row, and no labels; added up by a secure sum the server sees only the "
            "histogram of all clients"
        )
    return (
        "each client's least and greatest value of every activation, the model's inputs among "
        "them: so the extremes of its data, which may each be one row's; no other value, no "
        "number of rows and no labels"
    )


# --- a simulated federation ----------------------------------------------------------------------


def federated_calibration(
    float_model: bytes,
    clients: Iterable[Rows] | Callable[[int], Rows],
    rule: Merge | str = "envelope",
    *,
    cohort: Sequence[int] | None = None,
    quorum: float = 0.5,
    limit: float = LIMIT,
) -> Calibration:
    """Calibrates over clients that are simulated on this machine.

    clients: each client's rows, in order of their numbers; or client number -> rows, and then
        `cohort` says which are asked. rule: how messages are merged, by name or value.
    quorum: part of the clients with rows whose message must be let in. limit: magnitude beyond
        which a message is absurd.

    A client whose rows do not fit the model is refused like any other. Raises QuorumError.
    """
    collector, heard = Collector(float_model, rule, limit), 0
    if callable(clients):
        if cohort is None:
            raise ValueError("say which clients are asked: cohort")
        asked: Iterable[tuple[int, Rows]] = ((int(client), clients(client)) for client in cohort)
    else:
        among = None if cohort is None else set(cohort)
        asked = (each for each in enumerate(clients) if among is None or each[0] in among)
    for client, rows in asked:
        try:
            sent = message(float_model, rows, collector.rule)
        except DataError as error:
            collector.refuse(client, Reason.ROWS, str(error))
            continue
        if collector.hear(client, sent):
            heard += len(next(iter(rows.values())) if isinstance(rows, Mapping) else rows)
    return collector.close(quorum, heard)


def calibrate_clients(
    float_model: bytes,
    inputs: np.ndarray,
    partition: Partition,
    rule: Merge | str = "envelope",
    *,
    seed: int,
    round: int = 0,
    clients: int | None = None,
    rows: int | None = None,
    quorum: float = 0.5,
) -> Calibration:
    """Calibrates over a cohort of the clients of a partition, such as a run's.

    inputs: [rows, ...], those that the partition deals out. clients: how many are asked, `CLIENTS`
        or all if there are fewer by default; drawn as the cohort of `round` is in training, where
        0 is a round that no training has. rows: at most so many of each client, the first in the
        partition; all by default.
    """
    from fedsys.rounds import draw_cohort

    count = min(CLIENTS if clients is None else clients, len(partition))
    cohort = draw_cohort(seed, round, len(partition), count)
    return federated_calibration(
        float_model,
        lambda client: inputs[partition[client][:rows]],
        rule,
        cohort=[int(client) for client in cohort],
        quorum=quorum,
    )
