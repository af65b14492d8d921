"""How long a node of ours sleeps, where Flower's sleeps for seconds."""

import pytest

from fedsys.flower.processes import launch
from fedsys.flower.processes.launch import FIRST, LONGEST, REPLY_FIRST, REPLY_LONGEST, Pauses


@pytest.fixture
def slept(monkeypatch):
    pauses = []
    monkeypatch.setattr(launch.time, "sleep", pauses.append)
    return pauses


def test_an_idle_node_asks_often_at_first_and_then_seldom(slept):
    pause = Pauses()
    for _ in range(60):
        pause(3)
    assert slept[0] == FIRST
    assert slept[-1] == LONGEST
    assert slept == sorted(slept)
    assert sum(slept[:10]) < 1, "the next round of a job is not waited for"


def test_a_message_makes_it_quick_again(slept):
    pause = Pauses()
    for _ in range(60):
        pause(3)
    for _ in range(60):
        pause(0.5)  # it waits for its app's reply
    pause(3)
    assert slept[60] == REPLY_FIRST
    assert slept[119] == REPLY_LONGEST
    assert slept[120] == FIRST
