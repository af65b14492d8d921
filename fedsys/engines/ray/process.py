"""The foreman's process, as seen from here."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

from fedsys import errors
from fedsys.engines import scratch
from fedsys.engines.ray.messages import Failed, Said
from fedsys.errors import EngineError
from fedsys.supervision import end, exit_code, same_modules, start

FOREMAN = "fedsys.engines.ray.foreman"

FAREWELL = 10.0
"""Seconds that the foreman has to end what it started."""

STAMP = re.compile(r"^\[[^\]]*\] \S+:\d+: ")
"""Time, process and place in Ray's source, before what it says."""


class Foreman:
    """A process that owns Ray. It ends, with all that it started, when this one lets go of it.

    Its log is a file without a name: the folder is Ray's, and goes with it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.folder = str(scratch.made("ray", sockets=True))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the rest
        self._wire, there = Pipe()
        environment = {
            **os.environ,
            **same_modules(),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_raylet_start_wait_time_s": "60",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        }
        with there:
            number = there.fileno()
            command = [sys.executable, "-P", "-m", FOREMAN, str(number)]
            self._process = start(command, self._log, environment, [number])

    def send(self, message: Any) -> None:
        """Sends a message. Raises EngineError where nobody listens."""
        try:
            self._wire.send(message)
        except OSError:
            self._dead()

    def receive(self, wanted: type, seconds: float | None = None, late: str = "") -> Any:
        """The next message of a kind; what is said on the way is passed on.

        Raises what the foreman failed with, and EngineError where it died, or with `late` where
        nothing came in time.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                if until is not None and not self._wire.poll(max(0.0, until - time.monotonic())):
                    raise EngineError(late)
                message = self._wire.recv()
            except (EOFError, OSError):
                self._dead()
            if isinstance(message, wanted):
                return message
            if isinstance(message, Said):
                self._say(message.line)
            elif isinstance(message, Failed):
                raise _error(message)

    def close(self) -> None:
        """Ends Ray and all that belongs to it."""
        self._end(FAREWELL)

    def kill(self) -> None:
        """Ends it at once, whatever it does."""
        self._end(0.0)

    def _end(self, grace: float) -> None:
        end(self._process, grace)
        self._wire.close()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _dead(self) -> Any:
        """Raises EngineError with the last that the process said."""
        exit_code(self._process, FAREWELL)
        self._log.seek(0)
        said = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        last = next((line for line in reversed(said) if _tells(line)), "it was ended from outside")
        last = STAMP.sub("", last).partition(". ")[0]
        raise EngineError(f"Ray died ({last[:200]}): go on from the last checkpoint with --resume")


def _tells(line: str) -> bool:
    return bool(line) and not line.startswith(("warnings.warn", "@", "***"))


def _error(failed: Failed) -> Exception:
    if failed.kind == "MemoryError":
        return MemoryError(failed.line)
    kind = getattr(errors, failed.kind, EngineError)
    error: Exception = kind(failed.line)
    return error
