"""Messages between our two ends of Flower's runtime, over its real processes."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from itertools import count

import httpx
import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.runtime import RuntimeHttpClient

from fedsys.flower import compat, compat_grid, compat_nodes
from fedsys.flower.processes.access import admit_nodes
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.flower.rounds.mail import Waiting, exchange
from fedsys.trust.keys import make_keys
from tests.flower.deployed import Deployed, message, until

PATIENCE = 20.0
WAIT = 240.0


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    # Clocks that differ, as far as they may without a word on it.
    return Deployed(tmp_path_factory.mktemp("deployed"), banks=2, ahead=(100.0, -100.0))


@pytest.fixture(scope="module")
def processes(deployed):
    with deployed.running() as processes:
        yield processes


@pytest.fixture
def grid(deployed, processes):
    server = processes[0]
    with DeployedGrid(deployed.access, deployed.said.append, lambda: server.starts) as grid:
        deployed.await_nodes(grid)
        yield grid


def answers(grid, deployed, array, **asked):
    grid.expect(array.nbytes)
    sent = [message(node, array, **asked) for node in deployed.nodes.values()]
    return grid.send_and_receive(sent, timeout=PATIENCE)


def test_every_node_answers_in_every_round(grid, deployed):
    for round in range(3):
        replies = answers(grid, deployed, np.full(1000, round, np.float32))
        assert {reply.metadata.src_node_id for reply in replies} == set(deployed.nodes.values())
        for reply in replies:
            np.testing.assert_array_equal(reply.content["arrays"]["x"].numpy(), round + 1)


def test_arrays_of_many_pieces_arrive_whole(grid, deployed):
    sent = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32)  # 12 MB
    for reply in answers(grid, deployed, sent):
        np.testing.assert_array_equal(reply.content["arrays"]["x"].numpy(), sent + 1)


def kept(deployed):
    """How many parts of messages Flower's server keeps."""
    path = deployed.server.folder / "state.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("select count(*) from objects").fetchone()[0]


def test_a_reply_that_is_too_large_is_an_error_and_deleted_and_the_others_arrive(grid, deployed):
    small, large = (
        message(deployed.nodes[bank], np.full(9, bank, np.float32), **asked)
        for bank, asked in ((0, {}), (1, {"more": 1_500_000.0}))
    )
    grid.expect(36)
    replies = grid.send_and_receive([small, large], timeout=PATIENCE)
    found = {reply.metadata.reply_to_message_id: reply for reply in replies}
    whole, refused = (found[sent.metadata.message_id] for sent in (small, large))
    np.testing.assert_array_equal(whole.content["arrays"]["x"].numpy(), 1)
    assert refused.error.code == compat.TOO_LARGE
    until(lambda: kept(deployed) == 0)
    assert all(reply.has_content() for reply in answers(grid, deployed, np.zeros(3, np.float32)))


def test_a_reply_that_nobody_waits_for_is_deleted(grid, deployed):
    names = grid.push_messages([message(deployed.nodes[1], np.zeros(9, np.float32), sleep=0.5)])
    grid.drop(names)
    assert grid.pull_messages(names)[0].has_error()
    replies = answers(grid, deployed, np.zeros(3, np.float32))  # that bank's comes after the first
    assert len(replies) == 2 and kept(deployed) > 0
    grid.drop([])
    assert kept(deployed) == 0


def test_a_node_that_sends_more_than_an_answer_can_have_is_told_to_stop(grid, deployed):
    answers(grid, deployed, np.zeros(3, np.float32))
    node, keys = deployed.nodes[0], deployed.banks[0].keys
    piece = PushObjectRequest(
        node=Node(node_id=node), run_id=grid.run.run_id, object_id="0" * 64,
        object_content=bytes(3 << 20), session_id="none",
    )  # fmt: skip
    authority = deployed.server.authority.read_bytes()
    pair = keys.node, keys.node.public_key()
    with compat_nodes.fleet(deployed.server.address, authority, pair, print) as client:
        client.PushObject(piece)
        with pytest.raises(httpx.HTTPStatusError, match="413"):
            list(map(client.PushObject, 6 * [piece]))  # more than twice two answers
    assert all(reply.has_content() for reply in answers(grid, deployed, np.zeros(3, np.float32)))


def test_a_message_whose_node_is_killed_is_reported_lost_and_may_be_sent_again(
    grid, deployed, processes
):
    node, process = deployed.nodes[0], processes[1][0]
    array = np.zeros(3, np.float32)
    [name] = grid.push_messages([message(node, array, sleep=PATIENCE)])
    time.sleep(1)  # let the app have it
    os.kill(process.pid, signal.SIGKILL)
    replies = []
    until(lambda: replies.extend(grid.pull_messages([name])) or replies)
    assert replies[0].has_error()
    assert replies[0].metadata.reply_to_message_id == name


