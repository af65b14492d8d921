"""Our experiments on Flower's nodes: in this process, or in Flower's own simulation on Ray."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedsys.engine import Aggregate, Cohorts, Engine, Work
from fedsys.errors import EngineError
from fedsys.flower.app.grid import InProcessGrid
from fedsys.flower.rounds.client import client_app
from fedsys.flower.rounds.engine import GridEngine
from fedsys.flower.rounds.mail import Lost
from fedsys.flower.rounds.messages import Code
from fedsys.flower.simulation.clients import VirtualClients
from fedsys.flower.simulation.session import end_session

if TYPE_CHECKING:
    from fedsys.setting import Setting

LOG = "log.txt"
SIMULATOR = "fedsys.flower.simulation.simulator"
LONGEST = 15
"""Letters of a place for temporary files that leave room for the names of Ray's sockets in it."""
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
        place = tempfile.gettempdir()
        if len(place) > LONGEST and os.path.isdir("/tmp"):
            place = "/tmp"
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="fedsys-flower-", dir=place))
        except OSError as error:
            raise _not_written(Path(place), error) from error

    def __enter__(self) -> Self:
        """Starts Flower, and waits until all nodes are there."""
        self._channel, theirs = Pipe()
        life, self._held = os.pipe()
        numbers = [theirs.fileno(), life]
        said = [self.folder, *numbers, self._clients, self.workers]
        try:
            with open(self.folder / LOG, "wb") as log:
                self._child = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "fedsys.flower.simulation.simulator",
                        *map(str, said),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_variables(),
                    pass_fds=numbers,
                    start_new_session=True,  # Ctrl-C is for us to hear
                )
            theirs.close()
            os.close(life)
            self._answer("starting")
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise _not_written(self.folder, error) from error
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
            raise _not_written(folder, error) from error
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
        os.close(self._held)  # by this the child knows
        self._channel.close()
        if self._child is not None:
            self._ended()
            end_session(self._child.pid)
            self._child.wait()
        if self._failed:
            for path in self.folder.iterdir():
                if path.name != LOG:
                    shutil.rmtree(path, True) if path.is_dir() else path.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _answer(self, doing: str) -> Any:
        try:
            kind, value = pickle.loads(self._channel.recv_bytes())  # from our own child
        except (EOFError, OSError):
            kind, value = "error", self._ending()
        if kind == "error":
            self._failed = True
            said = " ".join(str(value).split())[:500]
            raise EngineError(f"engine 'flower': {doing}: {said}; its log is {self.folder / LOG}")
        return value

    def _ending(self) -> str:
        """How a child ended that does not answer."""
        code = self._ended()
        if code is None:
            return "Flower's simulation does not answer"
        if code < 0:
            return f"Flower's simulation was killed ({signal.Signals(-code).name})"
        lines = (self.folder / LOG).read_text(errors="replace").strip().splitlines()
        last = f" ({lines[-1].strip()})" if lines else ""
        return f"Flower's simulation ended with code {code}{last}"

    def _ended(self) -> int | None:
        """Waits a while for the end of the child, and returns its exit code, or minus the signal.

        It is not reaped: its number stays that of its session.
        """
        until = time.monotonic() + LAST_SECONDS
        while time.monotonic() < until:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if end is not None:
                return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
            time.sleep(0.02)
        return None


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
        "PYTHONPATH": os.pathsep.join(place for place in sys.path if place),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _not_written(place: Path, error: OSError) -> EngineError:
    return EngineError(
        f"engine 'flower': {place}: cannot be written: {error.strerror or error}: make room there, "
        "or name another place in TMPDIR"
    )
