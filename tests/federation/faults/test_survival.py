"""Rows 1 to 6, 20 and 21 of the fault matrix: what is killed, frozen, cut off or out of room.

Whatever happens, a job ends with the weights of one that nothing happened to, or says why it does
not go on, and goes on when it is told to.
"""

import os
import time

import numpy as np
import pytest

from fedsys.federation.jobs.folder import resume_job
from tests.federation.faults.federation import at_round, ended, lines, resumed, until, weights

BAD, GOOD = "bank-c", ["bank-a", "bank-b"]
FROZEN = float(os.environ.get("FAULTS_FROZEN_SECONDS", "5"))
"""`python -m benchmarks.faults` has 30, as the measurement of Flower had."""
LONG = {2: "slow 600"}
"""A bank that is killed or cut off amid its round."""


def kill_amid_round_two(federation, job):
    federation.await_work(BAD, 2, job)
    federation.plan(BAD, {})
    federation.banks[BAD].kill()
    assert job.status.round == 1


def test_a_bank_that_is_killed_is_missed_named_and_waited_for(federation, whole, observed):
    """Rows 1 and 2: with a quorum the others go on; without one the job pauses, and never hangs;
    the bank is back less than a minute after it was killed, and the job ends as if it had not."""
    federation.plan(BAD, LONG)
    strict = federation.ask(rounds=3, quorum=3, deadline=5.0)
    kill_amid_round_two(federation, strict)
    try:
        assert ended(strict) == "paused"
        status = strict.status
        assert (status.code, status.round) == (7, 1)
        assert "of 3 banks that are needed" in status.error
        assert BAD in status.error.partition("missing: ")[2]
        assert f"resume {strict.name}" in status.error
        paused = federation.audited("run paused")[-1]["details"]
        assert paused == {"run": status.job[:16], "round": 1, "code": "quorum"}
        observed(1, f"with quorum 3: paused, exit code 7: {status.error.partition(';')[0]}")
        others = federation.ask(rounds=3, quorum=2, grace=1.0)
        assert ended(others) == "done"
        assert [line["banks"] for line in lines(others)] == [GOOD] * 3
        assert [list(line["missing"]) for line in lines(others)] == [[BAD]] * 3
        observed(1, "with quorum 2: the two others aggregated, the missing one named")
        observed(1, "waited for a second a round, its grace, and no deadline")
    finally:
        begun = time.monotonic()
        federation.banks[BAD].start()
        until(federation.banks[BAD].is_ready, BAD)
        seconds = time.monotonic() - begun
    federation.await_trainers()
    assert resumed(strict) == "done", strict.status.error
    np.testing.assert_array_equal(weights(strict), whole)
    assert [line["round"] for line in lines(strict)] == [1, 2, 3]
    lost = [one["details"] for one in federation.audited("bank lost")]
    assert {"run": strict.status.job[:16], "round": 2, "bank": BAD} in lost
    observed(2, f"in again {seconds:.0f} s after it was started again; job resumed: same weights")


def test_a_coordinator_that_is_killed_resumes_even_from_the_checkpoint_before(
    federation, whole, observed
):
    """Rows 3 and 21: kill -9 of the server and all it started; its last checkpoint is damaged."""
    federation.plan(BAD, {3: "slow 8"})
    job = federation.ask(rounds=3, quorum=3)
    federation.await_work(BAD, 3)
    federation.plan(BAD, {})
    federation.server.kill()
    newest = sorted((job.folder / "checkpoints").glob("round-*.checkpoint"))[-1]
    assert newest.name == "round-00000002.checkpoint"
    newest.write_bytes(newest.read_bytes()[:-7])
    federation.server.start()
    assert ended(job) == "done", job.status.error
    until(federation.server.is_ready, "the server")
    np.testing.assert_array_equal(weights(job), whole)
    assert [line["round"] for line in lines(job)] == [1, 2, 3]
    assert "going on from the checkpoint before it" in federation.server.text()
    resumed = [one["details"] for one in federation.audited("run resumed")]
    assert {"run": job.status.job[:16], "round": 1} in resumed
    observed(
        3, "resumed from its newest whole checkpoint; weights bit-equal to an uninterrupted run"
    )
    observed(21, "checksum: told, went on from the checkpoint before; same weights")