def test_a_server_that_is_killed_leaves_the_run_and_says_what_may_be_lost(
    grid, deployed, processes
):
    server, run = processes[0], grid.run.run_id
    sent = message(deployed.nodes[1], np.zeros(3, np.float32), sleep=1.0)
    names = grid.push_messages([sent])
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    replies = []
    until(lambda: replies.extend(grid.pull_messages(names)) or replies)
    assert server.pid not in (killed, None)
    if replies[0].has_error():
        assert "started again" in replies[0].error.reason
    replies = answers(grid, deployed, np.zeros(3, np.float32))
    assert all(reply.has_content() for reply in replies)
    assert grid.run.run_id == run


MOMENTS = {
    "the question is sent": ("PushObject", lambda call, given: call == 2),
    "nodes fetch it": ("PullMessages", lambda call, given: call == 1),
    "a node sends its answer": ("PullMessages", lambda call, given: given.messages_list),
    "the answer is fetched": ("PullObject", lambda call, given: len(given.object_content) > 1e6),
}
"""When the coordinator has had an answer to a request of that name, for which this holds."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_that_is_killed_amid_large_messages_loses_none(
    grid, deployed, processes, moment, monkeypatch
):
    """Whatever was on its way, in either direction, is sent again."""
    server, array = processes[0], np.random.default_rng(1).normal(size=1_500_000)
    name, now = MOMENTS[moment]
    ask, calls, killed = getattr(RuntimeHttpClient, name), count(1), []

    def asked(client, request):
        given = ask(client, request)
        if not killed and now(next(calls), given):
            killed.append(server.pid)
            os.kill(server.pid, signal.SIGKILL)
        return given

    monkeypatch.setattr(RuntimeHttpClient, name, asked)
    contents = dict(
        exchange(
            grid,
            [0, 1],
            lambda client: message(deployed.nodes[client], array).content,
            grid.node_of(deployed.nodes),
            round=1,
            reply_bytes=array.nbytes,
            waiting=Waiting(deadline=WAIT),
        )
    )
    assert killed
    assert set(contents) == {0, 1}
    for content in contents.values():
        assert isinstance(content, RecordDict), content
        np.testing.assert_array_equal(content["arrays"]["x"].numpy(), array + 1)


def test_a_run_that_the_server_gave_up_is_begun_anew(grid, deployed):
    names = grid.push_messages([message(deployed.nodes[1], np.zeros(3, np.float32), sleep=0.5)])
    before = grid.run.run_id
    with deployed.access.control() as control:
        compat_grid.stop_run(control, before)
    replies = []
    until(lambda: replies.extend(grid.pull_messages(names)) or replies)
    assert replies[0].has_error()
    assert grid.run.run_id != before
    assert any("going on with a new one" in line for line in deployed.said)
    replies = grid.send_and_receive(
        [message(deployed.nodes[1], np.zeros(3, np.float32))], timeout=PATIENCE
    )
    assert replies[0].has_content()


def test_a_message_of_a_run_with_foreign_code_is_refused_at_the_bank(
    deployed, processes, monkeypatch
):
    from fedsys.flower.processes import bundle as ours

    foreign = ours.PROJECT.replace("1.0.0", "6.6.6")
    assert foreign != ours.PROJECT
    monkeypatch.setattr(ours, "PROJECT", foreign)
    with DeployedGrid(deployed.access) as grid:
        deployed.await_nodes(grid)
        content = RecordDict({"asked": ConfigRecord({"a": 1})})
        replies = grid.send_and_receive(
            [Message(content, deployed.nodes[1], "train")], timeout=PATIENCE
        )
    assert replies[0].content["refused"]["why"] == "not ours"


def test_a_node_that_may_not_join_is_known_to_no_grid(grid, deployed, tmp_path):
    keys = [bank.keys.node_public for bank in deployed.banks]
    stranger = make_keys(tmp_path / "stranger").node_public
    ids = admit_nodes(deployed.access, [*keys, stranger])
    assert ids[stranger] not in grid.get_node_ids(), "approved, but not there"
    admit_nodes(deployed.access, keys)
    names = grid.push_messages([message(ids[stranger], np.zeros(3, np.float32))])
    assert grid.pull_messages(names) == [] or grid.pull_messages(names)[0].has_error()
