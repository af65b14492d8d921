"""Our rounds over a grid of Flower's: whatever its nodes do, the sums are right or it is said."""

from __future__ import annotations

import math
import random
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import Array, ConfigRecord

from fedsys.admission import Reason, Refused
from fedsys.engine import Work
from fedsys.errors import EngineError
from fedsys.flower.rounds.engine import NAMED
from fedsys.flower.rounds.exact import ExactSum
from fedsys.flower.rounds.mail import Waiting
from fedsys.flower.rounds.messages import ANSWER, OWN, UPDATE, Code
from fedsys.rounds import run_rounds
from fedsys.strategies import FedAdam, FedAvg, Scaffold

from .scripted import (  # noqa: F401
    LAYOUT,
    SOON,
    WEIGHTS,
    Clients,
    ScriptedGrid,
    engine,
    identity,
    one_round,
    reasons,
    short_retries,
)


def mean(clients, heard):
    """The weighted mean of the movements in round 1, in float64."""
    state = clients.begin()
    moves = [
        LAYOUT.gather(clients.train(c, 1, state.weights, state.server, None).update.tensors)
        for c in heard
    ]
    weights = clients.enrolled[list(heard)]
    return (np.array(moves, float) * weights[:, None]).sum(axis=0) / weights.sum()


# --- the sums -----------------------------------------------------------------------------------


def test_a_round_is_the_weighted_mean_of_those_with_rows():
    got, clients, grid = one_round()
    np.testing.assert_allclose(got.delta, mean(clients, [0, 1, 2, 4]), atol=1e-7)
    assert got.delta.dtype == LAYOUT.dtype
    assert (got.weight, got.empty, got.refused) == (43.0, 1, ())
    assert got.admitted.tolist() == [0, 1, 2, 4]
    assert got.losses.tolist() == [0, 1, 2, 4]
    assert [node for node, _ in grid.pushed] == [100, 101, 102, 104]


@given(st.permutations(range(12)), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_the_order_of_arrival_changes_no_bit(order, seed):
    def sums(order):
        clients = Clients(Scaffold(), np.arange(1, 13), seed=seed)
        grid = ScriptedGrid(clients.app, 12)
        grid.order = lambda replies: [replies[i] for i in order] if len(replies) == 12 else replies
        state = clients.begin()
        work = Work(1, np.arange(12), state.weights, state.server, {})
        return engine(clients, grid).partial(work).aggregate(LAYOUT.dtype)

    straight, other = sums(range(12)), sums(order)
    np.testing.assert_array_equal(straight.delta, other.delta)
    np.testing.assert_array_equal(straight.drift, other.drift)
    np.testing.assert_array_equal(straight.losses, other.losses)
    assert list(straight.memory) == list(other.memory)


@given(
    st.lists(
        st.tuples(
            st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False), st.integers(1, 2**20)
        ),
        min_size=1,
        max_size=40,
    )
)
def test_a_sum_is_rounded_once(terms):
    held = ExactSum(1)
    for value, weight in terms:
        held.add(np.array([value], "f4"), float(weight))
    exact = math.fsum(value * weight for value, weight in terms)
    size = math.fsum(abs(value * weight) for value, weight in terms)
    assert abs(held.value[0] - exact) <= abs(exact) * 2.0**-52 + size * 2.0**-95


def test_long_vectors_are_added_block_by_block():
    values = np.random.default_rng(0).normal(size=(3, 100_001))
    held = ExactSum(values.shape[1])
    for value in values:
        held.add(value, 2.0)
    np.testing.assert_allclose(held.value, 2 * values.sum(axis=0), rtol=1e-12)


def test_large_answers_are_pulled_a_few_at_a_time(monkeypatch):
    answer = 4 * LAYOUT.length + NAMED * len(LAYOUT.names)
    monkeypatch.setattr("fedsys.flower.rounds.mail.PULLED", 2 * answer)
    clients = Clients(FedAvg(), np.ones(9))
    grid = ScriptedGrid(clients.app, 9)
    asked, pull = [], grid.pull_messages
    grid.pull_messages = lambda ids: (asked.append(len(ids)), pull(ids))[1]
    state = clients.begin()
    got = engine(clients, grid).run(Work(1, np.arange(9), state.weights, state.server, {}))
    assert len(got.admitted) == 9 and max(asked) == 2


