"""What banks have to approve before a job runs, and who is waited for."""

import threading

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.enrolment.approvals import (
    await_approvals,
    await_statistics,
    let_themselves_be_asked,
    open_at,
    refused_at,
    statistics_request,
)
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.jobs.folder import DONE, submit
from fedsys.federation.jobs.request import Request
from fedsys.trust.events import Event
from fedsys.trust.jobs import sign_job
from fedsys.trust.verification import entries_of
from tests.conftest import Cli
from tests.federation.commands.conftest import banks, enrolled, stands


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
