"""`fedsys bank`: what the owner of rows types, and what is wrong with it in one line."""

import json
import sqlite3
import stat

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.clients.bank import joining
from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.standing import Telling
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.jobs.folder import submit
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.federation.serving import alone
from fedsys.trust.events import Event
from fedsys.trust.jobs import sign_job
from fedsys.trust.verification import entries_of
from tests.conftest import Cli, until
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
    Banks(home.folder / "banks.json").add("bank-b", _other_keys(home))
    Banks(home.folder / "banks.json").approve("bank-b")

    def offered(name):
        request = Request(name=name, model="logistic", rounds=2)
        job = foresee(home, request).job
        (submit(home, request).folder / "job.json").write_bytes(sign_job(home.keys.signing, job))
        return job

    return offered


def _other_keys(home):
    from fedsys.trust.keys import make_keys

    return make_keys(home.folder / "others").public


def reopened(bank):
    return BankHome.open(bank.folder)


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


# --- jobs ----------------------------------------------------------------------------------------


def test_a_job_is_seen_then_approved_and_the_coordinator_knows(cli: Cli, home, bank, offer):
    assert "no job has come yet" in cli("bank", "jobs").out
    job = offer("first")
    shown = cli("bank", "jobs")
    assert "What leaves the bank" in shown.out
    assert f"fedsys bank jobs approve {job.id}" in shown.out
    asked, listed = cli("bank", "jobs", "--json").json
    assert (asked["kind"], listed["kind"], listed["approved"]) == ("statistics", "job", False)
    cli("bank", "jobs", "approve", "ffff").refused(2, "ffff", "fedsys bank jobs")
    said = cli("bank", "jobs", "approve", job.id[:6], "--json")
    assert said.json == {"job": job.digest, "approved": True, "state": "approved", "told": True}
    assert Standings(home.folder / "standing").get("bank-a").approved(job.digest)
    assert "approved here" in cli("bank", "jobs").out
    events = [entry.event for entry in entries_of(bank.audit.path)]
    assert events.count(Event.JOB_RECEIVED) == events.count(Event.JOB_APPROVED) == 1


def test_what_changed_since_the_last_approved_job_is_shown(cli: Cli, bank, offer):
    first = offer("first")
    cli("bank", "jobs", "approve", first.id)
    offer("second")
    shown = cli("bank", "jobs").out
    assert f"What changed since {first.id} first" in shown
    assert "terms.name: 'first' -> 'second'" in shown


def test_a_job_is_approved_while_the_server_is_away(cli: Cli, home, tmp_path, monkeypatch):
    with open_door(home):
        cli("bank", "enrol", invited(home, "bank-a").text())
    bank = BankHome.open(places.find(places.BANK))
    banks = Banks(home.folder / "banks.json")
    banks.approve("bank-a")
    banks.add("bank-b", _other_keys(home))
    banks.approve("bank-b")
    job = foresee(home, Request(name="first", model="logistic", rounds=2)).job
    bank.keep_job(job.digest, sign_job(home.keys.signing, job))
    said = cli("bank", "jobs", "approve", job.id)
    assert said.code == 0 and "is told when it is there" in said.err
    with open_door(home), Telling(bank, lambda line: None):  # as the agent does
        until(lambda: Standings(home.folder / "standing").get("bank-a") is not None)
    assert Standings(home.folder / "standing").get("bank-a").approved(job.digest)


def test_the_agent_tells_of_what_waits(home, bank, offer):
    job, asked = offer("first"), bank.statistics
    said = []
    with Telling(bank, said.append):
        until(lambda: len(said) == 2)
    assert said == [
        f"statistics {asked.id} of its rows: wait here for: fedsys bank jobs approve {asked.id}",
        f"job {job.id} 'first': waits here for: fedsys bank jobs approve {job.id}",
    ]
    bank.approve(asked.digest)
    bank.refuse(job.digest)
    with Telling(reopened(bank), said.append):
        until(lambda: Standings(home.folder / "standing").get("bank-a").refused != ())
    assert len(said) == 2, "who has answered is not asked again"


