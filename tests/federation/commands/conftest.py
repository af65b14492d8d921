"""A federation that was made by its command, for what is typed there afterwards."""

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.clients.bank.enrolment import enrol
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.desk import Desk
from fedsys.federation.home import Home
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.flower.processes.superlink import free_port
from fedsys.tables import write_schema
from fedsys.trust.signing import sign
from tests.conftest import Cli
from tests.federation.doors import SCHEMA, invited, open_door

JOB = """
name = "first"
model = "logistic"
rounds = 3
deadline = 60

[local]
epochs = 1
batch = 32
rate = 0.1
"""


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "home"))


@pytest.fixture
def schema(tmp_path):
    write_schema(SCHEMA, tmp_path / "schema.toml")
    return tmp_path / "schema.toml"


@pytest.fixture
def created(cli: Cli, schema) -> Home:
    """A federation that was made by its command."""
    said = cli("federation", "create", "eu-credit", "--host", "127.0.0.1", "--port", free_port(),
               "--schema", schema, "--json")  # fmt: skip
    assert said.code == 0, said.err
    return Home.open(Path(said.json["folder"]))


def banks(home):
    return Banks(home.folder / "banks.json")


def enrolled(home, folder, *names):
    """Banks that have enrolled, by name."""
    with open_door(home):
        return {name: enrol(invited(home, name), folder / name).home for name in names}


def stands(home, bank, approves="ask", jobs=(), version="0.1.0", refused=()):
    """As if a bank had said how it stands."""
    body = {"bank": bank.facts.name, "approves": approves, "jobs": list(jobs),
            "version": version, "head": None, "refused": list(refused)}  # fmt: skip
    data = sign(bank.keys.signing, body, purpose="standing", audience=home.facts.name).data()
    said = Desk(home).answer("standing", data, "here")
    assert "error" not in said
    return said


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture
def offered(created, tmp_path):
    """(home, banks, job, the list of approved banks) of a job that two banks are asked for."""
    found = enrolled(created, tmp_path, "bank-a", "bank-b")
    for name in found:
        banks(created).approve(name)
    job = foresee(created, Request(name="first", model="logistic", rounds=2)).job
    return created, found, job, banks(created).approved()
