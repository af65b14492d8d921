"""Agents that are killed at random, again and again; `benchmarks.soak` is the long one."""

from benchmarks.soak import soak


def test_agents_killed_at_random_lose_nothing_and_leave_nothing(tmp_path):
    found = soak(tmp_path, agents=2, rounds=4, pause=1.0)
    assert found.kills >= 2
    assert found.same, "the weights are those of a run in which nobody was killed"
    assert found.left == 0
    assert found.late < 2 * found.early