def test_a_job_of_another_coordinator_is_not_kept(cli: Cli, home, bank, offer, tmp_path):
    job = offer("first")
    forged = sign_job(bank.keys.signing, job)
    (home.folder / "jobs" / "first" / "job.json").write_bytes(forged)
    cli("bank", "jobs").refused(5, "job", "not known here")
    assert reopened(bank).jobs() == []


def test_a_job_is_refused_and_the_coordinator_knows_but_not_why(cli: Cli, home, bank, offer):
    job = offer("first")
    no = ("bank", "jobs", "refuse", job.id)
    said = cli(*no, "--reason", "the customer Meier objects", "--json")
    assert said.json == {"job": job.digest, "approved": False, "state": "refused", "told": True}
    stands = Standings(home.folder / "standing").get("bank-a")
    assert stands.refused == (job.digest,) and not stands.approved(job.digest)
    assert "refused here: the customer Meier objects" in cli("bank", "jobs").out
    for path in [*home.folder.rglob("*"), bank.audit.path]:
        assert not path.is_file() or b"Meier" not in path.read_bytes()
    logs = [entries_of(side.audit.path) for side in (home, bank)]
    for entries in logs:
        declined = [entry for entry in entries if entry.event is Event.JOB_DECLINED]
        assert [entry.details for entry in declined] == [{"bank": "bank-a", "job": job.digest}]


def test_a_refused_job_is_approved_later(cli: Cli, home, bank, offer):
    job = offer("first")
    assert cli("bank", "jobs", "refuse", job.id).code == 0
    assert cli("bank", "jobs", "approve", job.id).code == 0
    assert reopened(bank).approved(job.digest)
    assert Standings(home.folder / "standing").get("bank-a").refused == ()
    events = [entry.event for entry in entries_of(home.audit.path)]
    assert events.index(Event.JOB_DECLINED) < events.index(Event.JOB_AGREED)
    assert cli("bank", "jobs", "refuse", job.id).code == 0
    assert not reopened(bank).approved(job.digest)


def test_one_job_is_refused_by_a_bank_that_approves_all(cli: Cli, bank, offer):
    from fedsys.clients.bank.enrolment import keep

    always = keep(bank, approve="always")
    first, second = offer("first"), offer("second")
    assert cli("bank", "jobs", "refuse", "first").code == 0  # by its name
    assert (always.approved(first.digest), always.approved(second.digest)) == (False, True)


def test_what_cannot_be_refused_is_told(cli: Cli, bank, offer):
    offer("first")
    no = ("bank", "jobs", "refuse")
    cli(*no, "ffff").refused(2, "has not come here")
    cli(*no, "first", "--reason", "a\nb").refused(2, "--reason")
    cli(*no).refused(2, "ID")


def test_a_refusal_holds_while_the_server_is_away_or_knows_us_no_more(
    cli: Cli, home, tmp_path, monkeypatch
):
    with open_door(home):
        cli("bank", "enrol", invited(home, "bank-a").text())
    bank = BankHome.open(places.find(places.BANK))
    said = cli("bank", "jobs", "refuse", bank.statistics.id)
    assert said.code == 0 and "is told when it is there" in said.err
    assert bank.refused(bank.statistics.digest)
    (home.folder / "banks.json").write_text("{}")
    with open_door(home):
        assert cli("bank", "jobs", "refuse", bank.statistics.id, "--reason", "no").code == 0
    assert bank.reason(bank.statistics.digest) == "no"


