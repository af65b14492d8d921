"""The engine that is there without asking: compiled training in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedsys.engines.choice import Status, package_status

if TYPE_CHECKING:
    from fedsys.engine import Engine
    from fedsys.setting import Setting

XLA = {"auto": None, "xla": True, "graph": False}
"""What an experiment's `compiler` says of XLA; None leaves it to the layers."""


@dataclass(frozen=True)
class Compiled:
    """Cohorts in this process, in compiled calls on threads; `workers` is how many."""

    def status(self) -> Status:
        return package_status("tensorflow")

    @contextmanager
    def open(self, setting: Setting, workers: int | None) -> Iterator[Engine]:
        from fedsys.engines.compiled import CompiledEngine

        experiment = setting.experiment
        # No client fills a longer batch, for which memory would be kept all the same.
        batch = min(experiment.local.batch, int(setting.partition.sizes.max()))
        engine = CompiledEngine(
            setting.task,
            setting.model,
            setting.partition,
            experiment.strategy,
            replace(experiment.local, batch=batch),
            seed=experiment.seed,
            uniform=experiment.weighting == "uniform",
            fault=experiment.faults,
            aggregator=experiment.aggregator,
            workers=workers,
            xla=XLA[experiment.compiler],
        )
        with ExitStack() as ending:
            ending.callback(engine.close)
            try:
                yield engine
            except KeyboardInterrupt:
                ending.pop_all()  # nobody waits for the calls in flight
                raise
