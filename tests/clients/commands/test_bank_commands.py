"""`fedsys bank`: what the owner of rows types, and what is wrong with it in one line."""

import json
import sqlite3
import stat

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.clients.bank import joining
from fedsys.clients.bank.home import BankHome
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.serving import alone
from fedsys.trust.events import Event
from tests.clients.commands.conftest import reopened
from tests.conftest import Cli
from tests.federation.doors import coordinator, invited, open_door

# --- enrol ---------------------------------------------------------------------------------------


def test_enrol_prints_what_to_read_aloud(cli: Cli, home, door):
    said = cli("bank", "enrol", invited(home, "bank-a").text())
    bank = BankHome.open(places.find(places.BANK))
    assert said.code == 0
    assert f"read this to the coordinator: {bank.keys.public.spoken}" in said.out
    assert "fedsys bank check" in said.out
    assert bank.folder.name == "bank-a@eu-credit"


def test_enrol_reads_a_token_that_a_mail_program_broke(cli: Cli, home, door, monkeypatch):
    import io

    text = invited(home, "bank-a").text()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{text[:70]}\n  {text[70:]}\n"))
    said = cli("bank", "enrol", "-", "--json")
    assert said.json["bank"] == "bank-a" and said.json["schema"] == home.schema.hash


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda text: text[:-5], "cut after"),
        (lambda text: text[:40] + ("a" if text[40] != "a" else "b") + text[41:], "mistyped"),
        (lambda text: text[8:], "does not begin with"),
        (lambda text: "fedsys2." + text[8:], "another version"),
        (lambda text: text[:20] + "é" + text[21:], "character number 21"),
    ],
)
def test_a_mistyped_token_is_told_before_anything_is_asked(cli: Cli, home, change, part):
    wrong = change(invited(home, "bank-a").text())
    cli("bank", "enrol", wrong).refused(5, "token", part, "new one")
    assert places.all_of(places.BANK) == {}


def test_enrol_without_a_server_leaves_nothing(cli: Cli, home):
    cli("bank", "enrol", invited(home, "bank-a").text()).refused(4, "Connection refused")
    assert places.all_of(places.BANK) == {}


def test_a_bank_may_be_in_two_federations(cli: Cli, home, bank, tmp_path):
    other = coordinator(tmp_path / "other", name="us-fraud")
    with open_door(other):
        assert cli("bank", "enrol", invited(other, "bank-a").text()).code == 0
    cli("bank", "check").refused(2, "bank-a@eu-credit, bank-a@us-fraud", "--bank")
    cli("bank", "check", "--bank", "bank-a@us-fraud").refused(2, "no rows")


# --- check ---------------------------------------------------------------------------------------


def test_check_remembers_rows_that_are_good(cli: Cli, bank, rows):
    cli("bank", "check").refused(2, "--source")
    said = cli("bank", "check", "--source", "rows.csv")
    assert said.code == 0, said.out + said.err
    assert "matches the federation" in said.out and "fedsys bank join" in said.err
    facts = reopened(bank).facts
    assert facts.source == str(rows)
    assert stat.S_IMODE((bank.folder / "bank.json").stat().st_mode) == 0o600
    assert cli("bank", "check", "--json").json["rows"] == 60


def test_check_refuses_rows_and_remembers_nothing(cli: Cli, bank, rows):
    rows.write_text("late,age\n1,30\n0,40\n")
    said = cli("bank", "check", "--source", rows)
    assert said.code == 3
    assert "income: the column is missing" in said.out and "nothing was sent" in said.out
    cli("bank", "check", "--source", "none.csv").refused(3, "none.csv")
    assert reopened(bank).facts.source == ""


def test_check_reads_a_database_with_its_query(cli: Cli, bank, rows, tmp_path):
    pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
    with sqlite3.connect(tmp_path / "bank.db") as base:
        base.execute("create table tx (late int, age real, income real)")
        lines = [line.split(",") for line in rows.read_text().splitlines()[1:]]
        base.executemany("insert into tx values (?, ?, ?)", lines)
    base.close()
    (tmp_path / "tx.sql").write_text("select late, age, income from tx")
    address = f"sqlite:///{tmp_path / 'bank.db'}"
    said = cli("bank", "check", "--source", address, "--query", "tx.sql")
    assert said.code == 0, said.out + said.err
    assert reopened(bank).facts.query == str(tmp_path / "tx.sql")


# --- join ----------------------------------------------------------------------------------------


