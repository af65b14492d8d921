"""Looking at processes from outside, for tests of who ends whom. Linux alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def _fields(pid: int) -> list[str]:
    """State, parent, group, session, ... of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(pid: int) -> bool:
    """Whether a process has ended: a zombie has, too."""
    fields = _fields(pid)
    return not fields or fields[0] == "Z"


def running(place: int, number: int) -> set[int]:
    """Processes that run and whose field `place` of `_fields` is that number."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    found = {pid: _fields(pid) for pid in pids}
    return {
        pid
        for pid, fields in found.items()
        if fields and fields[0] != "Z" and int(fields[place]) == number
    }


def keepers(pid: int) -> set[int]:
    """The processes that one has started, that run, and that lead a session of their own."""
    return {child for child in running(1, pid) if int(_fields(child)[3]) == child}


def session(pid: int) -> set[int]:
    """The processes that run in the session that one leads."""
    return running(3, pid)


def eventually(what: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether something comes true in a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False
