"""One process at a time, across processes: a lock that goes with whoever held it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsys.storage import storing


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file beside `path`; a killed process holds none."""
    lock = path.with_name(f".{path.name}.lock")
    with storing(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
