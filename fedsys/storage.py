"""Writing files so that a kill at any moment leaves the old one or the new one, never half."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedsys.errors import StorageError

SYNC_SECONDS = 1.0
"""Files written within this time of the last forced one stay in the system's cache, which a
killed process does not lose and a power cut may: then at most this much is lost."""

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
    """Adds a line to a file, in one write."""
    with storing(path), open(path, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a StorageError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; what was there is kept: "
            f"make room or choose another folder with --out, then --resume {path.parent}"
        ) from error


def _sync(descriptor: int) -> None:
    global _last_sync
    if time.monotonic() - _last_sync > SYNC_SECONDS:
        os.fsync(descriptor)
        _last_sync = time.monotonic()
