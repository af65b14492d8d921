"""The engine for those who outgrow one machine: workers on Ray, here or in a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsys.checks import at_least
from fedsys.engine import Engine
from fedsys.engines.choice import Status, package_status
from fedsys.errors import UsageError

if TYPE_CHECKING:
    from fedsys.setting import Setting

DATA = ("auto", "shared", "homes")


@dataclass(frozen=True)
class Ray:
    """Parts of a cohort in workers, each with a compiled engine of its own; `workers` is how many.

    address: of a cluster, `HOST:PORT` or `ray://HOST:PORT`; if None, a Ray of our own is started
    on this machine and ended with the run. threads: of a worker.
    data: 'shared' gives every worker the rows of all clients, so that any worker can train any
    client. 'homes' gives each client one worker, its home, which alone reads the client's rows.
    'auto' takes homes where the rows of all, once a worker, need too much memory.
    """

    address: str | None = None
    threads: int = 1
    data: str = "auto"

    def __post_init__(self) -> None:
        at_least(1, threads=self.threads)
        if self.data not in DATA:
            raise UsageError(f"data must be one of {', '.join(DATA)}, not {self.data!r}")

    def status(self) -> Status:
        return package_status("ray")

    @contextmanager
    def open(self, setting: Setting, workers: int | None) -> Iterator[Engine]:
        from fedsys.engines.ray.engine import RayEngine

        with RayEngine.opened(setting, self, workers) as engine:
            yield engine
