"""Processes under a keeper: they end with this process, and all that they started with them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fedsys.engines.tff.child import keeper
from fedsys.supervision import end, exit_code, start

HERE = Path(__file__).parent
ENDING = 10.0
"""Seconds that a keeper may take to say how its command ended."""


class Kept:
    """A command under a keeper, in a session of its own.

    log: file for all that it says. ended: file for its exit code. removed: folder to remove if
    this process dies. descriptors: handed on to the command. network: whether it may have more of
    one than loopback, where the system can tell. variables: its environment, beside this one's
    without what is meant for this Python; `child` can be imported there.
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
        begin = [sys.executable, "-S", "-E", keeper.__file__, str(ended), str(removed)]
        self._ended = ended
        with open(log, "ab") as file:
            self._keeper = start(
                [*begin, numbers, reach, *command],
                file,
                {**ours, "PYTHONPATH": str(HERE), **(variables or {})},
                descriptors,
            )

    def running(self, seconds: float) -> bool:
        """Whether it still runs after that time. Returns earlier where it does not."""
        return exit_code(self._keeper, seconds) is None

    def code(self) -> int:
        """The exit code of a command that has ended, or is about to; negative for a signal."""
        exit_code(self._keeper, ENDING)
        with suppress(OSError, ValueError):
            return int(self._ended.read_text())
        return -signal.SIGKILL  # its keeper had no time to say it

    def end(self) -> None:
        """Ends the command and all that it started."""
        end(self._keeper)
