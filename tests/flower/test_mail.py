"""Messages over a grid whose replies are large, and come from strangers."""

from weakref import ref

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Error, Message, RecordDict

from fedsys.admission import Reason
from fedsys.engine import Work
from fedsys.flower import compat
from fedsys.flower.rounds.mail import Waiting, exchange
from fedsys.strategies import FedAvg, Scaffold

from .scripted import (  # noqa: F401
    LAYOUT,
    WEIGHTS,
    Clients,
    ScriptedGrid,
    engine,
    identity,
    one_round,
    reasons,
    short_retries,
)


class Remote(ScriptedGrid):
    """A grid that gives one reply at a time, and hears what is expected and what is not wanted.

    alive: how many replies were alive at most while another was fetched.
    """

    def __init__(self, app, nodes, script=None):
        super().__init__(app, nodes, script)
        self.expected, self.dropped = [], []
        self.given, self.alive = [], 0

    def expect(self, reply_bytes):
        self.expected.append(reply_bytes)

    def drop(self, message_ids):
        self.dropped += message_ids

    def pull_messages(self, message_ids):
        self.alive = max(self.alive, sum(one() is not None for one in self.given))
        for name in message_ids:
            found = super().pull_messages([name])
            if found:
                self.given += [ref(reply.content) for reply in found if reply.has_content()]
                return found
        return []


def run(clients, grid, **options):
    state = clients.begin()
    work = Work(1, np.arange(len(clients.enrolled)), state.weights, state.server, state.memory)
    return engine(clients, grid, **options).run(work)


@pytest.mark.parametrize("strategy", [FedAvg(), Scaffold()])
def test_no_reply_is_held_while_the_next_is_fetched(strategy):
    clients = Clients(strategy, np.ones(6))
    grid = Remote(clients.app, 6)
    assert len(run(clients, grid).admitted) == 6
    assert len(grid.given) == 6
    assert grid.alive == 0


def test_neither_is_one_that_is_refused():
    def spoil(reply):
        reply.content["fedsys.answer"]["weight"] = -1.0

    clients = Clients(FedAvg(), np.ones(4))
    grid = Remote(clients.app, 4, {100: [spoil], 102: [spoil]})
    assert reasons(run(clients, grid)).keys() == {0, 2}
    assert grid.alive == 0


def test_the_grid_is_told_how_large_an_answer_can_be():
    numbers = {FedAvg(): LAYOUT.length, Scaffold(): LAYOUT.length + LAYOUT.parameters}
    for strategy, count in numbers.items():
        clients = Clients(strategy, WEIGHTS)
        grid = Remote(clients.app, 5)
        run(clients, grid)
        [size] = grid.expected
        assert 4 * count <= size <= 4 * count + 1024 * (len(LAYOUT.names) + 1)


def test_what_nobody_waits_for_any_longer_is_dropped():
    """The message that was not answered in time, the second copy of one that was, and those of a
    client that was given up."""
    script = {100: ["silent", "ok"], 101: ["silent"] * 100, 102: ["crash"]}
    clients = Clients(FedAvg(), np.ones(4))
    grid = Remote(clients.app, 4, script)
    got = run(clients, grid, waiting=Waiting(deadline=1.2, poll=0.01, again=0.5))
    assert got.admitted.tolist() == [0, 3]
    sent = {node: [] for node in (100, 101, 102, 103)}
    for node, message in grid.pushed:
        sent[node].append(message.metadata.message_id)
    assert sorted(grid.dropped) == sorted([sent[100][0], *sent[101]])


def test_so_it_is_where_the_round_is_left():
    clients = Clients(FedAvg(), np.ones(3))
    grid = Remote(clients.app, 3)
    answers = exchange(
        grid,
        range(3),
        lambda client: RecordDict(),
        grid.node_of,
        round=1,
        reply_bytes=10,
        waiting=Waiting(deadline=60),
    )
    next(answers)
    answers.close()
    assert len(grid.dropped) == 2


@pytest.mark.parametrize("code", compat.REFUSED)
def test_a_reply_that_is_not_taken_is_no_update_and_is_not_asked_for_again(code):
    clients = Clients(FedAvg(), WEIGHTS)
    grid = Remote(clients.app, 5)
    answers = grid.answers

    def refused(message, node, act):
        if node != 101:
            return answers(message, node, act)
        return [Message(Error(code, "of the grid"), reply_to=message)]

    grid.answers = refused
    told = {}
    got = run(clients, grid, waiting=Waiting(deadline=60), told=told.__setitem__)
    assert reasons(got) == {1: (Reason.FORMAT, compat.REFUSED[code])}
    assert told[1] == f"not an update: {compat.REFUSED[code]}"
    assert got.admitted.tolist() == [0, 2, 4]
    assert sum(node == 101 for node, _ in grid.pushed) == 1
