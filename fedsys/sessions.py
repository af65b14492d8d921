"""Processes as the system lists them, and the end of all that a session holds."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Listed:
    """A process. name: at most 15 letters. ended: it has, and its parent has not asked how."""

    name: str
    ended: bool
    parent: int
    session: int


def look(pid: int) -> Listed | None:
    """What Linux says of a process; None where there is none, or no /proc to look into."""
    with suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may hold anything; then come state, parent, group, session.
        head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        fields = rest.split()
        name = head.partition("(")[2]
        return Listed(name, fields[0] == "Z", int(fields[1]), int(fields[3]))
    return None


def listed() -> dict[int, Listed]:
    """All processes by their number; none where there is no /proc."""
    if not os.path.isdir("/proc/self"):
        return {}
    found = {int(name): look(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: one for pid, one in found.items() if one is not None}


def end_session(leader: int) -> None:
    """Kills every process of a session but this one.

    leader: whose session it is; it runs, or has ended and was not waited for, so that its number
    is nobody else's. Where there is no /proc, its process group stands for the session.
    """
    with suppress(OSError):
        if leader != os.getpid():
            os.killpg(leader, signal.SIGKILL)
    for _ in range(3):  # one may have started another meanwhile
        for pid, one in listed().items():
            if one.session == leader and pid != os.getpid():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
