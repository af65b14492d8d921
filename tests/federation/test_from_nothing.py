"""From empty folders to a federation that trains: real processes, separate homes, no file edited.

What is typed here is what a coordinator and two banks type, in that order.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import find_job
from fedsys.federation.jobs.trained import write_model
from fedsys.flower.processes.superlink import free_port
from fedsys.tables import write_schema
from fedsys.trust.events import Event
from fedsys.trust.verification import entries_of
from tests.conftest import FEDSYS, PATIENCE, until
from tests.federation.doors import SCHEMA
from tests.flower.deployed import alive, children

JOB = """
name = "first"
model = "logistic"
rounds = 2
quorum = 2

[local]
epochs = 1
batch = 32
rate = 0.1
"""


class Party:
    """Somebody at a machine of their own. typed: how many commands."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder, self.typed = name, folder, 0
        self.variables = {**os.environ, "FEDSYS_HOME": str(folder / f"home of {name}")}
        self.running: list[subprocess.Popen[bytes]] = []

    def types(self, *words: object, code: int = 0) -> str:
        self.typed += 1
        command = [*FEDSYS, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE,
                              env=self.variables, cwd=self.folder)  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def starts(self, *words: object) -> Path:
        """Starts what goes on, and gives the file of what it says."""
        self.typed += 1
        log = self.folder / f"{self.name}.log"
        with open(log, "wb") as file:
            process = subprocess.Popen([*FEDSYS, *map(str, words)], stdout=file, stderr=file,
                                       env=self.variables, cwd=self.folder)  # fmt: skip
        self.running.append(process)
        return log

    def ends(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            assert process.wait(PATIENCE) == 0

    def log(self) -> Path:
        (path,) = Path(self.variables["FEDSYS_HOME"]).rglob("audit.jsonl")
        return path


@pytest.fixture
def folder(tmp_path):
    write_schema(SCHEMA, tmp_path / "schema.toml")
    (tmp_path / "job.toml").write_text(JOB)
    rng = np.random.default_rng(1)
    for name in ("bank-a", "bank-b"):
        ages, incomes = rng.integers(20, 80, 200), rng.normal(50, 9, 200)
        late = rng.random(200) < 1 / (1 + np.exp((ages - 50) / 10))
        lines = [f"{int(y)},{a},{i:.1f}" for y, a, i in zip(late, ages, incomes, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["late,age,income", *lines]) + "\n")
    return tmp_path


@pytest.fixture
def parties(folder):
    found = [Party(folder, name) for name in ("coordinator", "bank-a", "bank-b")]
    yield found
    for party in found:
        for process in party.running:
            process.kill()
            process.wait()


def waiting(log: Path) -> str:
    """What the server said last that it waits for."""
    lines = [line for line in log.read_text().splitlines() if "waits for bank-b" in line]
    return lines[-1] if lines else ""


def test_three_people_come_from_nothing_to_a_model(folder, parties):
    coordinator, a, b = parties
    coordinator.types("federation", "create", "eu-credit", "--host", "127.0.0.1", "--port",
                      free_port(), "--schema", "schema.toml")  # fmt: skip
    tokens = [coordinator.types("federation", "invite", bank.name).strip() for bank in (a, b)]
    coordinator.typed = 0

    served = coordinator.starts("federation", "serve")
    until(lambda: "waiting for banks" in served.read_text())
    spoken = []
    for bank, token in zip((a, b), tokens, strict=True):
        said = bank.types("bank", "enrol", token)
        spoken.append(said.partition("coordinator: ")[2].split()[0])
        bank.types("bank", "check", "--source", f"{bank.name}.csv")
    logs = [a.starts("bank", "join", "--approve-jobs"), b.starts("bank", "join")]
    until(lambda: all("waits for the coordinator" in log.read_text() for log in logs))
    assert spoken[0] in logs[0].read_text()
    said = coordinator.types("federation", "approve", "bank-a", "bank-b", "--yes")
    assert all(words in said for words in spoken)
    assert (coordinator.typed, a.typed, b.typed) == (2, 3, 3)

    def stands():
        return json.loads(coordinator.types("federation", "status", "--json"))

    until(lambda: all("in federation eu-credit" in log.read_text() for log in logs))
    assert [bank["connected"] for bank in stands()["banks"]] == [True, True]
    assert "✘" not in a.types("doctor") + coordinator.types("doctor")
    coordinator.types("federation", "run", "job.toml")
    for waits in ("statistics", "job"):  # in turn: the first makes the second what it is
        until(lambda waits=waits: f"{waits} " in waiting(served))
        (queued,) = stands()["jobs"]
        assert (queued["waits"], queued["round"]) == (["bank-b"], 0)
        asked = json.loads(b.types("bank", "jobs", "--json"))[-1]
        assert (asked["kind"], asked["id"], asked["state"]) == (waits, queued["asked"], "open")
        b.types("bank", "jobs", "approve", asked["id"])
    watched = coordinator.types("federation", "watch").splitlines()
    assert [line.split("  ")[:2] for line in watched] == [
        ["round 1/2", "2 of 2 banks"],
        ["round 2/2", "2 of 2 banks"],
        ["first: done"],
    ]
    (weights,) = Path(coordinator.variables["FEDSYS_HOME"]).rglob("weights.bin")
    assert weights.stat().st_size > 0
    events = [entry.event for entry in entries_of(b.log())]
    counted = (Event.STATISTICS_APPROVED, Event.STATISTICS_SENT, Event.UPDATE_SENT)
    assert [events.count(one) for one in counted] == [1, 1, 2]
    home = Home.open(weights.parents[2])  # in this process, where TensorFlow may be loaded already
    assert write_model(home, find_job(home, "first"), folder / "first.keras").model.exists()
    ours = [["--with", bank.log()] for bank in (a, b)]
    coordinator.types("federation", "audit", "--verify", *ours[0], *ours[1])

    processes = [process.pid for party in parties for process in party.running]
    below = set().union(*(children(pid) for pid in processes))
    assert len(below) >= 5, "Flower's server, two nodes, two trainers"
    for party in (a, b, coordinator):
        party.ends()
    assert not [pid for pid in below if alive(pid)]