def test_the_statistics_are_read_and_approved_like_a_job(cli: Cli, home, bank):
    asked = bank.statistics
    shown = cli("bank", "jobs").out
    assert "how many have a value, their mean and variance" in shown
    assert f"fedsys bank jobs approve {asked.id}" in shown
    assert cli("bank", "jobs", "approve", "statistics").code == 0
    shown = cli("bank", "jobs").out
    assert f"{asked.id} statistics: approved here" in shown and "variance" not in shown
    assert "variance" in cli("bank", "jobs", "show", asked.id).out
    assert Standings(home.folder / "standing").get("bank-a").approved(asked.digest)
    events = [entry.event for entry in entries_of(home.audit.path)]
    assert events.count(Event.STATISTICS_APPROVED) == 1


def test_what_was_answered_is_a_line_and_shown_when_asked(cli: Cli, bank, offer):
    job = offer("first")
    cli("bank", "jobs", "approve", job.id)
    assert "What leaves the bank, each round" not in cli("bank", "jobs").out
    shown = cli("bank", "jobs", "show", job.id)
    assert "What leaves the bank, each round" in shown.out and "approved here" in shown.out
    assert cli("bank", "jobs", "show", "first", "--json").json["state"] == "approved"
    cli("bank", "jobs", "show", "frist").refused(2, "has not come here")


def test_a_mistake_is_json_too_where_that_was_asked_for(cli: Cli, bank):
    for words, code in ((("bank", "jobs", "approve", "ffff"), 2), (("bank", "join"), 2),
                        (("bank", "check", "--source", "none.csv"), 3),
                        (("bank", "check", "--sorce", "x"), 2)):  # fmt: skip
        said = cli(*words, "--json")
        assert said.code == code
        (line,) = said.out.splitlines()
        assert json.loads(line)["code"] == code
        assert json.loads(line)["error"] in said.err


# --- a model -------------------------------------------------------------------------------------


def test_samples_are_rows_as_a_model_reads_them(cli: Cli, home, bank, rows, tmp_path):
    from fedsys.edge.sources import read_samples
    from fedsys.tables import Preparation, prepare, summarise
    from fedsys.tables.recipe import recipe

    cli("bank", "check", "--source", rows)
    source = reopened(bank).source()
    made = Preparation.derive(home.schema, summarise(source, home.schema))
    beside = tmp_path / "first.json"
    beside.write_text(json.dumps({"model": "first.keras", **recipe(home.schema, made)}))
    said = cli("bank", "samples", beside, "--rows", 20, "--json")
    assert said.json == {"file": "samples.npz", "rows": 20, "of": 60}
    found, whole = read_samples(tmp_path / "samples.npz"), prepare(source, home.schema, made)
    np.testing.assert_array_equal(found.inputs[[0, -1]], whole.inputs[[0, -1]])
    np.testing.assert_array_equal(found.labels[[0, -1]], whole.labels[[0, -1]])
    assert stat.S_IMODE((tmp_path / "samples.npz").stat().st_mode) == 0o600
    cli("bank", "samples", beside).refused(2, "samples.npz", "already")


def test_samples_need_what_lies_beside_a_model_of_this_federation(
    cli: Cli, home, bank, rows, tmp_path
):
    from dataclasses import replace

    from fedsys.tables import Preparation, summarise
    from fedsys.tables.recipe import recipe

    cli("bank", "check", "--source", rows)
    cli("bank", "samples", "none.json").refused(3, "none.json", "No such file")
    cli("bank", "samples", rows).refused(3, "rows.csv", "fedsys federation model")
    stricter = replace(home.schema, minimum=11)
    made = Preparation.derive(stricter, summarise(reopened(bank).source(), stricter))
    table = recipe(stricter, made)
    (tmp_path / "other.json").write_text(json.dumps(table))
    cli("bank", "samples", "other.json").refused(3, "another schema")
    table["preparation"]["scalings"]["age"]["scale"] = 7.0
    (tmp_path / "changed.json").write_text(json.dumps(table))
    cli("bank", "samples", "changed.json").refused(3, "was changed")
    assert not (tmp_path / "samples.npz").exists()


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
