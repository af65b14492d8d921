"""How long a node of ours sleeps, where Flower's sleeps for seconds."""

import pytest

from fedsys.flower.processes import launch
from fedsys.flower.processes.launch import FIRST, LONGEST, REPLY_FIRST, REPLY_LONGEST, Pauses


class Clock:
    """Stands in for `time`: it goes on where somebody sleeps. slept: for how long each time."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(launch, "time", clock)
    return clock


@pytest.fixture
def slept(clock):
    return clock.slept


def test_an_idle_node_asks_often_at_first_and_then_seldom(slept):
    pause = Pauses()
    for _ in range(60):
        pause(3)
    assert slept[0] == FIRST
    assert slept[-1] == LONGEST
    assert slept == sorted(slept)
    assert sum(slept[:10]) < 1, "the next round of a job is not waited for"


def test_what_the_server_took_to_answer_counts(clock, slept):
    pause = Pauses()
    for _ in range(60):
        pause(3)
    clock.now += LONGEST / 4
    pause(3)
    assert slept[-1] == round(LONGEST * 3 / 4, 6)
    clock.now += 2 * LONGEST
    pause(3)
    assert slept[-1] == FIRST


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
