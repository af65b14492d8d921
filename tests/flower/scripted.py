"""A grid whose nodes do what a test says, and clients whose training is a line of NumPy."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from uuid import uuid4

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedsys.admission import Update
from fedsys.clients.trainer import Trained
from fedsys.engine import Work
from fedsys.flower import compat
from fedsys.flower.rounds.client import Member, client_app
from fedsys.flower.rounds.engine import GridEngine
from fedsys.flower.rounds.mail import Waiting
from fedsys.layout import Layout
from fedsys.rounds import begin
from fedsys.strategies import FedAvg

LAYOUT = Layout(("000.kernel", "001.bias", "002.mean"), ((3, 2), (2,), (4,)), 2, np.dtype("f4"))
RUN = 7
SPAN = 0.5


class Clients:
    """Clients of a federation: each pulls the weights towards a point of its own."""

    def __init__(self, strategy, weights, seed=0, experiment="test"):
        rng = np.random.default_rng(seed)
        self.strategy, self.experiment = strategy, experiment
        self.enrolled = np.asarray(weights, float)
        self.points = rng.normal(size=(len(weights), LAYOUT.length)).astype("f4")
        self.start = rng.normal(size=LAYOUT.length).astype("f4")
        self.errors = []
        self.trained = []  # (round, client), as it happens
        self.app = client_app(self.member, lambda code, error: self.errors.append(error))

    def member(self, experiment, client, context=None):
        train = partial(self.train, client)
        return Member(client, self.experiment, LAYOUT, self.strategy, train)

    def train(self, client, round, anchor, state, own):
        self.trained.append((round, client))
        parameters = LAYOUT.parameters
        if own is None:
            own = np.zeros(parameters, "f4")
        pull = 0.1 * (self.points[client] - anchor) + np.float32(0.01 * round)
        pull[:parameters] += sum(self.strategy.send(state, own), np.zeros(parameters, "f4")) * 0.1
        moved = pull.astype("f4")
        new = None
        if self.strategy.remembers:
            new = self.strategy.receive(state, own, moved[:parameters], SPAN)
        weight = float(self.enrolled[client])
        return Trained(Update(LAYOUT.named(moved), weight), float(client), new)

    def begin(self):
        return begin(self.strategy, LAYOUT, self.start)


class ScriptedGrid(Grid):
    """Nodes 100, 101, ... run an app. What a node does with its messages, one after another:

    'ok', 'silent', 'away' (an error that passes), 'crash' (one that does not), 'unsent', 'late'
    (after ten pulls), 'twice', or a function that changes the reply. Then always 'ok'.
    """

    def __init__(self, app, nodes, script=None, order=lambda replies: replies):
        self.app, self.order = app, order
        self.script = {node: list(acts) for node, acts in (script or {}).items()}
        self.nodes = {
            100 + i: Context(RUN, 100 + i, {"partition-id": i}, RecordDict(), {})
            for i in range(nodes)
        }
        self.replies, self.delay = defaultdict(list), {}
        self.pushed, self.held = [], 0

    def node_of(self, client):
        return 100 + client

    def set_run(self, run): ...

    @property
    def run(self):
        return compat.new_run(RUN)

    def get_node_ids(self):
        return list(self.nodes)

    def create_message(self, *arguments, **named):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def push_messages(self, messages):
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            acts = self.script.get(node)
            act = acts.pop(0) if acts else "ok"
            self.pushed.append((node, message))
            if act == "unsent":
                ids.append(None)
                continue
            name = uuid4().hex
            compat.name_message(message, name)
            ids.append(name)
            if act != "silent":
                self.replies[name] = self.answers(message, node, act)
                self.delay[name] = 10 if act == "late" else 0
        return ids

    def answers(self, message, node, act):
        if act in ("away", "crash"):
            code = {"away": 5, "crash": 8}[act]
            return [Message(Error(code, "words of a stranger"), reply_to=message)]
        reply = self.app(message, self.nodes[node])
        if callable(act):
            act(reply)
        return [reply] * (2 if act == "twice" else 1)

    def pull_messages(self, message_ids):
        found = []
        for name in message_ids:
            self.delay[name] = self.delay.get(name, 0) - 1
            if self.delay[name] < 0:
                found += self.replies.pop(name, [])
        return self.order(found)


WEIGHTS = [7.0, 13.0, 1.0, 0.0, 22.0]

SOON = Waiting(deadline=0.3, poll=0.01)


@pytest.fixture(autouse=True)
def identity():
    with compat.identity(RUN):
        yield


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr("fedsys.flower.rounds.mail.RETRY", 0.02)


def engine(clients, grid, **options):
    return GridEngine(
        grid,
        LAYOUT,
        clients.strategy,
        clients.enrolled,
        **{"experiment": "test", "node_of": grid.node_of, **options},
    )


def one_round(script=None, strategy=None, cohort=range(5), **options):
    """The aggregate of a round, and the clients."""
    clients = Clients(strategy or FedAvg(), WEIGHTS)
    grid = ScriptedGrid(clients.app, 5, script)
    state = clients.begin()
    work = Work(1, np.array(cohort), state.weights, state.server, state.memory)
    return engine(clients, grid, **options).run(work), clients, grid


def reasons(aggregate):
    return {refusal.client: (refusal.reason, refusal.detail) for refusal in aggregate.refused}
