"""Tables of a flatbuffer, read without trust in a single offset of theirs.

The format: a table is a signed distance back to its list of fields (the *vtable*), then its
fields; the list has the place of each field within the table by the number of its *slot*. Texts,
vectors and other tables lie elsewhere, at a distance that the field holds.

Whatever the file says, no read leaves it, nothing is read recursively, and all reads together
stay within twice its length, so that offsets that point over and over at one place cannot make
much out of little. Constants are views and cost nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SMALLEST = 16
"""Bytes that a table is counted as, at least: what a table of any use takes with its offset."""

SLACK = 1024
"""Bytes that may be read of any file, be it ever so short."""


class BrokenError(Exception):
    """The bytes are no sound flatbuffer; the message says what is wrong, without the file."""


@dataclass
class Content:
    """A file's bytes, and how many of them may still be read."""

    data: bytes
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = 2 * len(self.data) + SLACK

    def spend(self, size: int) -> None:
        """Count bytes as read. BrokenError where that were more than the file can mean."""
        self.left -= size
        if self.left < 0:
            raise BrokenError("parts of it overlap")

    def view(self, start: int, size: int, what: str) -> np.ndarray:
        """[size] uint8, read-only: a piece of the file, not counted."""
        if size < 0 or start < 0 or start + size > len(self.data):
            raise BrokenError(f"{what} reaches beyond its end")
        return np.frombuffer(self.data, np.uint8, size, start)

    def number(self, kind: str, start: int, what: str) -> Any:
        """A number. kind: as `struct` has it, such as "i" or "H"."""
        if start < 0 or start + struct.calcsize("<" + kind) > len(self.data):
            raise BrokenError(f"{what} reaches beyond its end")
        return struct.unpack_from("<" + kind, self.data, start)[0]

    def root(self) -> Table:
        """The table that all others hang from."""
        return Table.at(self, self.number("I", 0, "the first table"), "the first table")


@dataclass(frozen=True)
class Table:
    """A table of the file.

    start: its place. size: its bytes. fields, slots: place of the list of fields and how many it
    has. what: how a message names it.
    """

    content: Content
    start: int
    size: int
    fields: int
    slots: int
    what: str

    @classmethod
    def at(cls, content: Content, start: int, what: str) -> Table:
        """The table that begins at a place."""
        fields = start - content.number("i", start, what)
        length = content.number("H", fields, what)
        size = content.number("H", fields + 2, what)
        if length < 4 or length % 2 or fields + length > len(content.data):
            raise BrokenError(f"{what} has no sound list of fields")
        if size < 4 or start + size > len(content.data):
            raise BrokenError(f"{what} reaches beyond its end")
        content.spend(max(size, SMALLEST))
        return cls(content, start, size, fields, (length - 4) // 2, what)

    def number(self, slot: int, kind: str, default: Any = 0) -> Any:
        """A number, or the default where it is not written. kind: as `struct` has it."""
        place = self._place(slot, struct.calcsize("<" + kind))
        return default if place is None else self.content.number(kind, place, self.what)

    def table(self, slot: int, what: str) -> Table | None:
        """A table, or None where there is none."""
        start = self._target(slot)
        return None if start is None else Table.at(self.content, start, what)

    def tables(self, slot: int, what: str) -> Iterator[Table]:
        """The tables of a vector, in order; `what` is numbered in messages."""
        start, length = self._vector(slot, 4)
        self.content.spend(4 * length)
        for i in range(length):
            place = start + 4 * i
            target = place + self.content.number("I", place, what)
            yield Table.at(self.content, target, f"{what} {i}")

    def vector(self, slot: int, dtype: str) -> np.ndarray:
        """[length] numbers, read-only; [0] where there are none. dtype: little-endian, "<i4"."""
        start, length = self._vector(slot, np.dtype(dtype).itemsize)
        self.content.spend(length * np.dtype(dtype).itemsize)
        return np.frombuffer(self.content.data, dtype, length, start if length else 0)

    def constant(self, slot: int) -> np.ndarray:
        """[length] uint8, read-only: as `vector`, but not counted as read."""
        start, length = self._vector(slot, 1)
        return self.content.view(start, length, self.what)

    def text(self, slot: int) -> str:
        """A text; "" where there is none. Bytes that are not UTF-8 become question marks."""
        return self.vector(slot, "u1").tobytes().decode("utf-8", "replace")

    def has(self, slot: int) -> bool:
        """Whether a field is written."""
        return self._place(slot, 1) is not None

    def _place(self, slot: int, size: int) -> int | None:
        """Where a field of some bytes lies in the file."""
        if slot >= self.slots:
            return None
        within = self.content.number("H", self.fields + 4 + 2 * slot, self.what)
        if not within:
            return None
        if within < 4 or within + size > self.size:
            raise BrokenError(f"{self.what} has a field outside of it")
        return self.start + within

    def _target(self, slot: int) -> int | None:
        """Where the thing lies that a field points at."""
        place = self._place(slot, 4)
        if place is None:
            return None
        return place + self.content.number("I", place, self.what)

    def _vector(self, slot: int, itemsize: int) -> tuple[int, int]:
        """(start of the first element, number of elements)."""
        target = self._target(slot)
        if target is None:
            return 0, 0
        length = self.content.number("I", target, self.what)
        if target + 4 + length * itemsize > len(self.content.data):
            raise BrokenError(f"{self.what} has a list that reaches beyond the end")
        return target + 4, length
