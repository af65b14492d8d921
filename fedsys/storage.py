"""Writing files so that a kill at any moment leaves the old one or the new one, never half."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedsys.errors import StorageError

SYNC_SECONDS = 1.0
"""Files written within this time of the last forced one stay in the system's cache, which a
killed process does not lose and a power cut may: then at most this much is lost."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room."""

_last_sync = 0.0


def write_atomic(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Writes the parts as a file that appears whole, or leaves the old and raises StorageError."""
    temporary = path.with_name(f".{path.name}.part")
    with storing(path):
        try:
            with open(temporary, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                _sync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file, in one write where there is room."""
    rest = line.encode() + b"\n"
    with storing(path), open(path, "ab", buffering=0) as file:
        while rest:  # a disk that fills up takes a part, and refuses the next
            rest = rest[file.write(rest) :]


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a StorageError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> StorageError:
    """What to raise where a file could not be written."""
    remedy = "make room there" if error.errno in FULL else "choose another place"
    return StorageError(f"{path}: cannot be written: {error.strerror or error}: {remedy}")


def _sync(descriptor: int) -> None:
    global _last_sync
    if time.monotonic() - _last_sync > SYNC_SECONDS:
        os.fsync(descriptor)
        _last_sync = time.monotonic()