def test_an_answer_that_is_counted_is_let_go(monkeypatch):
    monkeypatch.setattr("fedsys.flower.rounds.mail.PULLED", 1)
    clients = Clients(Scaffold(), np.ones(20))
    grid = ScriptedGrid(clients.app, 20)
    state, alive, most = clients.begin(), [], []

    def check(client, content):
        alive.append(ref(content))
        most.append(sum(one() is not None for one in alive))

    got = engine(clients, grid, check=check).run(
        Work(1, np.arange(20), state.weights, state.server, {})
    )
    assert len(got.admitted) == len(most) == 20 and max(most) <= 2


def test_three_rounds_come_to_what_numpy_says():
    clients = Clients(FedAdam(0.1), WEIGHTS)
    grid = ScriptedGrid(clients.app, 5)
    rounds = run_rounds(
        clients.begin(), clients.strategy, engine(clients, grid), LAYOUT,
        cohorts=lambda round: np.arange(5), population=43.0, rounds=3, quorum=0.5,
    )  # fmt: skip
    weights = [state.weights for state, _ in rounds][-1]
    w, first, second = clients.start.astype(float), 0.0, 1e-6
    for round in (1, 2, 3):
        pull = 0.1 * (clients.points - w) + 0.01 * round
        delta = (pull * clients.enrolled[:, None]).sum(axis=0) / 43
        first = 0.9 * first + 0.1 * delta
        second = 0.99 * second + 0.01 * delta**2
        adapted = 0.1 * first / (np.sqrt(second) + 1e-3)
        w = np.concatenate([(w + adapted)[: LAYOUT.parameters], (w + delta)[LAYOUT.parameters :]])
    np.testing.assert_allclose(weights, w, atol=1e-5)


# --- nodes and messages that fail ---------------------------------------------------------------


@pytest.mark.parametrize("act, refusal", [
    ("away", (Reason.LOST, "its node is away")),
    ("crash", (Reason.FAILED, "its app crashed")),
    ("unsent", (Reason.LOST, "its message could not be sent")),
])  # fmt: skip
def test_a_client_that_is_lost_is_named_and_the_round_goes_on(act, refusal):
    got, clients, _ = one_round({101: [act]})
    assert reasons(got) == {1: refusal}
    assert not any(math.isfinite(one.loss) for one in got.refused)
    np.testing.assert_allclose(got.delta, mean(clients, [0, 2, 4]), atol=1e-7)


def test_a_silent_client_is_late_at_the_deadline():
    got, _, _ = one_round({101: ["silent"]}, waiting=SOON)
    assert reasons(got) == {1: (Reason.LATE, "no answer in time")}
    assert got.admitted.tolist() == [0, 2, 4]


@pytest.mark.parametrize("acts", [["away"] * 3, ["unsent"] * 2, ["late"], ["away", "late"]])
def test_what_passes_within_the_deadline_is_waited_for(acts):
    got, clients, grid = one_round({101: acts}, waiting=Waiting(deadline=30, poll=0.01))
    assert not got.refused
    np.testing.assert_allclose(got.delta, mean(clients, [0, 1, 2, 4]), atol=1e-7)
    assert sum(node == 101 for node, _ in grid.pushed) == len([a for a in acts if a != "late"]) + 1


def test_a_node_that_comes_back_is_sent_its_message():
    asked = []

    def node_of(client):
        asked.append(client)
        return None if client == 1 and asked.count(1) < 4 else 100 + client

    got, _, _ = one_round(node_of=node_of, waiting=Waiting(deadline=30, poll=0.01))
    assert not got.refused and asked.count(1) == 4


def test_a_node_that_is_away_is_not_waited_for_without_a_deadline():
    got, _, _ = one_round(node_of=lambda client: 100 + client if client else None)
    assert reasons(got) == {0: (Reason.LOST, "its node is away")}


def test_a_silent_client_is_sent_its_message_again():
    waiting = Waiting(deadline=30, poll=0.01, again=0.05)
    got, _, grid = one_round({101: ["silent", "silent"]}, waiting=waiting)
    assert not got.refused
    assert sum(node == 101 for node, _ in grid.pushed) == 3


def test_second_answers_are_not_counted():
    got, clients, _ = one_round({101: ["twice"], 104: ["twice"]})
    assert got.admitted.tolist() == [0, 1, 2, 4]
    np.testing.assert_allclose(got.delta, mean(clients, [0, 1, 2, 4]), atol=1e-7)


