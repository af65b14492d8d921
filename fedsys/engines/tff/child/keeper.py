"""Runs a command and sees to it that nothing of it outlives its end, or the end of who asked.

    keeper.py PARENT ENDED REMOVED DESCRIPTORS COMMAND...

TensorFlow Federated starts a `worker_binary` that goes on after its own process has died. So the
keeper leads a session of its own, in which all of them are. It waits for the command to end or for
the process PARENT to be gone, and then kills the whole group, itself included; whoever wants the
command's exit code reads it in the file ENDED. The folder REMOVED goes where the parent is gone,
for nobody else will remove it. DESCRIPTORS ("5,6", may be empty) are handed on to the command.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

WATCH = 0.2
"""Seconds between two looks at the parent."""


def keep(
    parent: int, ended: str, removed: str, descriptors: Sequence[int], command: Sequence[str]
) -> NoReturn:
    """Runs the command; ends the group with it, or with the parent."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)
    for descriptor in descriptors:
        os.close(descriptor)  # so that the other side hears when the command ends
    while True:
        try:
            code = child.wait(WATCH)
            break
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                shutil.rmtree(removed, ignore_errors=True)
                end()
    with open(ended, "w") as file:
        file.write(str(code))
    end()


def end() -> NoReturn:
    """Ends the group, this process included."""
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # not reached


if __name__ == "__main__":
    parent, ended, removed, descriptors, *command = sys.argv[1:]
    keep(int(parent), ended, removed, [int(d) for d in descriptors.split(",") if d], command)