def test_silence_within_a_deadline_costs_nothing(federation, whole, observed):
    """Row 5: a line that is cut and a bank that is frozen, then a server that is; all go on."""
    federation.plan(BAD, {2: "slow 2", 3: "slow 2"})
    federation.plan(GOOD[0], {2: "slow 2"})
    job = federation.ask(rounds=3, quorum=3)
    line, frozen, server = federation.proxies[BAD], federation.banks[GOOD[0]], federation.server
    federation.await_work(BAD, 2)
    federation.await_work(GOOD[0], 2)
    line.cut()
    frozen.freeze()
    time.sleep(FROZEN)
    line.mend()
    frozen.thaw()
    federation.await_work(BAD, 3)
    server.freeze()
    time.sleep(FROZEN)
    server.thaw()
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    federation.plan(GOOD[0], {})
    np.testing.assert_array_equal(weights(job), whole)
    for what in ("line", "bank", "server"):
        observed(5, f"{what} silent for {FROZEN:.0f} s: waited for, same weights")


def test_a_job_that_no_bank_answers_fails_and_never_says_it_is_done(
    federation, whole, observed, cli
):
    """Row 6."""
    for process in federation.banks.values():
        process.freeze()
    try:
        job = federation.ask(rounds=3, quorum=3, deadline=4.0)
        assert ended(job) == "failed"
        assert (job.status.code, job.status.round) == (7, 0)
        assert all(name in job.status.error for name in federation.names)
        assert not job.weights.exists()
        run = job.status.job[:16]
        abandoned = [
            one["details"]
            for one in federation.audited("round abandoned")
            if one["details"]["run"] == run
        ]
        assert abandoned == [{"run": run, "round": 1, "admitted": 0, "needed": 3}] * 3
        watched = cli("federation", "watch", job.name, "--home", federation.home.folder)
        assert watched.code == 7, watched.err
    finally:
        for process in federation.banks.values():
            process.thaw()
    assert resumed(job) == "done", job.status.error
    np.testing.assert_array_equal(weights(job), whole)
    observed(6, "round abandoned 3 times, then the job failed with exit code 7; resumed later")


def test_a_disk_without_room_pauses_a_job_that_goes_on_when_there_is_room(
    federation, whole, observed
):
    """Row 20."""
    federation.plan(BAD, {2: "slow 3"})
    job = federation.ask(rounds=3, quorum=3)
    federation.await_work(BAD, 2)
    federation.limit_files(1000)
    try:
        assert ended(job) == "paused"
        assert job.status.round == 1
        assert "make room there" in job.status.error
    finally:
        federation.limit_files(None)
        federation.plan(BAD, {})
    at_round(job, 1)
    resume_job(job)
    assert ended(job) == "done", job.status.error
    np.testing.assert_array_equal(weights(job), whole)
    observed(20, "paused, its last checkpoint kept; went on when there was room: same weights")


def test_a_full_disk_of_flowers_own_state_pauses_a_job_too(federation, whole, observed):
    """Row 20, on a disk that is really full. Flower's server answers on, and says that the banks
    are away: it cannot write down that they are there."""
    if federation.disk is None:
        pytest.skip("this machine lets nobody mount a small disk")
    federation.plan(BAD, {2: "slow 3"})
    job = federation.ask(rounds=3, quorum=3)
    federation.await_work(BAD, 2)
    federation.disk.fill()
    try:
        assert ended(job) == "paused"
        assert job.status.code == 9
        assert job.status.round in (1, 2), "an answer may be there before the disk is full"
        assert job.status.error.endswith("no room for the server's state: make room there")
        resume_job(job)
        assert ended(job) == "paused", "there is still none"
    finally:
        federation.disk.clear()
        federation.plan(BAD, {})
    resume_job(job)
    assert ended(job) == "done", job.status.error
    np.testing.assert_array_equal(weights(job), whole)
    assert [line["round"] for line in lines(job)] == [1, 2, 3]
    observed(
        20, "Flower's own disk full: paused, said so; went on when there was room: same weights"
    )
