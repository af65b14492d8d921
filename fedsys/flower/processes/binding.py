"""A node's request, bound to its path and its body, to its moment, and to one time.

Flower's node signs the time and nothing else: whoever copies a request may send it again for 305 s,
with any body, to any path of that node. So every request has a header of ours beside Flower's:

    x-fedsys-request: TIME.NONCE.SIGNATURE

The signature is that of the node's own key over what is asked (method and path), the SHA-256 of the
body, the time and the nonce. The guard lets a request in whose signature fits, whose time is now,
and whose nonce was not here before.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fedsys.storage import not_written, storing, write_atomic

HEADER = "x-fedsys-request"
REFUSED = "x-fedsys-refused"
"""The answer's header that says which fault a request had."""
CLOCK = 120
"""Seconds that a node's clock may differ from the server's."""
ARRIVING = 300
"""Seconds that a body may take to arrive: 8 MiB over 220 kbit/s."""
KEPT = 2 * CLOCK + ARRIVING
"""Seconds that a nonce is kept at least: a request may come so long after its first copy."""
EACH, ALL = 1 << 17, 1 << 20
"""Nonces of one node, and of all, that are kept of so many seconds; then the node has to wait."""
_DOMAIN = b"fedsys request 1\n"
_STAMP = re.compile(r"([1-9][0-9]{0,11})\.([0-9a-f]{32})\.([0-9a-f]{16,256})")
_ECDSA = ec.ECDSA(hashes.SHA256())


class Fault(StrEnum):
    """What is wrong with a request."""

    UNKNOWN = "unknown"
    """The key is no bank's."""
    UNSIGNED = "unsigned"
    """It has no header of ours, or one that cannot be read."""
    CLOCK = "clock"
    """It is old, or early."""
    ALTERED = "altered"
    """The signature is not over this path and this body."""
    REPLAYED = "replayed"
    """It was here before."""


@dataclass(frozen=True)
class Stamp:
    """What the header says. time: whole seconds since 1970. nonce: 32 hexadecimal digits."""

    time: int
    nonce: str
    signature: bytes = field(repr=False)

    def text(self) -> str:
        """As it travels."""
        return f"{self.time}.{self.nonce}.{self.signature.hex()}"

    def off(self, now: float) -> float:
        """Seconds that the sender's clock seems to be ahead, below 0 where it is behind."""
        return self.time - now

    def fits(self, key: ec.EllipticCurvePublicKey, asked: bytes, digest: bytes) -> bool:
        """Whether that key signed it, for this. asked, digest: see `stamped`."""
        try:
            key.verify(self.signature, _message(asked, digest, self.time, self.nonce), _ECDSA)
        except InvalidSignature:
            return False
        return True


def stamped(
    key: ec.EllipticCurvePrivateKey, asked: bytes, digest: bytes, now: float | None = None
) -> Stamp:
    """A stamp for one request. asked: `POST /path?query`. digest: SHA-256 of the body."""
    moment = int(time.time() if now is None else now)
    nonce = secrets.token_hex(16)
    return Stamp(moment, nonce, key.sign(_message(asked, digest, moment, nonce), _ECDSA))


def read_stamp(text: bytes) -> Stamp | None:
    """The stamp that a header holds; None where it holds none. Each stamp has one text alone."""
    found = _STAMP.fullmatch(text.decode("ascii", "replace"))
    if found is None or len(found[3]) % 2:
        return None
    return Stamp(int(found[1]), found[2], bytes.fromhex(found[3]))


def _message(asked: bytes, digest: bytes, moment: int, nonce: str) -> bytes:
    return _DOMAIN + b"\n".join([asked, digest.hex().encode(), f"{moment}\n{nonce}".encode()])


_ENTRY = struct.Struct(">q24s")
"""On the disk: the stamp's time, and a hash of key and nonce."""


class Seen:
    """The nonces that were here, at least for `KEPT` seconds; for one thread.

    They lie in two generations. When the younger has that age the older is dropped, in memory and
    on the disk, so both stay small however long the server runs. The disk is written before a
    request goes on, so that a server that was killed knows them; it is not forced, so that a power
    cut may lose the last moments.

    path: of the younger's file; None keeps them in memory alone. each, all: see `EACH`. A node
    that was counted beyond it waits for the next generation, and no other does.
    """

    def __init__(
        self,
        path: Path | None = None,
        kept: float = KEPT,
        each: int = EACH,
        all: int = ALL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._kept, self._each, self._all, self._clock = path, kept, each, all, clock
        self._old: set[bytes] = set()
        self._new: set[bytes] = set()
        self._count: Counter[bytes] = Counter()
        self._begun = clock()
        self._file: int | None = None
        self._size = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            known = dict(self._read())
            self._old = set(known)
            write_atomic(self._older, [_ENTRY.pack(when, mark) for mark, when in known.items()])
            self._open()

    def __len__(self) -> int:
        return len(self._old) + len(self._new)

    def room(self, key: bytes) -> bool:
        """Whether one more of that key's is taken."""
        self._turn()
        return self._count[key] < self._each and len(self._new) < self._all

    def had(self, key: bytes, stamp: Stamp) -> bool:
        """Whether it was here."""
        mark = _mark(key, stamp)
        return mark in self._new or mark in self._old

    def add(self, key: bytes, stamp: Stamp) -> None:
        """Keeps a stamp, whose signature was checked. Raises StorageError where it cannot."""
        mark = _mark(key, stamp)
        self._write(_ENTRY.pack(stamp.time, mark))
        self._new.add(mark)
        self._count[key] += 1

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _older(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.before")

    def _turn(self) -> None:
        """Begins a new generation where the younger is old enough."""
        if self._clock() - self._begun < self._kept:
            return
        if self._path is not None:
            self.close()
            with suppress(FileNotFoundError):
                os.replace(self._path, self._older)
            self._open()
        self._old, self._new = self._new, set()
        self._count.clear()
        self._begun = self._clock()

    def _open(self) -> None:
        assert self._path is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        try:
            self._file, self._size = os.open(self._path, flags, 0o600), 0
        except OSError as error:
            raise not_written(self._path, error) from error

    def _write(self, entry: bytes) -> None:
        """All of an entry, or nothing of it."""
        if self._path is None or self._file is None:
            return
        try:
            while entry:
                entry = entry[os.write(self._file, entry) :]
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise not_written(self._path, error) from error
        self._size += _ENTRY.size

    def _read(self) -> Iterator[tuple[bytes, int]]:
        """(mark, time) of those that a server before this one left, and that still count."""
        assert self._path is not None
        oldest = time.time() - self._kept
        for path in (self._older, self._path):
            with storing(path), suppress(FileNotFoundError):
                data = path.read_bytes()
                whole = data[: len(data) - len(data) % _ENTRY.size]
                for when, mark in _ENTRY.iter_unpack(whole):
                    if when >= oldest:
                        yield mark, when


def _mark(key: bytes, stamp: Stamp) -> bytes:
    """[24] bytes that stand for a node's nonce. key: as PEM."""
    return hashlib.sha256(key + stamp.nonce.encode()).digest()[:24]