def test_join_sends_nothing_where_rows_do_not_fit(cli: Cli, home, bank, rows):
    cli("bank", "join").refused(2, "no rows")
    rows.write_text("late,age,income\n1,30,x\n0,40,1\n")
    said = cli("bank", "join", "--source", rows)
    assert said.code == 3
    assert "income: 1 value is no number" in said.out and "nothing was sent" in said.err
    assert Standings(home.folder / "standing").get("bank-a") is None
    assert reopened(bank).facts.source == ""


def test_join_waits_for_the_coordinator_and_then_takes_part(home, bank, rows, monkeypatch):
    from fedsys.clients.bank import agent, standing

    monkeypatch.setattr(standing, "PAUSE", 0.05)
    said, took_part = [], []
    monkeypatch.setattr(agent, "join", lambda home, told: took_part.append(home.facts))

    def tell(line):
        said.append(line)
        if "waits for the coordinator" in line:
            Banks(home.folder / "banks.json").approve("bank-a")

    assert joining.join(bank, str(rows), None, "always", tell) == 0
    assert [facts.approve for facts in took_part] == ["always"]
    assert said[0] == "bank-a: 60 rows fit the schema"
    assert bank.keys.public.spoken in said[1]
    assert Standings(home.folder / "standing").get("bank-a").approves == "always"


def test_join_waits_for_a_server_that_is_away(home, tmp_path, rows, monkeypatch):
    from fedsys.clients.bank import agent, standing
    from fedsys.clients.bank.enrolment import enrol

    monkeypatch.setattr(standing, "PAUSE", 0.05)
    monkeypatch.setattr(agent, "join", lambda home, told: None)
    with open_door(home):
        bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    Banks(home.folder / "banks.json").approve("bank-a")
    said, doors = [], []

    def tell(line):
        said.append(line)
        if line.startswith("waiting") and not doors:
            doors.append(open_door(home))
            doors[0].__enter__()

    try:
        assert joining.join(bank, str(rows), None, None, tell) == 0
    finally:
        for door in doors:
            door.__exit__(None, None, None)
    assert "Connection refused" in said[1]


def test_a_bank_that_was_removed_from_the_list_is_told(cli: Cli, home, bank, rows):
    (home.folder / "banks.json").write_text("{}")
    cli("bank", "check", "--source", rows)
    said = cli("bank", "join")
    assert said.code == 5 and "not known here" in said.err


def test_one_agent_at_a_time(cli: Cli, bank, rows):
    import subprocess
    import sys

    with alone(bank.folder, "the agent"):
        command = [sys.executable, "-c", "from fedsys.cli import main; main()", "bank", "join"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "runs already" in done.stderr


def test_join_takes_one_way_of_approving(cli: Cli, bank):
    cli("bank", "join", "--approve-jobs", "--ask").refused(2, "opposite")
    cli("bank", "join", "--query", "select 1").refused(2, "--source")


# --- the log -------------------------------------------------------------------------------------


def test_a_banks_log_is_shown_and_verified(cli: Cli, home, bank):
    assert "bank joined" in cli("bank", "audit").out
    both = cli("bank", "audit", "--verify", "--with", home.audit.path)
    assert both.code == 0 and "agrees" in both.out
    lines = bank.audit.path.read_bytes().splitlines(keepends=True)
    bank.audit.path.write_bytes(lines[1])
    assert json.loads(lines[1])["number"] == 2
    assert cli("bank", "audit", "--verify").code == 5


@pytest.mark.parametrize("words", [("--verify",), ()])
def test_a_log_with_a_fault_says_what_can_be_relied_on(cli: Cli, home, bank, words):
    for _ in range(3):
        bank.audit.record(Event.REQUEST_REFUSED, bank="bank-a", code="data")
    lines = bank.audit.path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"data", b"policy")
    bank.audit.path.write_bytes(b"".join(lines))
    said = cli("bank", "audit", *words)
    assert said.code == 5
    if words:
        assert "line 3: its hash" in said.out
        assert "before it, entries 1 to 2 chain" in said.out
        assert "after it, entries 4 to 5 (lines 4 to 5) chain" in said.out
        (log,) = cli("bank", "audit", *words, "--json").json["logs"]
        assert log["before"] == {"entries": 2, "confirmed": 0}
        assert log["after"] == [{"lines": [4, 5], "entries": [4, 5], "confirmed": 0}]
    else:
        assert len(said.out.splitlines()) == 2 and "what follows is not shown" in said.err


def test_logs_that_say_nothing_of_each_other_are_not_compared(cli: Cli, home, bank, tmp_path):
    at = ("bank", "audit", "--with")
    cli(*at, bank.audit.path).refused(3, "against the coordinator's")
    other = coordinator(tmp_path / "other", name="us-fraud")
    cli(*at, other.audit.path).refused(3, "is of federation us-fraud")
