"""A federation of real processes on loopback, whose every part a test can kill, freeze or cut."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.clients.bank.home import BankHome
from fedsys.federation.demo import fraud
from fedsys.federation.demo.run import set_up
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import PAUSED, TO_RUN, JobFolder, resume_job, submit
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.run import read_result
from fedsys.local import Local
from tests.federation.faults.proxy import Proxy
from tests.federation.faults.small_disk import small_disk_of
from tests.flower.deployed import alive, children

WAIT = 300.0
"""Seconds after which something hangs."""
SPOILED = Path(__file__).with_name("spoiled.py")
LOCAL = Local(epochs=1, batch=32, rate=0.1)


def until(happened: Callable[[], Any], what: str = "it") -> None:
    """Waits for something; fails where it does not come."""
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


class Process:
    """A process of the federation, with all that it starts."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.log = folder / "process.log"
        self.ready = folder / "ready"
        self.within: Sequence[str] = ()
        self._command = [*command, str(folder), str(self.ready)]
        self._process: subprocess.Popen[bytes] | None = None
        self.tree: set[int] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*self.within, *self._command], stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )  # fmt: skip

    def is_ready(self) -> bool:
        """Whether it says that it can be used."""
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"{self.folder.name} ended with {code}: {self.text()[-2000:]}"
        return self.ready.exists() and self.ready.read_text() == str(self.pid)

    def text(self) -> str:
        """All that it has said so far."""
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """kill -9 of the process and of all below it, as where a machine loses its power."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait()
        until(lambda: not any(alive(pid) for pid in self.tree), "the end of the killed")

    def kill_alone(self) -> set[int]:
        """kill -9 of the process itself; gives what was below it, and should end by itself."""
        assert self._process is not None
        below = children(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        return below

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.tree:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> int:
        """Asks it to end, and gives its exit code; nothing of it may be left."""
        process = self._process
        if process is None:
            return 0
        below = children(process.pid)
        if process.poll() is None:
            process.terminate()
            process.wait(WAIT)
        until(lambda: not any(alive(pid) for pid in below), f"the end of {self.folder.name}'s")
        return int(process.returncode)

    def _signal(self, number: int) -> None:
        """To the parent first: it shall not start again what is killed."""
        self.tree = {self.pid, *children(self.pid)}
        for pid in sorted(self.tree, key=lambda pid: pid != self.pid):
            os.kill(pid, number)


class Federation:
    """A coordinator and its banks. proxies: bank -> the line to its server. disk: of the server's
    state, where it has one of its own."""

    def __init__(self, folder: Path, banks: int, rows: int = 600, small_disk: bool = False) -> None:
        before, fraud.MADE_UP = fraud.MADE_UP, rows
        try:
            made = set_up(fraud.fraud(banks), folder)
        finally:
            fraud.MADE_UP = before
        self.demo = made
        self.home: Home = made.home
        self.names = list(made.banks)
        self.disk = small_disk_of(self.home.folder / "flower") if small_disk else None
        self._numbers = count(1)
        self.server = Process(self.home.folder, [sys.executable, "-m", "fedsys.federation.server"])
        self.banks = {
            name: Process(bank.folder, [sys.executable, str(SPOILED), "agent"])
            for name, bank in made.banks.items()
        }
        self.proxies = {name: Proxy(self.home.facts.port) for name in self.names}
        for name, bank in made.banks.items():
            path = bank.folder / "bank.json"
            said = json.loads(path.read_text())
            said["server"] = f"127.0.0.1:{self.proxies[name].port}"
            path.write_text(json.dumps(said))

    @contextmanager
    def running(self) -> Iterator["Federation"]:
        """All processes; nothing of them is left afterwards."""
        with ExitStack() as stack:
            if self.disk is not None:
                stack.enter_context(self.disk)
                self.server.within = self.disk.within
            for proxy in self.proxies.values():
                stack.enter_context(proxy)
            for process in self.processes:
                stack.callback(process.stop)
                process.start()
            for process in self.processes:
                until(process.is_ready, process.folder.name)
            yield self

    @property
    def flower(self) -> Path:
        """Where Flower's server keeps its state, as seen from here."""
        place = self.home.folder / "flower"
        return place if self.disk is None else self.disk.seen

    @property
    def processes(self) -> list[Process]:
        return [self.server, *self.banks.values()]

    def bank(self, name: str) -> BankHome:
        return self.demo.banks[name]

    def plan(self, name: str, faults: Mapping[int, str]) -> None:
        """What a bank does wrong, in which rounds."""
        (self.banks[name].folder / "faults.json").write_text(json.dumps(faults))

    def await_work(self, name: str, round: int, job: JobFolder | None = None) -> None:
        """Waits until a bank trains in a round. job: is resumed where its deadlines were too short
        for this machine to come so far."""
        path = self.banks[name].folder / "at_work"

        def works() -> bool:
            if job is not None and job.status.status == PAUSED:
                resume_job(job)
            return path.exists() and path.read_text() == str(round)

        until(works, f"{name} in round {round}")

    def await_trainers(self) -> None:
        """Waits until each bank's trainer, which takes seconds to load, is at its work."""
        for name, process in self.banks.items():
            path = process.folder / "flower" / "trainer.pid"

            def loaded(path: Path = path, pid: int = process.pid) -> bool:
                return path.exists() and int(path.read_text() or 0) in children(pid)

            until(loaded, f"the trainer of {name}")

    def ask(self, **options: Any) -> JobFolder:
        """Asks for a job. Nobody is left out for being slow: this machine may be."""
        for process in self.banks.values():
            (process.folder / "at_work").unlink(missing_ok=True)
        waits = {"deadline": 120.0, "grace": 120.0}
        options = {"model": "logistic", "local": LOCAL, **waits, **options}
        return submit(self.home, Request(name=f"job-{next(self._numbers)}", **options))

    def audited(self, event: str) -> list[dict[str, Any]]:
        """The coordinator's entries of one kind."""
        lines = (self.home.folder / "audit.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def limit_files(self, size: int | None) -> None:
        """Lets the coordinator write no file beyond a size: to it, the disk is full."""
        hard = resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE)[1]
        soft = hard if size is None else size
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (soft, hard))


def ended(job: JobFolder) -> str:
    """Waits for a job's end, round after round, and says how it ended."""
    while (said := job.status).status in TO_RUN:
        until(lambda said=said: job.status != said, f"{job.name} after round {said.round}")
    return said.status


def resumed(job: JobFolder) -> str:
    """Resumes a job to its end, more than once where its deadlines are short for this machine."""
    for _ in range(10):
        resume_job(job)
        if ended(job) == "done":
            break
    return job.status.status


def at_round(job: JobFolder, round: int) -> None:
    """Waits until a round is done."""
    until(lambda: job.status.round >= round or job.status.status not in TO_RUN, f"round {round}")


def weights(job: JobFolder) -> np.ndarray:
    return np.concatenate([tensor.ravel() for tensor in read_result(job).values()])


def lines(job: JobFolder) -> list[dict[str, Any]]:
    """What is written down of each round."""
    return [json.loads(line) for line in job.metrics.read_text().splitlines()]
