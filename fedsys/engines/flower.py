"""Flower's messages and nodes under our round loop: its simulation on Ray, or its nodes here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsys.engine import Engine
from fedsys.engines.choice import Status, package_status
from fedsys.errors import nearest

if TYPE_CHECKING:
    from fedsys.setting import Setting

BACKENDS = ("ray", "in-process")


@dataclass(frozen=True)
class Flower:
    """Flower's own simulation: every client a node, every update a message.

    backend: 'ray' is Flower's, and `workers` are its Ray actors; 'in-process' runs the same
    messages and the same app on nodes in this process, and `workers` are threads.
    """

    backend: str = "ray"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(
                f"backend: unknown {self.backend!r}; {nearest(self.backend, BACKENDS)}"
            )

    def status(self) -> Status:
        flower = package_status("flwr")
        ray = package_status("ray") if self.backend == "ray" else Status("")
        versions = ", ".join(version for version in (flower.version, ray.version) if version)
        return Status(versions, flower.missing or ray.missing)

    @contextmanager
    def open(self, setting: Setting, workers: int | None) -> Iterator[Engine]:
        from fedsys.flower.simulation.backends import in_process, on_ray

        opened = on_ray if self.backend == "ray" else in_process
        with opened(setting, workers or os.cpu_count() or 1) as engine:
            yield engine
