"""Ending a run politely."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ECHO_SECONDS = 0.5
"""Supervisors such as `timeout` signal a process and then its group: within this time it is one
request, heard twice."""


@contextmanager
def asked_to_stop(heard: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C and a polite kill only set what the yielded function tells; a second one
    interrupts at once. Signals reach the main thread alone: elsewhere nothing is changed.

    heard: called at the first, on a thread of its own, as a signal may come amid a print.
    """
    asked = threading.Event()
    first = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if not asked.is_set():
            first = time.monotonic()
            asked.set()
            threading.Thread(target=heard, daemon=True).start()
        elif time.monotonic() - first > ECHO_SECONDS:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
