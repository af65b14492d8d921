"""Agents that are killed at random, again and again; `benchmarks.soak` is the long one."""

from benchmarks.soak import soak
from tests.flower.deployed import alive


def test_agents_killed_at_random_lose_nothing_and_leave_nothing(federation, whole_job):
    found = soak(federation, whole_job, pause=1.0, rounds=whole_job.request.rounds)
    assert found.kills >= 2
    assert found.same, "the weights are those of a run in which nobody was killed"
    assert not any(alive(pid) for pid in found.seen)
    assert found.late < 2 * found.early
    federation.await_trainers()
