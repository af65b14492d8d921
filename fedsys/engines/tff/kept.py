"""Processes under a keeper: they end with this process, and all that they started with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fedsys.engines.tff.child import keeper

HERE = Path(__file__).parent
ENDING = 10.0
"""Seconds that a keeper may take to say how its command ended."""


class Kept:
    """A command under a keeper, in a session of its own.

    log: file for all that it says. It has no pipe: what a command leaves running would hold it
    open. ended: file for its exit code. removed: folder to remove if this process dies.
    descriptors: handed on to the command. network: whether it may have more of one than loopback,
    where the system can tell. variables: its environment, beside this one's without
    what is meant for this Python; `child` can be imported there.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ended: Path,
        removed: Path,
        descriptors: Sequence[int] = (),
        network: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        reach = "all" if network else "loopback"
        numbers = ",".join(map(str, descriptors))
        begin = [sys.executable, "-S", "-E", keeper.__file__, str(os.getpid())]
        self._ended = ended
        with open(log, "ab") as file:
            self._keeper = subprocess.Popen(
                [*begin, str(ended), str(removed), numbers, reach, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**ours, "PYTHONPATH": str(HERE), **(variables or {})},
                pass_fds=descriptors,
                start_new_session=True,
            )

    def running(self, seconds: float) -> bool:
        """Whether it still runs after that time. Returns earlier where it does not."""
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(seconds)
        return self._keeper.returncode is None

    def code(self) -> int:
        """The exit code of a command that has ended, or is about to; negative for a signal."""
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(ENDING)
        with suppress(OSError, ValueError):
            return int(self._ended.read_text())
        return -signal.SIGKILL  # its keeper had no time to say it

    def end(self) -> None:
        """Ends the command and all that it started."""
        # The group lives while anything of it does, so its number is nobody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
