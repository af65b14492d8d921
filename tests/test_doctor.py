"""`fedsys doctor`: each thing that can be wrong is one line with its remedy."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import doctor
from fedsys.clients.bank.enrolment import enrol, keep
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.desk import Desk
from fedsys.federation.examination import examined as look_at_federation
from fedsys.flower.processes.superlink import LOOPBACK
from fedsys.health import BAD, GOOD, WARNING, Subject
from fedsys.trust.identity import issue_server, read_authority
from tests.conftest import Cli, until
from tests.federation.doors import coordinator, invited, open_door


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path):
    return coordinator(tmp_path / "home" / "federations" / "eu-credit")


@pytest.fixture
def bank(home, tmp_path):
    """A bank that has enrolled and named its rows; its server is away."""
    rows = tmp_path / "rows.csv"
    rows.write_text("late,age,income\n" + "1,30,5\n0,40,6\n" * 20)
    with open_door(home):
        made = enrol(invited(home, "bank-a"), tmp_path / "home" / "banks" / "bank-a@eu-credit")
    return keep(made.home, source=str(rows))


def found(state, *parts):
    """The one check that is so and says all of these."""
    checks = doctor.examine()
    those = [check for check in checks if check.state == state
             and all(part in check.text() for part in parts)]  # fmt: skip
    assert len(those) == 1, doctor.text(checks)
    return those[0]


def test_where_nothing_lies_the_machine_is_looked_at(cli: Cli):
    said = cli("doctor")
    assert said.code == 0
    assert "neither a federation nor a bank" in said.out
    assert "fedsys bank enrol TOKEN" in said.out
    assert "flwr 1.41" in said.out


def test_all_is_well(cli: Cli, home, bank):
    Banks(home.folder / "banks.json").approve("bank-a")
    assert found(WARNING, "statistics", "fedsys bank jobs approve")
    bank.approve(bank.statistics.digest)
    with open_door(home):
        said = cli("doctor", "--json", "--home", bank.folder)
    assert said.code == 0 and said.json["good"]
    states = {check["said"]: check["state"] for check in said.json["checks"]}
    assert states["the coordinator knows it, and has approved it"] == GOOD
    assert [said for said, state in states.items() if state == WARNING] == ["takes no part now"]


def test_a_server_that_is_away_is_a_matter_of_the_network(cli: Cli, bank):
    assert found(BAD, "Connection refused", "fedsys federation serve").code == 4
    assert cli("doctor").code == 4


def test_a_bank_that_waits_reads_its_fingerprint(home, bank):
    with open_door(home):
        check = found(WARNING, "waits for approval", bank.keys.public.spoken)
    assert "fedsys federation approve bank-a" in check.remedy


def test_a_bank_that_the_federation_does_not_know_is_told(home, bank):
    (home.folder / "banks.json").write_text("{}")
    with open_door(home):
        assert found(BAD, "not known here").code == 5


def test_another_server_at_the_address_is_told(home, bank, tmp_path):
    other = coordinator(tmp_path / "other", name="other")
    (bank.folder / "authority.crt").write_bytes(other.authority_path.read_bytes())
    with open_door(home):
        assert found(BAD, "is not the federation's server").code == 5


@pytest.mark.parametrize(("days", "state"), [(20, WARNING), (5, BAD)])
def test_a_certificate_that_will_expire_is_told_to_both(home, bank, days, state):
    made = datetime.now(UTC) - timedelta(days=100)
    authority = read_authority(home.folder / "authority")
    issue_server(home.folder / "server", authority, [LOOPBACK], now=made, days=100 + days)
    with open_door(home):
        checks = doctor.examine()
    said = [check for check in checks if "good for" in check.said]
    assert [check.state for check in said] == [state, state]
    assert all("fedsys federation renew" in check.remedy for check in said)


def test_a_certificate_for_another_host_is_told(home, tmp_path):
    path = home.folder / "federation.json"
    table = {**json.loads(path.read_text()), "host": "fl.example.org"}
    path.write_text(json.dumps(table))
    assert found(BAD, "is not for fl.example.org", "fedsys federation renew").code == 5
    assert found(WARNING, "listens on 127.0.0.1 alone", "--listen 0.0.0.0")


def test_clocks_that_differ_are_told(home, bank):
    with open_door(home, Desk(home, lambda: time.time() + 200)):
        check = found(BAD, "differ by")
    assert "timedatectl" in check.remedy and check.code == 5


@pytest.mark.parametrize("name", ["keys/node.key", "secrets/executor", "bank.json"])
def test_a_file_that_others_can_read_is_told(bank, name):
    (bank.folder / name).chmod(0o644)
    assert found(BAD, f"chmod 600 {bank.folder / name}").code == 5


def test_the_authoritys_key_is_looked_at(home):
    (home.folder / "authority" / "ca.key").chmod(0o640)
    assert found(BAD, "ca.key", "chmod 600").code == 5


def test_a_log_that_was_changed_is_told(home, bank):
    home.audit.path.write_text(home.audit.path.read_text().replace("bank-a", "bank-b"))
    assert found(BAD, "audit.jsonl", "its hash", "backup").code == 5


def test_rows_that_are_gone_or_lack_a_column_are_told(bank, tmp_path):
    (tmp_path / "rows.csv").write_text("late,age\n1,2\n")
    assert found(BAD, "income", "fedsys bank check").code == 3
    (tmp_path / "rows.csv").unlink()
    assert found(BAD, "rows.csv", "does not exist").code == 3
    keep(bank, source="")
    assert found(WARNING, "not named", "fedsys bank check --source")


def test_a_port_that_another_program_has_is_told(home):
    with socket.create_server((LOOPBACK, home.facts.port)):
        assert found(BAD, str(home.facts.port), "in use").code == 4


def test_a_bank_that_waits_for_approval_is_told_to_the_coordinator(home, bank):
    assert found(WARNING, "bank-a has enrolled and waits", "fedsys federation approve bank-a")
    checks = list(look_at_federation(Subject("it"), home.folder))
    assert any("0 banks approved, 2 needed" in check.said for check in checks)


def test_a_damaged_folder_ends_its_own_checks_alone(home, bank):
    shutil.rmtree(home.folder / "authority")
    checks = doctor.examine()
    assert any(check.of.startswith("bank") for check in checks)
    assert found(BAD, "ca.key").code == 5


def test_little_room_and_memory_are_told(monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free, state in ((100, BAD), (2 << 30, WARNING), (50 << 30, GOOD)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        found(state, "free in")
    monkeypatch.setattr(doctor, "_free_memory", lambda: 1 << 29)
    assert found(WARNING, "0.5 GiB of memory", "end other programs")


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("flwr", "no-such-package"))
    assert found(BAD, "missing: no-such-package", "pip install").code == 12


ORPHAN = """
import os, sys, time
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_process_that_was_left_behind_is_told():
    if "fedsys" in Path("/proc/1/cmdline").read_text():
        pytest.skip("the first process of this machine is ours")
    done = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, "fedsys.flower.processes.launch"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout is not None
    process = int(done.stdout.readline())
    try:
        done.wait()
        if int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) != 1:
            pytest.skip("another process than the first takes orphans here")
        until(lambda: (process, "fedsys.flower.processes.launch") in doctor.orphans(0.2))
        assert found(BAD, f"process {process} ", f"kill {process}").code == 12
        timer = threading.Timer(0.3, lambda: os.kill(process, signal.SIGKILL))
        timer.start()  # one that is about to end is not told
        assert (process, "fedsys.flower.processes.launch") not in doctor.orphans(60.0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        done.stdout.close()
