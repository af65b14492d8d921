"""TensorFlow Federated as an engine: the same rounds in a whole other implementation.

It is the oracle of conformance. TFF is slow and lives in an environment of its own, so nobody would
choose it to get work done; it is here to say that what fedsys computes is what others compute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsys.checks import above
from fedsys.engine import Engine
from fedsys.engines.choice import Status
from fedsys.engines.tff import environment
from fedsys.errors import EngineError

if TYPE_CHECKING:
    from fedsys.setting import Setting


@dataclass(frozen=True)
class Tff:
    """TensorFlow Federated 0.87, in a child process; `workers` is how many clients at a time.

    timeout: seconds that its start or a round may take before it counts as dead.
    """

    timeout: float = 1800.0

    def __post_init__(self) -> None:
        above(0, timeout=self.timeout)

    def status(self) -> Status:
        if environment.installed() is None:
            return Status("", "TensorFlow Federated is not installed")
        return Status(f"tensorflow-federated {environment.pinned('tensorflow-federated')}")

    @contextmanager
    def open(self, setting: Setting, workers: int | None) -> Iterator[Engine]:
        from fedsys.engines.tff.engine import check, opened

        told = check(setting)
        found = environment.installed()
        if found is None:
            raise EngineError(f"engine 'tff': {self.status().missing}: {environment.COMMAND}")
        count = workers or os.cpu_count() or 1
        with opened(setting, told, found.python, count, self.timeout) as engine:
            yield engine
