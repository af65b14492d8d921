"""The foreman's process, as seen from here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from fedsys import errors
from fedsys.engines.ray.messages import Failed, Said
from fedsys.errors import EngineError

FAREWELL = 10.0
"""Seconds that the foreman has to end what it started."""

STAMP = re.compile(r"^\[[^\]]*\] \S+:\d+: ")
"""Time, process and place in Ray's source, before what it says."""

SHORT = 40
"""Letters of a folder that leave room for the names of Ray's sockets in it."""

CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); " \
       "from fedsys.engines.ray.foreman import main; main(int(sys.argv[1]))"  # fmt: skip


class Foreman:
    """A process that owns Ray. It ends, with all that it started, when its pipe closes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.folder = _folder()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the rest
        here, there = socket.socketpair()
        environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_raylet_start_wait_time_s": "60",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        }
        with there:
            # Of a session of its own: Ctrl-C on this process is not for Ray's.
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(there.fileno()), json.dumps(_paths())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[there.fileno()],
                env=environment,
                start_new_session=True,
            )
        self._wire: Connection[Any, Any] = Connection(here.detach())

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
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                if end is not None and not self._wire.poll(max(0.0, end - time.monotonic())):
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
        self._wire.close()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it at once, whatever it does."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._wire.close()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _dead(self) -> Any:
        """Raises EngineError with the last that the process said."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)
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


def _folder() -> str:
    """A new folder for the files of a Ray of our own."""
    place = tempfile.gettempdir()
    if len(place) > SHORT - len("/fedsys-ray-12345678") and os.path.isdir("/tmp"):
        place = "/tmp"
    return tempfile.mkdtemp(prefix="fedsys-ray-", dir=place)


def _paths() -> list[str]:
    """Where Python looks for modules here; workers look there, too."""
    return [os.path.abspath(path) for path in sys.path]
