"""`fedsys federation`: what a coordinator types, and what is wrong with it in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.clients.bank.enrolment import enrol
from fedsys.federation.banks import Banks
from fedsys.federation.commands.status import overview
from fedsys.federation.enrolment.approvals import (
    await_approvals,
    await_statistics,
    let_themselves_be_asked,
    open_at,
    refused_at,
    statistics_request,
)
from fedsys.federation.enrolment.desk import Desk
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, FAILED, PAUSED, RUNNING, find_job, submit
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.federation.serving import alone, holder
from fedsys.flower.processes.superlink import free_port
from fedsys.tables import write_schema
from fedsys.trust.events import Event
from fedsys.trust.jobs import sign_job
from fedsys.trust.signing import sign
from fedsys.trust.tokens import read_token
from fedsys.trust.verification import entries_of
from tests.conftest import PATIENCE, Cli
from tests.federation.doors import SCHEMA, invited, open_door

FEDSYS = (sys.executable, "-c", "from fedsys.cli import main; main()")
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


# --- create and invite ---------------------------------------------------------------------------


def test_create_says_where_it_lies_and_what_comes_next(cli: Cli, schema):
    said = cli("federation", "create", "eu-credit", "--host", "fl.example.org", "--schema", schema,
               "--listen", "0.0.0.0", "--min-banks", 3)  # fmt: skip
    assert said.code == 0
    assert "fl.example.org:8443" in said.out and "fedsys federation invite" in said.out
    home = Home.open(places.find(places.FEDERATION))
    assert (home.facts.banks, home.facts.listen) == (3, "0.0.0.0")
    assert home.folder.stat().st_mode & 0o077 == 0


def test_create_warns_where_nobody_else_can_connect(cli: Cli, schema):
    said = cli("federation", "create", "a", "--host", "fl.example.org", "--schema", schema)
    assert "--listen 0.0.0.0" in said.err
    assert not cli("federation", "create", "b", "--host", "localhost", "--schema", schema).err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("Eu Credit", "--host", "h"), "name"),
        (("a", "--host", "0.0.0.0"), "host"),
        (("a", "--host", "h", "--listen", "elsewhere"), "--listen"),
        (("a", "--host", "h", "--port", "0"), "--port"),
        (("a",), "--host"),
    ],
)
def test_create_refuses_what_cannot_be(cli: Cli, schema, arguments, part):
    cli("federation", "create", *arguments, "--schema", schema).refused(2, part)
    assert places.all_of(places.FEDERATION) == {}


def test_create_overwrites_nothing_and_needs_a_schema(cli: Cli, created, schema):
    again = ("federation", "create", "eu-credit", "--host", "h", "--schema")
    cli(*again, schema).refused(2, "eu-credit", "already")
    cli("federation", "create", "b", "--host", "h", "--schema", "no.toml").refused(2, "no.toml")


def test_invite_prints_the_token_alone(cli: Cli, created):
    said = cli("federation", "invite", "bank-a")
    token = read_token(said.out)
    assert (token.bank, token.addresses) == ("bank-a", (created.facts.address,))
    assert "channel that you trust" in said.err
    assert token.code.hex() not in (created.folder / "invitations.json").read_text()
    as_json = cli("federation", "invite", "bank-a", "--days", "0.5", "--json").json
    assert 0 < as_json["expires"] - time.time() < 86400
    events = [entry.event for entry in entries_of(created.audit.path)]
    assert events == [Event.OPENED, Event.INVITED, Event.INVITED]


def test_invite_refuses_a_name_or_time_that_is_none(cli: Cli, created):
    cli("federation", "invite", "Bank A").refused(2, "bank")
    cli("federation", "invite", "bank-a", "--days", "0").refused(2, "days")
    assert not (created.folder / "invitations.json").exists()


# --- which federation ----------------------------------------------------------------------------


def test_without_a_federation_each_command_says_how_to_make_one(cli: Cli, job_file):
    for words in (("status",), ("serve",), ("invite", "a"), ("approve", "a"), ("run", job_file),
                  ("watch",), ("resume",), ("audit", "--verify"), ("renew",)):  # fmt: skip
        cli("federation", *words).refused(2, "fedsys federation create")


def test_of_two_federations_one_is_named(cli: Cli, created, schema, tmp_path):
    cli("federation", "create", "other", "--host", "localhost", "--schema", schema)
    cli("federation", "status").refused(2, "eu-credit, other", "--federation")
    assert cli("federation", "status", "--federation", "other").code == 0
    cli("federation", "status", "--federation", "othr").refused(2, "did you mean 'other'")
    at = ("federation", "status", "--json", "--home")
    assert cli(*at, created.folder).json["federation"] == "eu-credit"
    nothing = cli(*at, tmp_path / "nothing")
    assert nothing.code == nothing.json["code"] == 2 and "nothing" in nothing.json["error"]


# --- approve and status --------------------------------------------------------------------------


def test_approve_compares_what_was_read(cli: Cli, created, tmp_path, monkeypatch):
    spoken = enrolled(created, tmp_path, "bank-a")["bank-a"].keys.public.spoken
    one = ("federation", "approve", "bank-a")
    cli(*one, "--fingerprint", "AAAA-BBBB").refused(5, "bank-a", "somebody else")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    cli(*one).refused(2, "compare its fingerprint first")
    assert not banks(created).get("bank-a").approved
    assert cli(*one, "--fingerprint", spoken.lower().replace("-", " ")).code == 0
    assert banks(created).get("bank-a").approved
    assert cli(*one, "--no").code == 0
    assert not banks(created).get("bank-a").approved
    events = [entry.event for entry in entries_of(created.audit.path)]
    assert events[-2:] == [Event.APPROVED, Event.REVOKED]


def test_approve_takes_all_or_none(cli: Cli, created, tmp_path):
    enrolled(created, tmp_path, "bank-a", "bank-b")
    cli("federation", "approve", "bank-a", "bank-x", "--yes").refused(2, "bank-x")
    assert banks(created).approved() == []
    both = ("federation", "approve", "bank-a", "bank-b")
    cli(*both, "--fingerprint", "X").refused(2, "one by one")
    assert cli(*both, "--yes", "--json").json[1]["state"] == "approved"
    assert [bank.name for bank in banks(created).approved()] == ["bank-a", "bank-b"]


def test_status_says_how_each_bank_stands(cli: Cli, created, tmp_path):
    found = enrolled(created, tmp_path, "bank-a", "bank-b")
    invited(created, "bank-c")
    invited(created, "bank-d", days=1.0, now=time.time() - 90000)
    banks(created).approve("bank-a")
    stands(created, found["bank-a"])
    said = cli("federation", "status")
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("  ")}
    assert "approved" in lines["bank-a"] and "seen" in lines["bank-a"]
    assert "enrolled" in lines["bank-b"] and "fedsys federation approve bank-b" in lines["bank-b"]
    assert "invited" in lines["bank-c"]
    assert "expired" in lines["bank-d"] and "fedsys federation invite bank-d" in lines["bank-d"]
    assert "not served: fedsys federation serve" in said.out
    table = cli("federation", "status", "--json").json
    assert [bank["state"] for bank in table["banks"]] == [
        "approved", "enrolled", "invited", "expired"
    ]  # fmt: skip
    assert table["server"] is None


# --- serving -------------------------------------------------------------------------------------


def test_one_server_at_a_time(cli: Cli, created):
    with alone(created.folder, "the server"):
        assert holder(created.folder) == os.getpid()
        command = [*FEDSYS, "federation", "serve"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"runs already (process {os.getpid()})" in done.stderr
    assert holder(created.folder) is None


def test_an_expired_certificate_is_not_served_and_is_renewed(cli: Cli, created):
    import shutil
    from datetime import UTC, datetime, timedelta

    from fedsys.trust.identity import issue_server, read_authority

    shutil.rmtree(created.folder / "server")
    then = datetime.now(UTC) - timedelta(days=30)
    authority = read_authority(created.folder / "authority")
    issue_server(created.folder / "server", authority, ["127.0.0.1"], now=then, days=10)
    cli("federation", "serve").refused(5, "expired", "fedsys federation renew")
    assert cli("federation", "renew").code == 0
    assert overview(created).warnings == ()
    assert [e.event for e in entries_of(created.audit.path)][-1] is Event.CERTIFICATE


# --- jobs ----------------------------------------------------------------------------------------


def test_a_job_that_cannot_be_is_refused_before_anything_is_sent(cli: Cli, created, job_file):
    run = ("federation", "run", job_file)
    cli("federation", "run", "no.toml").refused(2, "no.toml")
    cli(*run).refused(7, "0 banks are approved", "invite more")
    job_file.write_text(JOB.replace("rounds", "ruonds"))
    cli(*run).refused(2, "did you mean 'rounds'")
    job_file.write_text(JOB.replace('name = "first"', ""))
    cli(*run).refused(2, "needs a name")
    job_file.write_text(JOB.replace('"logistic"', '"lstm"'))
    cli(*run).refused(2, "lstm", "mlp")
    job_file.write_text(JOB + "[strategy]\nname = 'fedsgdd'\n")
    cli(*run).refused(2, "did you mean 'fedsgd'")
    assert not (created.folder / "jobs").exists()


def test_run_shows_what_banks_will_see_and_queues(cli: Cli, created, job_file, tmp_path):
    found = enrolled(created, tmp_path, "bank-a", "bank-b")
    job_file.write_text(JOB + "quorum_ = 1\n")
    job_file.write_text("quorum = 3\n" + JOB)
    cli("federation", "approve", "bank-a", "--yes")
    cli("federation", "run", job_file).refused(7, "fedsys federation approve bank-b")
    cli("federation", "approve", "bank-b", "--yes")
    cli("federation", "run", job_file).refused(7, "a quorum of 3")
    job_file.write_text("quorum = 1\n" + JOB)
    cli("federation", "run", job_file).refused(6, "banks would refuse", "1 updates")
    job_file.write_text(JOB)
    stands(created, found["bank-a"], version="9.9")
    dry = cli("federation", "run", job_file, "--dry-run")
    assert dry.code == 0, dry.err
    assert "What leaves the bank" in dry.out and "nothing was sent" in dry.out
    assert "bank-a: runs fedsys 9.9" in dry.err and "bank-a: sees the job" in dry.err
    assert "I0000" not in dry.err, "native noise"
    assert not (created.folder / "jobs").exists()
    said = cli("federation", "run", job_file, "--json")
    assert said.json == {"name": "first", "status": "queued", "served": False}
    assert "fedsys federation serve" in said.err
    cli("federation", "run", job_file).refused(2, "asked for before", "resume first")


def test_a_dry_run_says_all_that_can_be_said_before_banks_are_there(
    cli: Cli, created, job_file, tmp_path
):
    enrolled(created, tmp_path, "bank-a")
    invited(created, "bank-b")
    dry = ("federation", "run", job_file, "--dry-run")
    said = cli(*dry)
    assert said.code == 7
    for part in ("What leaves the bank", "SHA-256      not settled", "nothing was sent",
                 "bank-a  enrolled  → fedsys federation approve bank-a",
                 "bank-b  invited"):  # fmt: skip
        assert part in said.out
    assert said.err.splitlines()[-1].startswith("fedsys: 0 banks are approved")
    table = cli(*dry, "--json").json
    assert (table["job"], table["settled"], table["sent"]) == (None, False, False)
    assert table["banks"] == [{"bank": "bank-a", "state": "enrolled"},
                              {"bank": "bank-b", "state": "invited"}]  # fmt: skip
    assert [problem["code"] for problem in table["problems"]] == [7]
    job_file.write_text("quorum = 1\n" + JOB)
    assert [one["code"] for one in cli(*dry, "--json").json["problems"]] == [7, 6]
    assert not (created.folder / "jobs").exists()


def a_job(home, name="first", **said):
    job = submit(home, Request(name=name, rounds=3))
    job.say(**said)
    return job


def line(round, **changes):
    table = {"round": round, "admitted": 2, "refused": 1, "moved": True, "train_loss": 0.5,
             "seconds": 1.0, "missing": {"bank-c": "late"}, **changes}  # fmt: skip
    return json.dumps(table) + "\n"


def test_watch_shows_rounds_to_the_end(cli: Cli, created):
    cli("federation", "watch").refused(2, "no job was asked for")
    job = a_job(created, status="running")

    def work():
        with open(job.metrics, "a") as file:
            for round in (1, 2, 3):
                time.sleep(0.2)
                file.write(line(round))
                file.flush()
        job.say(status=DONE, round=3)

    thread = threading.Thread(target=work)
    thread.start()
    said = cli("federation", "watch")
    thread.join()
    assert said.code == 0
    assert [one.split("  ")[0] for one in said.out.splitlines()] == [
        "round 1/3", "round 2/3", "round 3/3", "first: done"
    ]  # fmt: skip
    assert "2 of 3 banks" in said.out and "missing bank-c (late)" in said.out
    rounds = cli("federation", "watch", "first", "--json").out.splitlines()
    assert [json.loads(one).get("round") for one in rounds] == [1, 2, 3, 3]


def test_watch_says_for_whom_a_job_waits(cli: Cli, offered):
    home, found, job, _ = offered
    for bank in found.values():
        stands(home, bank)
    folder = a_job(home, status="running", job=job.digest)

    def work():
        time.sleep(0.5)
        stands(home, found["bank-a"], jobs=[job.digest])
        time.sleep(0.8)
        folder.say(status=PAUSED, code=7)

    thread = threading.Thread(target=work)
    thread.start()
    said = cli("federation", "watch")
    thread.join()
    assert said.code == 7
    first, *_, last = [line for line in said.err.splitlines() if "waits" in line]
    assert first == f"first: waits for approval of job {job.id} at bank-a, bank-b"
    assert last == f"first: waits for approval of job {job.id} at bank-b"


def test_watch_ends_with_the_code_of_what_ended_the_job(cli: Cli, created):
    a_job(created, status=PAUSED, error="1 of 2 banks", code=7)
    said = cli("federation", "watch")
    assert said.code == 7 and "1 of 2 banks" in said.out
    cli("federation", "watch", "frist").refused(2, "did you mean 'first'")


def test_ctrl_c_ends_the_watching_alone(created):
    job = a_job(created, status="running")
    job.metrics.write_text(line(1))
    command = [*FEDSYS, "federation", "watch"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert "round 1/3" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 0
    assert "goes on" in err
    assert find_job(created, "first").status.status == "running"


def test_resume_goes_on_with_what_stopped(cli: Cli, created):
    cli("federation", "resume").refused(2, "no job is paused")
    job = a_job(created, status=FAILED, round=2, error="gone", code=4)
    assert "job first is failed: gone" in cli("doctor").out
    said = cli("federation", "resume")
    assert said.code == 0 and "from round 3" in said.out
    assert (job.status.status, job.status.error) == ("queued", "")
    cli("federation", "resume", "first").refused(2, "nothing to resume")


def test_stop_ends_what_waits_or_runs_and_resume_goes_on_with_it(cli: Cli, created):
    cli("federation", "stop").refused(2, "no job was asked for yet")
    job = a_job(created, status=RUNNING, round=2)
    said = cli("federation", "stop", "--json")
    assert json.loads(said.out) == {"name": "first", "status": "paused", "round": 2}
    cli("federation", "stop", "first").refused(2, "is paused: there is nothing to stop")
    assert cli("federation", "watch", "first").code == 130
    said = cli("federation", "resume")
    assert said.code == 0 and "from round 3" in said.out
    said = cli("federation", "stop", "first")
    assert "first: stopped after round 2" in said.out
    assert (job.status.status, job.status.code) == ("paused", 130)
    cli("federation", "stop", "frist").refused(2, "did you mean 'first'")


# --- approvals -----------------------------------------------------------------------------------


@pytest.fixture
def offered(created, tmp_path):
    """(home, banks, job, the list of approved banks) of a job that two banks are asked for."""
    found = enrolled(created, tmp_path, "bank-a", "bank-b")
    for name in found:
        banks(created).approve(name)
    job = foresee(created, Request(name="first", model="logistic", rounds=2)).job
    return created, found, job, banks(created).approved()


def test_a_job_waits_until_each_bank_that_asks_has_approved(offered):
    home, found, job, approved = offered
    assert open_at(home, approved, job.digest) == []  # they never said; they answer for themselves
    stands(home, found["bank-a"])
    stands(home, found["bank-b"], "always")
    assert open_at(home, approved, job.digest) == ["bank-a"]
    said = []
    timer = threading.Timer(0.7, lambda: stands(home, found["bank-a"], jobs=[job.digest]))
    timer.start()
    await_approvals(home, job, approved, said.append)
    timer.join()
    assert said == [f"job {job.id}: waits for bank-a: fedsys bank jobs approve {job.id}"]


def test_a_job_does_not_wait_for_ever(offered):
    from fedsys.errors import QuorumError

    home, found, job, approved = offered
    stands(home, found["bank-a"])
    with pytest.raises(QuorumError, match=r"bank-a.*resume first"):
        await_approvals(home, job, approved, lambda line: None, seconds=0)


def test_a_refusal_out_of_whose_reach_the_quorum_is_ends_the_waiting_at_once(offered):
    from fedsys.errors import QuorumError

    home, found, job, approved = offered
    stands(home, found["bank-a"], refused=[job.digest])
    stands(home, found["bank-b"])
    assert refused_at(home, approved, job.digest) == ["bank-a"]
    assert open_at(home, approved, job.digest) == ["bank-b"]
    with pytest.raises(QuorumError, match=r"refused by bank-a, and 2 of 2 .* resume first"):
        await_approvals(home, job, approved, lambda line: None)


def test_the_others_go_on_without_a_bank_that_refused(offered, tmp_path):
    home, found, job, _ = offered
    found |= enrolled(home, tmp_path, "bank-c")
    banks(home).approve("bank-c")
    stands(home, found["bank-a"], "always")
    stands(home, found["bank-b"], jobs=[job.digest])
    stands(home, found["bank-c"], "always", refused=[job.digest])
    said = []
    await_approvals(home, job, banks(home).approved(), said.append)
    assert said == [f"job {job.id}: refused by bank-c; going on without"]


def test_status_says_at_once_who_refused(cli: Cli, offered):
    home, found, job, _ = offered
    folder = submit(home, Request(name="first"))
    (folder.folder / "job.json").write_bytes(sign_job(home.keys.signing, job))
    folder.say(status="running", job=job.digest)
    stands(home, found["bank-a"], refused=[job.digest, "f" * 64])
    stands(home, found["bank-b"])
    said = cli("federation", "status")
    assert f"refused by bank-a; waits for approval of job {job.id} at bank-b" in said.out
    (view,) = cli("federation", "status", "--json").json["jobs"]
    assert (view["refused"], view["waits"]) == (["bank-a"], ["bank-b"])
    stands(home, found["bank-a"], refused=[job.digest, "f" * 64])
    declined = [entry.details for entry in entries_of(home.audit.path)
                if entry.event is Event.JOB_DECLINED]  # fmt: skip
    assert declined == [{"bank": "bank-a", "job": job.digest}], "once, and of jobs that there are"


def test_statistics_are_waited_for_before_the_first_job(cli: Cli, offered):
    home, found, _, approved = offered
    asked = statistics_request(home)
    stands(home, found["bank-a"], jobs=[asked.digest])
    stands(home, found["bank-b"])
    submit(home, Request(name="first")).say(status="running")
    waits = f"waits for approval of statistics {asked.id} at bank-b"
    assert waits in cli("federation", "status").out
    assert [one.name for one in let_themselves_be_asked(home, approved)] == ["bank-a"]
    said = []
    timer = threading.Timer(0.7, lambda: stands(home, found["bank-b"], jobs=[asked.digest]))
    timer.start()
    await_statistics(home, approved, 2, said.append)
    timer.join()
    line = f"statistics {asked.id}: waits for bank-b: fedsys bank jobs approve {asked.id}"
    assert said == [line]
    assert let_themselves_be_asked(home, approved) == approved


def test_a_bank_hears_of_jobs_only_while_it_is_approved(offered):
    home, found, job, _ = offered
    folder = submit(home, Request(name="first"))
    signed = sign_job(home.keys.signing, job)
    (folder.folder / "job.json").write_bytes(signed)
    assert stands(home, found["bank-a"])["jobs"] == [signed.decode()]
    banks(home).approve("bank-a", False)
    assert stands(home, found["bank-a"])["jobs"] == []
    folder.say(status=DONE)
    assert stands(home, found["bank-b"])["jobs"] == []
    assert Standings(home.folder / "standing").get("bank-a") is not None


# --- the log -------------------------------------------------------------------------------------


def test_audit_shows_and_verifies_the_log(cli: Cli, created, tmp_path):
    bank = enrolled(created, tmp_path, "bank-a")["bank-a"]
    shown = cli("federation", "audit").out
    assert "bank joined" in shown and bank.keys.public.spoken in shown
    verified = cli("federation", "audit", "--verify", "--with", bank.audit.path, "--json")
    assert verified.json["whole"] and verified.json["findings"] == []
    text = created.audit.path.read_text().replace("bank-a", "bank-b")
    created.audit.path.write_text(text)
    broken = cli("federation", "audit", "--verify")
    assert broken.code == 5
    assert broken.out.startswith("✘") and "its hash" in broken.out


def test_audit_against_what_is_no_log(cli: Cli, created, tmp_path):
    (tmp_path / "no.jsonl").write_text("hello\n")
    cli("federation", "audit", "--with", tmp_path / "no.jsonl").refused(3, "no.jsonl")
    cli("federation", "audit", "--with", tmp_path / "none").refused(9, "none")
