"""All processes of a session, which a child that leads it may have started by the dozen."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_session(leader: int) -> None:
    """Kills every process of a session but this one.

    leader: whose session it is; it runs, or has ended and was not waited for, so that its number
    is nobody else's. Where there is no /proc, its process group stands for the session.
    """
    with suppress(OSError):
        if leader != os.getpid():
            os.killpg(leader, signal.SIGKILL)
    for _ in range(3):  # one may have started another meanwhile
        for pid in _members(leader):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _members(leader: int) -> list[int]:
    """The processes of a session, without this one."""
    if not os.path.isdir("/proc/self"):
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and _session(pid) == leader]


def _session(pid: int) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may hold anything; then come state, parent, group, session.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    return None
