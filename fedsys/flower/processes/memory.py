"""Memory that is free again goes back to the system, where the C library is glibc.

By itself glibc takes blocks of megabytes, once one was freed, from heaps that each thread has of
its own, and these keep what lies below a block still in use. In a server whose threads pass on
pieces of 5 MiB that comes to hundreds of MB that hold nothing.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Of mallopt(3)."""
LARGE = 1 << 20
ARENAS = 2


def give_back() -> None:
    """From now on, blocks of a MiB and more are the system's again when they are freed, and the
    process has few heaps."""
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, LARGE)
        library.mallopt(_ARENA_MAX, ARENAS)
