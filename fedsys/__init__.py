"""Federated learning from a laptop simulation, to real banks and devices, to a microcontroller.

    import fedsys
    run = fedsys.simulate(fedsys.Experiment(task="digits", partition="dirichlet:0.5"))
    run.history, run.model
    fedsys.export(run, "build")

What is named here is loaded when it is first used, so that importing fedsys costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsys.edge.export import export
    from fedsys.errors import FedsysError
    from fedsys.experiment import Experiment
    from fedsys.local import Adam, Local, Sgd
    from fedsys.objectives import Objective
    from fedsys.partition import Partition
    from fedsys.runs import Run
    from fedsys.simulation import resume, simulate
    from fedsys.task import Examples, Task

_HOMES = {
    "Adam": "fedsys.local",
    "Examples": "fedsys.task",
    "Experiment": "fedsys.experiment",
    "FedsysError": "fedsys.errors",
    "Local": "fedsys.local",
    "Objective": "fedsys.objectives",
    "Partition": "fedsys.partition",
    "Run": "fedsys.runs",
    "Sgd": "fedsys.local",
    "Task": "fedsys.task",
    "export": "fedsys.edge.export",
    "resume": "fedsys.simulation",
    "simulate": "fedsys.simulation",
}

__all__ = [
    "Adam",
    "Examples",
    "Experiment",
    "FedsysError",
    "Local",
    "Objective",
    "Partition",
    "Run",
    "Sgd",
    "Task",
    "export",
    "resume",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsys' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
