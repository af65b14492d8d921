"""A federation on one machine, for show: real server and owners, with TLS and keys of their own.

Everything is as in a real deployment but that one person plays all roles: the folders, keys,
certificates and processes are the same, and the owners see nothing of each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedsys.child import said
from fedsys.clients.bank.home import ALWAYS, BankHome
from fedsys.clients.bank.home import Facts as BankFacts
from fedsys.errors import EngineError, FedsysError
from fedsys.federation.banks import Banks
from fedsys.federation.demo.comparison import federated, simulated
from fedsys.federation.demo.outcome import FEDERATED, Outcome
from fedsys.federation.demo.shown import Demo, write_rows
from fedsys.federation.home import Facts, Home
from fedsys.federation.jobs.folder import DONE, TO_RUN, JobFolder, submit
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.supervision import Supervised, log_tail
from fedsys.tables import open_source

LOOK_SECONDS = 0.1
GRACE_SECONDS = 15.0
"""What a server or a bank gets to end what it started."""


@dataclass(frozen=True)
class Made:
    """What was made for show. banks: the owners' folders, and rows: how many each trains on, by
    name. test: a CSV file. source: of the rows, for people."""

    home: Home
    banks: dict[str, BankHome]
    test: Path
    rows: dict[str, int]
    source: str


def set_up(demo: Demo, folder: Path, data: str | None = None) -> Made:
    """Makes the folders of a coordinator and of the owners, and gives each owner its rows."""
    shared = demo.shared(data)
    facts = Facts(name="demo", host=LOOPBACK, port=free_port(), banks=len(shared.owners))
    home = Home.create(folder / "coordinator", facts, demo.schema)
    write_rows(shared.table, shared.test, folder / "test.csv")
    enrolled = Banks(home.folder / "banks.json")
    made = {}
    for name, rows in shared.owners.items():
        source = folder / f"{name}.csv"
        write_rows(shared.table, rows, source)
        known = BankFacts(
            name=name,
            federation=facts.name,
            server=facts.address,
            coordinator=home.keys.public.signing,
            source=str(source),
            approve=ALWAYS,
        )
        bank = BankHome.create(folder / name, known, demo.schema, home.authority_path.read_bytes())
        enrolled.add(name, bank.keys.public)
        enrolled.approve(name)
        made[name] = bank
    counts = {name: len(rows) for name, rows in shared.owners.items()}
    return Made(home, made, folder / "test.csv", counts, shared.table.source)


@contextmanager
def running(made: Made, told: Callable[[str], None]) -> Iterator[dict[str, Supervised]]:
    """The processes of a coordinator and its banks: name -> process. All end with the block."""
    with ExitStack() as stack:
        processes = {}
        for name, folder, module in [
            ("server", made.home.folder, "fedsys.federation.server"),
            *(
                (name, bank.folder, "fedsys.clients.bank.agent")
                for name, bank in made.banks.items()
            ),
        ]:
            processes[name] = stack.enter_context(_process(name, folder, module, told))
        yield processes


def _process(name: str, folder: Path, module: str, told: Callable[[str], None]) -> Supervised:
    ready = folder / "ready"

    def is_ready(pid: int) -> bool:
        try:
            return ready.read_text() == str(pid)
        except OSError:
            return False

    return Supervised(
        name,
        lambda: [sys.executable, "-m", module, str(folder), str(ready)],
        folder / "process.log",
        is_ready=is_ready,
        explain=lambda log: _last_word(name, log),
        told=told,
        grace=GRACE_SECONDS,
        wait=False,
        variables={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _last_word(name: str, log: str) -> FedsysError | None:
    """What a process of ours said last, if that was an error."""
    last = [line for line in said(log) if line.startswith("fedsys: ")][-1:]
    return EngineError(f"{name}: {last[0].removeprefix('fedsys: ')}") if last else None


def run_demo(demo: Demo, folder: Path, data: str | None, told: Callable[[str], None]) -> Outcome:
    """Runs a demonstration in a folder, and ends every process that it started."""

    def told_of_owners(line: str) -> None:  # the server calls each owner of rows a bank
        told(line.replace("banks", f"{demo.owner}s"))

    begun = time.monotonic()
    made = set_up(demo, folder, data)
    counts = ", ".join(f"{count:,}" for count in made.rows.values())
    told(f"{made.source}; {len(made.rows)} {demo.owner}s with {counts}")
    test = open_source(made.test)
    sources = {name: bank.source() for name, bank in made.banks.items()}
    with running(made, told) as processes:
        job = submit(made.home, demo.request)
        look = partial(_Following(made, job, told_of_owners).look, processes)
        # Beside the federation's work: what each owner comes to alone, and all rows together.
        folder = folder / "simulated"
        labels, scores = simulated(demo.schema, demo.request, sources, test, folder, look)
        while not look():
            time.sleep(LOOK_SECONDS)
    from fedsys.federation.jobs.run import read_result  # takes TensorFlow, which is there by now

    scores[FEDERATED] = federated(made.home, demo.request, read_result(job), test)
    seconds = round(time.monotonic() - begun, 1)
    return Outcome.of(demo, made.rows, labels, scores, made.source, seconds)


class _Following:
    """Watches a job that runs in other processes."""

    def __init__(self, made: Made, job: JobFolder, told: Callable[[str], None]) -> None:
        self._made, self._job, self._told = made, job, told
        self._said = 0

    def look(self, processes: dict[str, Supervised]) -> bool:
        """Tells what is new. Whether the job is done; raises what ended it."""
        for process in processes.values():
            process.check()
        lines = said(log_tail(self._made.home.folder / "process.log"))
        for line in lines[self._said :]:
            self._told(line)
        self._said = max(self._said, len(lines))
        status = self._job.status
        if status.status == DONE:
            return True
        if status.status not in TO_RUN:
            raise EngineError(f"the demonstration stopped: {status.error}")
        return False
