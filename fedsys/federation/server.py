"""The coordinator's process: Flower's server, and the jobs one after another.

python -m fedsys.federation.server FOLDER      the same as `fedsys federation serve`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedsys.child import be_child, say
from fedsys.errors import FedsysError, QuorumError, Stopped, StorageError
from fedsys.federation.banks import Bank, Banks
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import FAILED, PAUSED, JobFolder, next_job
from fedsys.flower import compat_nodes
from fedsys.flower.processes import superlink
from fedsys.flower.processes.access import Access, admit_nodes
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.trust.events import Event, code_of

IDLE_SECONDS = 0.2


def serve(
    home: Home,
    told: Callable[[str], None],
    ready: Callable[[], None] = lambda: None,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Runs the server, and every job that is asked for, until it is interrupted.

    ready: is called when banks can connect. until: ends it when nothing is left to do and this
    says so.
    """
    server = home.server()
    process = superlink.supervised(server, told)
    with process:
        access = Access.of(server)
        nodes = _Nodes(home, access)
        nodes.current()
        note = server.folder / "run"
        job: JobFolder | None = None

        def check(coming: int) -> None:
            superlink.check_room(server, coming)
            if job is not None:
                job.raise_if_stopped()

        with DeployedGrid(access, told, lambda: process.starts, note, check) as grid:
            told(f"{home.facts.name}: waiting for banks at {home.facts.address}")
            ready()
            while True:
                process.check()
                nodes.current()
                job = next_job(home)
                if job is not None:
                    _run(home, job, nodes, grid, told)
                elif until():
                    return
                else:
                    time.sleep(IDLE_SECONDS)


def _run(
    home: Home,
    job: JobFolder,
    nodes: _Nodes,
    grid: DeployedGrid,
    told: Callable[[str], None],
) -> None:
    from fedsys.federation.jobs.run import Abandoned, run_job

    told(f"{job.name}: begins")
    try:
        run_job(home, job, nodes.current, grid, told)
        told(f"{job.name}: done")
    except Abandoned as error:
        _stopped(home, job, error, FAILED, told)
    except (QuorumError, StorageError, Stopped) as error:  # banks come back, disks get room
        _stopped(home, job, error, PAUSED, told)
    except FedsysError as error:
        _stopped(home, job, error, FAILED, told)


def _stopped(
    home: Home, job: JobFolder, error: FedsysError, status: str, told: Callable[[str], None]
) -> None:
    """Writes down that a job does not go on by itself. Raises StorageError where it cannot: the
    job then goes on when the server is started again."""
    job.failed(error, status)
    told(f"{job.name}: {status}: {error}")
    said = job.status
    if said.job:
        with suppress(StorageError):  # its status says it, too
            run, code = said.job[:16], str(code_of(error))
            home.audit.record(Event.PAUSED, run=run, round=said.round, code=code)


class _Nodes:
    """The banks that may take part, and their nodes; the server is told when that changes."""

    def __init__(self, home: Home, access: Access) -> None:
        self._banks, self._access = Banks(home.folder / "banks.json"), access
        self._known: list[Bank] | None = None
        self._ids: dict[int, int] = {}

    def current(self) -> tuple[list[Bank], dict[int, int]]:
        """Banks, and client number -> node id: as before, where the server is away just now."""
        banks = self._banks.approved()
        if banks != self._known:
            try:
                ids = admit_nodes(self._access, [bank.node_public for bank in banks])
            except Exception as error:
                if self._known is None or not compat_nodes.is_away(error):
                    raise
                return self._known, self._ids
            self._ids = {bank.number: ids[bank.node_public] for bank in banks}
            self._known = banks
        return banks, self._ids


def main(arguments: list[str]) -> None:
    """Serves as a child of another process, which is told by a file when banks can connect."""
    from fedsys.federation.enrolment.door import OpenHome

    folder, ready = map(Path, arguments)
    be_child(lambda is_ready: serve(OpenHome.open(folder), say, is_ready), ready)


if __name__ == "__main__":
    main(sys.argv[1:])
