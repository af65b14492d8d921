"""`fedsys federation run`, `watch`, `stop` and `resume`."""

import json
import signal
import subprocess
import threading
import time

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.jobs.folder import DONE, FAILED, PAUSED, RUNNING, find_job, submit
from fedsys.federation.jobs.request import Request
from tests.conftest import FEDSYS, PATIENCE, Cli
from tests.federation.commands.conftest import JOB, enrolled, stands
from tests.federation.doors import invited


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
             "seconds": 1.0, "banks": ["bank-a", "bank-b"], "missing": {"bank-c": "late"},
             **changes}  # fmt: skip
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
