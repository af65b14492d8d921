"""How long a round waits once enough have answered, and for whom it does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import Array, RecordDict

from fedsys.admission import Reason
from fedsys.flower.rounds.mail import GRACE, Inquiry, Lost, Waiting
from fedsys.flower.rounds.messages import ANSWER, INSTRUCTION, UPDATE, Broadcast
from fedsys.strategies import FedAvg

from .scripted import (  # noqa: F401
    WEIGHTS,
    Clients,
    ScriptedGrid,
    identity,
    one_round,
    reasons,
    short_retries,
)

FOR_EVER = 1e6
"""Seconds that no test lives to see: who waits them out hangs."""
seconds = st.floats(0, 1e4)


@given(seconds, st.none() | seconds, st.none() | seconds.filter(bool))
def test_nobody_is_waited_for_beyond_the_grace_or_the_deadline(enough_at, grace, deadline):
    waiting = Waiting(deadline=deadline, enough=0.5, grace=grace)
    limit = math.inf if deadline is None else deadline
    assert waiting.end(None) == limit
    given_ = max(GRACE, enough_at) if grace is None else grace
    assert waiting.end(enough_at) == min(limit, enough_at + given_)


def spoil(reply):
    tensors = reply.content[UPDATE]
    name = next(iter(tensors))
    tensors[name] = Array(np.full_like(tensors[name].numpy(), np.nan))


def test_a_refused_update_is_not_one_of_those_that_are_enough():
    """Three of four are enough; of those that come at once one is refused, so the last counts."""
    waiting = Waiting(deadline=FOR_EVER, enough=0.75, grace=0.0, poll=0.01)
    got, _, _ = one_round({101: [spoil], 104: ["late"]}, waiting=waiting)
    assert got.admitted.tolist() == [0, 2, 4]
    assert reasons(got)[1][0] is Reason.FINITE


def test_who_was_away_and_still_is_gets_no_grace():
    waiting = Waiting(deadline=FOR_EVER, enough=0.5, grace=FOR_EVER, poll=0.01)
    got, _, _ = one_round(
        {104: ["late"]},
        node_of=lambda client: None if client == 1 else 100 + client,
        waiting=waiting,
        away={1},
    )
    assert got.admitted.tolist() == [0, 2, 4], "the others have their grace"
    assert reasons(got) == {1: (Reason.LOST, "its node is away")}


def test_who_was_away_and_is_back_takes_part():
    waiting = Waiting(deadline=FOR_EVER, enough=0.5, grace=FOR_EVER, poll=0.01)
    got, _, _ = one_round({101: ["late"]}, waiting=waiting, away={1})
    assert not got.refused


def test_without_enough_even_those_that_were_away_are_waited_for():
    asked = []

    def node_of(client):
        asked.append(client)
        return None if client == 1 and asked.count(1) < 6 else 100 + client

    waiting = Waiting(deadline=FOR_EVER, enough=1.0, poll=0.01)
    got, _, _ = one_round(node_of=node_of, waiting=waiting, away={1})
    assert not got.refused


# --- an answer with a metric more or less ---------------------------------------------------------


def without_loss(reply):
    del reply.content[ANSWER]["loss"]


def with_more(reply):
    reply.content[ANSWER]["accuracy of customer 4711"] = 0.9


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (without_loss, "admitted; gave no loss"),
        (with_more, "admitted; sent metrics that nobody asked for: dropped"),
    ],
)
def test_a_metric_more_or_less_costs_no_weights_and_is_told(act, said):
    heard = {}
    got, _, _ = one_round({101: [act]}, told=lambda client, what: heard.update({client: what}))
    whole, _, _ = one_round()
    np.testing.assert_array_equal(got.delta, whole.delta)
    assert heard.pop(1) == said
    assert set(heard.values()) == {"admitted"}
    assert np.isnan(got.losses).tolist() == [False, act is without_loss, False, False]


# --- inquiries ------------------------------------------------------------------------------------


def test_an_inquiry_waits_for_nobody_and_hears_each_once():
    clients = Clients(FedAvg(), WEIGHTS)
    grid = ScriptedGrid(clients.app, 3, {101: ["late"], 102: ["away"]})
    asked = Broadcast.of("test", 1, clients.start, FedAvg(), clients.begin().server)
    inquiry = Inquiry(grid, 1 << 20)
    there = {100, 101, 102}

    def look(*wanted: int) -> dict[int, RecordDict | Lost]:
        return dict(inquiry.look(wanted, asked.to, lambda c: 100 + c if 100 + c in there else None))

    there.discard(100)
    assert look(0, 1, 2) == {}, "one is away, one takes its time, one has lost its message"
    there.add(100)
    heard: list[int] = []
    waiting = [0, 1, 2]
    while waiting:
        for client, content in look(*waiting).items():
            assert content[ANSWER]["client"] == client
            waiting.remove(client)
            heard.append(client)
    assert sorted(heard) == [0, 1, 2]
    assert look() == {}
    sent = [node for node, message in grid.pushed if INSTRUCTION in message.content]
    assert {node: sent.count(node) for node in there} == {100: 1, 101: 1, 102: 2}
