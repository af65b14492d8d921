"""Large messages in pieces: what is sent is named by length and SHA-256 before its first piece.

The sender holds views of its arrays and one piece; the receiver holds the message once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsys.errors import DataError

PIECE = 1 << 22
SMALLEST, LARGEST = 1 << 10, 1 << 26
"""Bytes of a piece that a receiver accepts."""

Parts = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Manifest:
    """What a message is. length, piece: bytes, of all and of each piece but the last.

    sha256: hexadecimal, of all bytes.
    """

    length: int
    piece: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.length) is not int or type(self.piece) is not int or self.length < 0:
            raise DataError("manifest: its lengths are not whole numbers")
        if not SMALLEST <= self.piece <= LARGEST:
            raise DataError(f"manifest: pieces of {self.piece} bytes, not {SMALLEST} to {LARGEST}")
        text = self.sha256
        if type(text) is not str or len(text) != 64 or set(text) - set("0123456789abcdef"):
            raise DataError("manifest: its sha256 is not 64 hexadecimal digits")

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return -(-self.length // self.piece)

    def size(self, number: int) -> int:
        """Bytes of a piece."""
        return min(self.piece, self.length - number * self.piece)

    def table(self) -> dict[str, Any]:
        """As a plain table."""
        return {"length": self.length, "piece": self.piece, "sha256": self.sha256}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Manifest:
        """The manifest in a table. Raises DataError."""
        if set(table) != {"length", "piece", "sha256"}:
            raise DataError("manifest: needs length, piece and sha256, and nothing else")
        return cls(table["length"], table["piece"], table["sha256"])


def manifest(parts: Parts, piece: int = PIECE) -> Manifest:
    """What a message of these parts is."""
    digest, length = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        length += len(part)
    return Manifest(length, piece, digest.hexdigest())


def cut(parts: Parts, piece: int = PIECE) -> Iterator[bytes]:
    """The parts' bytes as pieces, in order; one is held at a time."""
    held = bytearray()
    for part in parts:
        view, at = memoryview(part), 0
        while at < len(view):
            taken = view[at : at + piece - len(held)]
            held += taken
            at += len(taken)
            if len(held) == piece:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


class Assembly:
    """A message in the making. Pieces may come in any order, and twice if they are the same.

    Room is taken when the first piece is there. Raises DataError for whatever does not fit.
    """

    def __init__(self, manifest: Manifest, limit: int, place: str = "message") -> None:
        if manifest.length > limit:
            raise DataError(f"{place}: {manifest.length} bytes, of at most {limit}")
        self._manifest, self._place = manifest, place
        self._data = bytearray()
        self._there: set[int] = set()

    @property
    def missing(self) -> int:
        """How many pieces are not there yet."""
        return self._manifest.pieces - len(self._there)

    def put(self, number: int, piece: bytes | memoryview) -> None:
        """Adds a piece."""
        if not 0 <= number < self._manifest.pieces:
            raise DataError(f"{self._place}: no piece has the number {number}")
        if len(piece) != self._manifest.size(number):
            raise DataError(
                f"{self._place}: piece {number} has {len(piece)} bytes, "
                f"not {self._manifest.size(number)}"
            )
        if not self._data:
            self._data = bytearray(self._manifest.length)
        room = slice(number * self._manifest.piece, number * self._manifest.piece + len(piece))
        if number not in self._there:
            self._data[room] = piece
            self._there.add(number)
        elif memoryview(self._data)[room] != memoryview(piece):
            raise DataError(f"{self._place}: piece {number} came twice and differs")

    def finish(self) -> memoryview:
        """All bytes. Raises DataError where pieces are missing or the SHA-256 is another."""
        if self.missing:
            raise DataError(
                f"{self._place}: {self.missing} of {self._manifest.pieces} pieces are missing"
            )
        if hashlib.sha256(self._data).hexdigest() != self._manifest.sha256:
            raise DataError(f"{self._place}: damaged: its SHA-256 is not the one announced")
        return memoryview(self._data).toreadonly()
