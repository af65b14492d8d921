"""An audit log: lines that are chained by their hashes, at the server and at every bank.

A line is one canonical table: `number` from 1, `time` in UTC, `id` (that both sides of a message
use), `event`, `details`, `previous`, `hash`. `hash` is the SHA-256 of the rest; `previous` is the
hash of the line before, zeros for the first. Changing, removing or moving a line breaks the chain;
cutting the end or writing everything anew is noticed by heads (number and hash of a last line)
that others hold: each side sends its head with its messages, and the other records it.

A line is appended in one write, forced to the disk, under a lock, so that a server and a command
beside it may write one log. A kill in mid-write leaves a torn last line. The next line closes it
off: it says how many bytes there are and what their hash is, and the chain goes on around them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsys.errors import DataError, StorageError
from fedsys.storage import storing
from fedsys.trust import canonical
from fedsys.trust.events import FIELDS, HASH, ID, Event, fault_in

START = "0" * 64
LONGEST = 4096
"""Bytes of a line; no event's details come near it."""
_FIELDS = {"number", "time", "id", "event", "details", "previous", "hash"}
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Entry:
    """One line of a log."""

    number: int
    time: str
    id: str
    event: Event
    details: Mapping[str, Any]
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        return Head(self.number, self.hash)

    def line(self) -> bytes:
        """As it is written, without the line's end."""
        return canonical.encode({**self._said(), "hash": self.hash})

    def hashed(self) -> str:
        """What its hash has to be."""
        return hashlib.sha256(canonical.encode(self._said())).hexdigest()

    def _said(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "time": self.time,
            "id": self.id,
            "event": str(self.event),
            "details": dict(self.details),
            "previous": self.previous,
        }


@dataclass(frozen=True)
class Head:
    """How far a log goes: who holds a head notices when what leads to it was changed."""

    number: int
    hash: str


def message_id(*parts: str | int) -> str:
    """What both sides of a message call it, from words that both know, such as run and round."""
    return hashlib.sha256(canonical.encode({"message": list(parts)})).hexdigest()[:32]


class Audit:
    """A site's log. Appends only; holds nothing, so any number of processes may."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(
        self, event: Event, id: str | None = None, now: datetime | None = None, **details: Any
    ) -> Entry:
        """Appends a line and forces it to the disk.

        id: what both sides of a message call it; drawn where there is none. Raises DataError for
        details that are not the event's, and StorageError where the disk refuses.
        """
        fault = fault_in(event, details)
        if fault is None and id is not None and not ID(id):
            fault = "its id is not of its kind"
        if fault:
            raise DataError(f"audit: {event}: {fault}")
        with self._locked() as descriptor:
            last = self._mended(descriptor, now)
            return _append(descriptor, last, event, id, details, now)

    def head(self) -> Head:
        """Where the log ends; number 0 where it is empty."""
        with self._locked() as descriptor:
            return self._mended(descriptor, None) or Head(0, START)

    def _mended(self, descriptor: int, now: datetime | None) -> Head | None:
        """The head, after a torn last line was closed off; None of an empty log."""
        last, rest = _ending(descriptor)
        if isinstance(last, Entry) and last.hashed() != last.hash:
            raise StorageError(
                f"{self.path}: its last line was changed: fedsys audit --verify says more; "
                "move the log away to begin a new one"
            )
        head = last.head if last else None
        if rest is None:  # all of a line was written but its end
            _write(descriptor, b"\n")
        if not rest:
            return head
        said = {"bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
        return _append(descriptor, head, Event.CLOSED_OFF, None, said, now, b"\n").head

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with storing(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)


def read_entry(line: bytes) -> Entry | str:
    """The entry that a line holds, or what is wrong with the line. Its hash is not checked."""
    return _entry(line)


def _entry(line: bytes) -> Entry | str:
    if len(line) > LONGEST:
        return f"has more than {LONGEST} bytes"
    try:
        table = canonical.decode_table(line, "line", LONGEST)
    except DataError:
        return "is no entry"
    texts = [table.get(name) for name in ("time", "id", "event", "previous", "hash")]
    if set(table) != _FIELDS or not all(isinstance(one, str) for one in texts):
        return "has not the fields of an entry"
    if type(table["number"]) is not int or not isinstance(table["details"], dict):
        return "has not the fields of an entry"
    try:
        table["event"] = Event(table["event"])
        datetime.strptime(table["time"], _TIME)
    except ValueError:
        return "has an unknown event or time"
    if not (ID(table["id"]) and HASH(table["previous"]) and HASH(table["hash"])):
        return "has no hash or identifier where one belongs"
    if fault_in(table["event"], table["details"]):
        return "has details that are not its event's"
    return Entry(**table)


def _append(
    descriptor: int,
    last: Head | None,
    event: Event,
    id: str | None,
    details: Mapping[str, Any],
    now: datetime | None,
    before: bytes = b"",
) -> Entry:
    last = last or Head(0, START)
    time = (now or datetime.now(UTC)).strftime(_TIME)
    details = {name: _plain(details[name]) for name in FIELDS[event]}
    id = id or secrets.token_hex(8)
    bare = Entry(last.number + 1, time, id, event, details, last.hash, "")
    entry = Entry(bare.number, time, id, event, details, bare.previous, bare.hashed())
    _write(descriptor, before + entry.line() + b"\n")
    os.fsync(descriptor)
    return entry


def _plain(item: Any) -> Any:
    return str(item) if isinstance(item, str) else item


def _write(descriptor: int, data: bytes) -> None:
    while data:  # a disk that fills up takes a part, and refuses the next
        data = data[os.write(descriptor, data) :]


def _ending(descriptor: int) -> tuple[Entry | None, bytes | None]:
    """The last entry, and the torn bytes after its line; None where the line has no end."""
    size = os.fstat(descriptor).st_size
    room = 4 * LONGEST
    while True:
        start = max(0, size - room)
        data = os.pread(descriptor, size - start, start)
        stop = len(data)
        while stop > 0:
            begin = data.rfind(b"\n", 0, stop) + 1
            entry = _entry(data[begin:stop])
            if isinstance(entry, Entry):
                return entry, data[stop + 1 :] if stop < len(data) else None
            if begin == 0:
                break
            stop = begin - 1
        if start == 0:
            return None, data
        room *= 4