def test_once_enough_have_answered_the_others_have_little_time():
    waiting = Waiting(enough=0.5, grace=0.05, poll=0.01)
    got, _, _ = one_round({101: ["silent"], 104: ["silent"]}, waiting=waiting)
    assert reasons(got).keys() == {1, 4}


def test_a_grid_that_fails_ends_the_run_in_one_line():
    clients = Clients(FedAvg(), WEIGHTS)
    grid = ScriptedGrid(clients.app, 5)

    def broken(ids):
        raise ConnectionError("refused\nby the other side")

    grid.pull_messages = broken
    state = clients.begin()
    with pytest.raises(EngineError, match="ConnectionError: refused by the other side"):
        engine(clients, grid).run(Work(1, np.arange(5), state.weights, state.server, {}))


# --- answers that are not right -----------------------------------------------------------------


def record(name, **values):
    return lambda reply: reply.content[name].update(values)


def spoiled(value):
    return lambda reply: reply.content[UPDATE].update({"001.bias": Array(np.asarray(value))})


@pytest.mark.parametrize("change, refusal", [
    (spoiled(np.array([np.nan, 0], "f4")), (Reason.FINITE, "001.bias")),
    (spoiled(np.zeros((1, 2), "f4")), (Reason.SHAPE, "001.bias is (1, 2), not (2,)")),
    (spoiled(np.zeros(2)), (Reason.DTYPE, "001.bias is <f8, not <f4")),
    (record(ANSWER, weight=14.0), (Reason.WEIGHT, "14, enrolled with 13")),
    (record(ANSWER, weight=-1.0), (Reason.WEIGHT, "-1, enrolled with 13")),
    (record(ANSWER, round=2), (Reason.FORMAT, "is of round '2', not 1")),
    (record(ANSWER, client=4), (Reason.FORMAT, "is of client '4', not 1")),
    (record(ANSWER, experiment="x"), (Reason.FORMAT, "is of experiment 'x', not 'test'")),
    (record(ANSWER, code="DATA"), (Reason.FAILED, str(Code.DATA))),
    (lambda reply: reply.content.clear(), (Reason.FORMAT, "has no fedsys.answer")),
])  # fmt: skip
def test_a_bad_answer_is_the_fault_of_that_client_alone(change, refusal):
    got, clients, _ = one_round({101: [change]})
    assert reasons(got) == {1: refusal}
    np.testing.assert_allclose(got.delta, mean(clients, [0, 2, 4]), atol=1e-7)


def test_a_client_that_remembers_must_say_how_its_vector_changed():
    def forget(reply):
        del reply.content[OWN]

    def spoil(reply):
        reply.content[OWN]["own"] = Array(np.full(LAYOUT.parameters, np.inf, "f4"))

    got, _, _ = one_round({101: [forget], 102: [spoil]}, Scaffold())
    assert reasons(got) == {
        1: (Reason.MISSING, "the change of its own vector"),
        2: (Reason.FINITE, "the change of its own vector"),
    }
    assert got.memory.keys() == {0, 4}


def test_others_may_look_at_answers_and_add_to_instructions():
    def check(client, content):
        if content["mine"]["signature"] != client:
            raise Refused(Reason.FORMAT, "is not signed")

    def dress(client, content):
        content["mine"] = ConfigRecord({"wanted": client})
        return content

    def sign(reply):
        reply.content["mine"] = ConfigRecord({"signature": 4})

    said = {}
    script = {104: [sign], 101: [sign]}
    clients = Clients(FedAvg(), WEIGHTS)
    grid = ScriptedGrid(clients.app, 5, script)
    state = clients.begin()
    got = engine(clients, grid, check=check, dress=dress, told=said.__setitem__).run(
        Work(1, np.array([1, 4]), state.weights, state.server, {})
    )
    assert [message.content["mine"]["wanted"] for _, message in grid.pushed] == [1, 4]
    assert reasons(got) == {1: (Reason.FORMAT, "is not signed")}
    assert said == {1: "not an update: is not signed", 4: "admitted"}


def test_replies_may_come_in_any_order_while_the_round_lasts():
    clients = Clients(FedAvg(), WEIGHTS)
    rng = random.Random(0)
    grid = ScriptedGrid(clients.app, 5, {100: ["late"], 102: ["late"]})
    grid.order = lambda replies: rng.sample(replies, len(replies))
    state = clients.begin()
    got = engine(clients, grid).run(Work(1, np.arange(5), state.weights, state.server, {}))
    assert got.admitted.tolist() == [0, 1, 2, 4] and got.losses.tolist() == [0, 1, 2, 4]
