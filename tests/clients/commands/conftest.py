"""A bank that enrolled by its command, for what is typed there afterwards."""

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.clients.bank.home import BankHome
from fedsys.federation.banks import Banks
from fedsys.federation.jobs.folder import submit
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.trust.jobs import sign_job
from tests.conftest import Cli
from tests.federation.doors import coordinator, invited, open_door


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path):
    return coordinator(tmp_path / "coordinator")


@pytest.fixture
def door(home):
    with open_door(home) as desk:
        yield desk


@pytest.fixture
def rows(tmp_path):
    """Rows that fit the schema."""
    rng = np.random.default_rng(0)
    lines = ["late,age,income"]
    lines += [f"{n % 2},{rng.integers(20, 80)},{rng.normal(50, 9):.1f}" for n in range(60)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def bank(cli: Cli, home, door) -> BankHome:
    """A bank that enrolled by its command."""
    said = cli("bank", "enrol", invited(home, "bank-a").text())
    assert said.code == 0, said.err
    return BankHome.open(places.find(places.BANK))


@pytest.fixture
def offer(home, bank):
    """Offers a job to the bank, which is approved."""
    Banks(home.folder / "banks.json").approve("bank-a")
    Banks(home.folder / "banks.json").add("bank-b", other_keys(home))
    Banks(home.folder / "banks.json").approve("bank-b")

    def offered(name):
        request = Request(name=name, model="logistic", rounds=2)
        job = foresee(home, request).job
        (submit(home, request).folder / "job.json").write_bytes(sign_job(home.keys.signing, job))
        return job

    return offered


def other_keys(home):
    from fedsys.trust.keys import make_keys

    return make_keys(home.folder / "others").public


def reopened(bank):
    return BankHome.open(bank.folder)
