"""Runs a command and ends all that came of it: `python -m benchmarks.peers.guard COMMAND...`

Some simulators leave processes behind that outlive their parent, in sessions of their own. The
guard adopts every orphan below it (Linux), and when the command has ended, or the guard is told to
(SIGTERM, or the death of its own parent), it ends them all. Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 10.0


def below(root: int) -> list[int]:
    """Process ids of all that descends from a process, without itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                # The name, in brackets, may hold anything; the parent is the second after it.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found, ahead = [], [root]
    while ahead:
        mine = children.get(ahead.pop(), [])
        found += mine
        ahead += mine
    return found


def end_all() -> None:
    """Ends all descendants, and waits until there are none."""
    until = time.monotonic() + PATIENCE
    while (left := below(os.getpid())) and time.monotonic() < until:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def main() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getppid()
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and says what to do
    code = 1
    try:
        if os.getppid() == parent:  # else it died before it could be watched
            code = subprocess.Popen(sys.argv[1:]).wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_all()
    sys.exit(code)


if __name__ == "__main__":
    main()
