"""What a client of ours keeps, and what it says when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="flwr is not installed")

from fedsys.admission import Reason
from fedsys.engine import Work
from fedsys.errors import UsageError
from fedsys.flower.rounds.engine import round_of, stamp
from fedsys.flower.rounds.mail import Waiting
from fedsys.flower.rounds.messages import OWN, Code
from fedsys.rounds import run_rounds
from fedsys.strategies import FedAvg, Scaffold

from .scripted import (  # noqa: F401
    LAYOUT,
    WEIGHTS,
    Clients,
    ScriptedGrid,
    engine,
    identity,
    reasons,
    short_retries,
)

# --- what goes wrong --------------------------------------------------------------


def test_a_client_that_fails_sends_a_code_and_keeps_the_words():
    clients = Clients(FedAvg(), WEIGHTS)

    def failing(client, *arguments, train=clients.train):
        if client == 1:
            raise ValueError("row 17 holds 'Smith, John'")
        return train(client, *arguments)

    clients.train = failing
    grid = ScriptedGrid(clients.app, 5)
    state = clients.begin()
    got = engine(clients, grid).run(Work(1, np.arange(5), state.weights, state.server, {}))
    assert reasons(got) == {1: (Reason.FAILED, str(Code.TRAINING))}
    assert [str(error) for error in clients.errors] == ["row 17 holds 'Smith, John'"]


def test_a_client_of_another_experiment_says_so():
    clients = Clients(FedAvg(), WEIGHTS, experiment="another")
    grid = ScriptedGrid(clients.app, 5)
    state = clients.begin()
    got = engine(clients, grid).run(Work(1, np.arange(2), state.weights, state.server, {}))
    assert {reason for reason, _ in reasons(got).values()} == {Reason.FAILED}
    assert {detail for _, detail in reasons(got).values()} == {str(Code.EXPERIMENT)}


# --- vectors of the clients' own ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_round_fits_where_a_vector_would_be(dtype):
    for round in (1, 3, 2**24 + 1, 2**40):
        kept = stamp(round, np.dtype(dtype))
        assert round_of(np.frombuffer(kept.tobytes(), dtype).copy()) == round
    with pytest.raises(UsageError, match="start a new run"):
        round_of(np.zeros(9, dtype))


def scaffold_rounds(own_stays, losses=(), back=(), rounds=6):
    """States of a run whose answers get lost, and which goes back, at some rounds.

    losses: (round, client) whose answers never come, though the client has trained.
    back: rounds after which the server dies and goes on from the checkpoint before its last.
    """
    clients = Clients(Scaffold(), WEIGHTS)
    grid = ScriptedGrid(clients.app, 5)
    engine_ = engine(clients, grid, own_stays=own_stays, waiting=Waiting(poll=0.01))
    state, kept, done = clients.begin(), [], []
    back = list(back)
    while state.round < rounds:
        kept = [*kept[-1:], state]
        number = state.round + 1
        for client in range(5):
            lost = (number, client) in losses
            grid.script[100 + client] = [silence] if lost else []
        [(state, happened)] = run_rounds(
            state, clients.strategy, engine_, LAYOUT, cohorts=lambda round: np.arange(5),
            population=43.0, rounds=number, quorum=0.1,
        )  # fmt: skip
        done.append(happened)
        if back and back[0] == number:
            back.pop(0)
            state = kept[0]
    return state, done, grid


def silence(reply):
    """The node has trained, and its answer is spoiled on the way."""
    reply.content.clear()


@settings(deadline=None, max_examples=25)
@given(
    st.sets(st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 2, 4])), max_size=8),
    st.lists(st.integers(2, 6), max_size=2, unique=True).map(sorted),
)
def test_vectors_that_stay_are_those_that_would_have_travelled(losses, back):
    """Lost answers and a server that goes back leave both sides with the same vectors."""
    travelled, _, _ = scaffold_rounds(False, losses)
    stayed, done, grid = scaffold_rounds(True, losses, back)
    np.testing.assert_allclose(stayed.weights, travelled.weights, atol=1e-6)
    np.testing.assert_allclose(stayed.server.control, travelled.server.control, atol=1e-6)
    for happened in done:
        lost = {client for round, client in losses if round == happened.number}
        assert {refusal.client for refusal in happened.aggregate.refused} == lost
    for node in grid.nodes.values():
        for record in node.state.values():
            assert len(record) <= 3


def test_the_servers_control_is_the_mean_of_the_vectors_that_are_counted():
    state, _, grid = scaffold_rounds(True, {(2, 1), (3, 1), (6, 4)})
    own = np.zeros((5, LAYOUT.parameters))
    for client, kept in state.memory.items():
        vectors = grid.nodes[100 + client].state["fedsys.memory.test"]
        own[client] = vectors[str(round_of(kept))].numpy()
    mean = (own * np.array(WEIGHTS)[:, None]).sum(axis=0) / 43
    np.testing.assert_allclose(state.server.control, mean, atol=1e-6)


def test_no_vector_leaves_a_client_where_they_stay():
    clients = Clients(Scaffold(), WEIGHTS)
    sent = []

    def watch(reply):
        sent.append(reply.content[OWN]["own"].numpy())

    grid = ScriptedGrid(clients.app, 5, {101: [watch] * 3})
    list(
        run_rounds(
            clients.begin(), clients.strategy, engine(clients, grid), LAYOUT,
            cohorts=lambda round: np.arange(5), population=43.0, rounds=3, quorum=0.5,
        )
    )  # fmt: skip
    kept = grid.nodes[101].state["fedsys.memory.test"]
    second, third = kept["2"].numpy(), kept["3"].numpy()
    np.testing.assert_allclose(sent[2], third - second, atol=1e-7)
    assert all("own" not in message.content["fedsys.arrays"] for _, message in grid.pushed)


def test_a_client_that_has_lost_its_vector_is_refused_and_not_begun_anew():
    state, _, grid = scaffold_rounds(True, rounds=2)
    grid.nodes[101].state.clear()
    clients = Clients(Scaffold(), WEIGHTS)
    got = engine(clients, grid).run(
        Work(3, np.arange(5), state.weights, state.server, state.memory)
    )
    assert reasons(got) == {1: (Reason.FAILED, str(Code.MEMORY))}


def test_a_run_that_was_deployed_does_not_go_on_as_a_simulation_and_back():
    state, _, grid = scaffold_rounds(True, rounds=1)
    clients = Clients(Scaffold(), WEIGHTS)
    work = Work(2, np.arange(5), state.weights, state.server, state.memory)
    with pytest.raises(UsageError, match="cannot go on as a simulation"):
        engine(clients, grid, own_stays=False).run(work)
    vectors = {0: np.zeros(LAYOUT.parameters, "f4")}
    with pytest.raises(UsageError, match="start a new run"):
        engine(clients, grid).run(replace(work, memory=vectors))


def test_a_client_is_loaded_without_tensorflow():
    """Flower starts a process a message, and TensorFlow takes seconds to load."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "import fedsys.flower.rounds.client, fedsys.flower.rounds.engine\n"
        "import fedsys.flower.simulation.actor\n"
        "import fedsys.flower.server_app.strategy, fedsys.flower.simulation.simulator"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
