"""Our experiments on Flower's nodes: in this process, or in Flower's own simulation on Ray."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, Self

from fedsys.engine import Aggregate, Cohorts, Engine, Work
from fedsys.engines import scratch
from fedsys.errors import EngineError
from fedsys.flower.app.grid import InProcessGrid
from fedsys.flower.rounds.client import client_app
from fedsys.flower.rounds.engine import GridEngine
from fedsys.flower.rounds.mail import Lost
from fedsys.flower.rounds.messages import Code
from fedsys.flower.simulation.clients import VirtualClients
from fedsys.supervision import end, exit_code, how_it_ended, same_modules, start

if TYPE_CHECKING:
    from fedsys.setting import Setting

SIMULATOR = "fedsys.flower.simulation.simulator"
LAST_SECONDS = 15.0
"""How long the process of a simulation, and its Ray, may take to end by themselves."""


@contextmanager
def in_process(setting: Setting, workers: int) -> Iterator[GridEngine]:
    """An engine over the in-process grid: one node a client, no Ray, no SuperLink."""
    errors: list[Exception] = []

    def failed(code: Code, error: Exception) -> None:
        errors.append(error)

    def told(client: int, what: str) -> None:
        """A simulated client that fails does so for a reason that mends all of them."""
        if errors:
            raise errors[0]

    def lost(client: int, lost: Lost) -> None:
        raise EngineError(f"engine 'flower': client {client}: {lost.detail}: {lost.text}")

    with VirtualClients.of(setting, workers) as clients:
        app = client_app(clients.member, failed)
        with InProcessGrid(app, setting.clients, workers=workers) as grid:
            nodes = grid.get_node_ids()
            yield GridEngine(
                grid,
                **_known(setting),
                node_of=lambda client: nodes[client],
                own_stays=False,
                facts=_facts(workers, "Flower in process", "thread"),
                told=told,
                lost=lost,
            )


@contextmanager
def on_ray(setting: Setting, workers: int) -> Iterator[Engine]:
    """An engine over Flower's own simulation: one node a client."""
    with RaySimulation(setting.clients, workers) as simulation:
        yield simulation.engine(setting)


class RaySimulation:
    """Flower's simulation in a child process, for one experiment or several of as many clients.

    A context: it ends with it, and all that it started. Its folder is removed at the end; where
    it failed, its log stays there.
    """

    def __init__(self, clients: int, workers: int) -> None:
        self.workers = workers
        self._clients = clients
        self._child: subprocess.Popen[bytes] | None = None
        self._failed = False
        self.folder = scratch.made("flower", sockets=True)

    def __enter__(self) -> Self:
        """Starts Flower, and waits until all nodes are there."""
        self._channel, theirs = Pipe()
        number = theirs.fileno()
        said = map(str, [self.folder, number, self._clients, self.workers])
        command = [sys.executable, "-P", "-m", SIMULATOR, *said]
        try:
            with theirs, open(self.folder / scratch.LOG, "wb") as log:
                self._child = start(command, log, _variables(), [number])
            self._answer("starting")
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise scratch.not_written("flower", self.folder, error) from error
            raise
        return self

    @property
    def pid(self) -> int:
        """Of the child."""
        assert self._child is not None, "it was started"
        return self._child.pid

    def engine(self, setting: Setting) -> Engine:
        """An engine for an experiment."""
        from fedsys.engines.ray.parcels import packed
        from fedsys.flower.simulation.setting_files import pack

        known = _known(setting)
        folder = self.folder / known["experiment"]
        try:
            folder.mkdir()
            pack(setting, folder)
        except OSError as error:
            raise scratch.not_written("flower", folder, error) from error
        self.ask("starting", packed(("open", known), f"task {setting.task.name!r}"))
        return _Rounds(self, known["experiment"])

    def ask(self, doing: str, order: bytes) -> Any:
        """The answer to an order. Raises EngineError where there is none, or a bad one.

        doing: what the error then says was being done.
        """
        with suppress(OSError):  # then there is no answer, either
            self._channel.send_bytes(order)
        return self._answer(doing)

    def __exit__(self, *error: object) -> None:
        """Ends the child and its Ray, and clears up."""
        self._channel.close()
        if self._child is not None:
            end(self._child, LAST_SECONDS)
        scratch.cleared(self.folder, failed=self._failed)

    def _answer(self, doing: str) -> Any:
        try:
            kind, value = pickle.loads(self._channel.recv_bytes())  # from our own child
        except (EOFError, OSError):
            kind, value = "error", self._ending()
        if kind == "error":
            self._failed = True
            said, log = " ".join(str(value).split())[:500], self.folder / scratch.LOG
            raise EngineError(f"engine 'flower': {doing}: {said}; its log is {log}")
        return value

    def _ending(self) -> str:
        """How a child ended that does not answer."""
        assert self._child is not None, "it was started"
        code = exit_code(self._child, LAST_SECONDS)
        if code is None:
            return "Flower's simulation does not answer"
        return f"Flower's simulation {how_it_ended(code, self.folder / scratch.LOG)}"


class _Rounds:
    """One experiment in a simulation. Is an `Engine`."""

    def __init__(self, simulation: RaySimulation, experiment: str) -> None:
        self._simulation, self._experiment = simulation, experiment

    @property
    def facts(self) -> Mapping[str, Any]:
        return _facts(self._simulation.workers, "Flower on Ray", "actor")

    def prepare(self, round: int, cohorts: Cohorts) -> None: ...

    def run(self, work: Work) -> Aggregate:
        from fedsys.engines.ray.parcels import packed

        held = {client: work.memory[client] for client in work.cohort if client in work.memory}
        order = packed(("run", self._experiment, replace(work, memory=held)), "the strategy")
        aggregate: Aggregate = self._simulation.ask(f"round {work.round}", order)
        return aggregate

    def close(self) -> None: ...


def _known(setting: Setting) -> dict[str, Any]:
    """What `GridEngine` needs to know of a setting."""
    return {
        "layout": setting.layout,
        "strategy": setting.experiment.strategy,
        "aggregator": setting.experiment.aggregator,
        "enrolled": setting.enrolled,
        "experiment": setting.experiment.trajectory,
    }


def _facts(workers: int, where: str, worker: str) -> dict[str, Any]:
    count = f"{workers} {worker}{'s' * (workers > 1)}"
    return {"workers": workers, "where": f"{where}, {count}"}


def _variables() -> dict[str, str]:
    """The child's environment: it finds what this process finds, and reports nothing."""
    return {
        **os.environ,
        **same_modules(),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
