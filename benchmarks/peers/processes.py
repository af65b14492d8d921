"""A peer's process and all that it starts: asked, weighed, and ended."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.catalogue import Peer
from benchmarks.peers.guard import PATIENCE, below
from benchmarks.pipes import Worker

INTERVAL = 0.5
"""Seconds between two looks at the memory."""


class PeerWorker(Worker):
    """A peer on a federation, in one way, below a guard that leaves nothing of it behind."""

    def __init__(self, peer: Peer, folder: Path, way: str) -> None:
        self._began = time.perf_counter()
        variables = [f"{name}={value}" for name, value in peer.variables.items()]
        # The guard runs in our Python, and then the peer's command as it is.
        python = [sys.executable, "-m", "benchmarks.peers.guard", "env", *variables, peer.python]
        module = f"benchmarks.peers.{peer.module}"
        super().__init__(module, str(folder), way, python=python, alone=True)
        self._done = threading.Event()
        self._peak = 0
        self._watch = threading.Thread(target=self._weigh, daemon=True)
        self._watch.start()

    def first(self) -> float:
        """Seconds from the start of the process to the end of its first round."""
        self.ask("turn", times=1)
        return time.perf_counter() - self._began

    def weighed(self) -> int:
        """The most bytes of the whole tree so far; it is not looked at any more."""
        self._done.set()
        self._watch.join()
        self._look()
        return self._peak

    def _weigh(self) -> None:
        while not self._done.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, sum(map(proportional, below(self._process.pid))))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        pipes: list[Any] = [self._process.stdin, self._process.stdout]
        with suppress(OSError):
            pipes[0].close()
        if error is None:  # nobody asks any more, so it ends by itself, and the guard the rest
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._process.terminate()
        self._process.wait()
        pipes[1].close()
        self._said.close()
        self._watch.join()


def proportional(process: int) -> int:
    """Bytes of a process in memory, its share of what it has in common with others (PSS).

    Zero where it has ended meanwhile.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
