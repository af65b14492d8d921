import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedsys.errors import UsageError
from fedsys.flower.app import grid as grid_module
from fedsys.flower.app.grid import InProcessGrid


def content(**values):
    return RecordDict({"arrays": ArrayRecord([np.arange(3.0)]), "config": ConfigRecord(values)})


def messages(grid, records=None, **options):
    """One message to each node, all with the same content, as strategies send them."""
    records = records or content(lr=0.5)
    return [Message(records, node, "train", **options) for node in grid.get_node_ids()]


def answer(message, **values):
    return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)


def metrics(reply):
    return dict(reply.content["metrics"])


def partition(message, context):
    return answer(message, partition=context.node_config["partition-id"])


def test_all_nodes_are_there_from_the_start_and_a_seed_names_them():
    with InProcessGrid(partition, 100, seed=3) as grid:
        first = grid.get_node_ids()
        assert [info.node_id for info in grid.get_nodes()] == first
    with InProcessGrid(partition, 100, seed=3) as grid:
        assert grid.get_node_ids() == first
    with InProcessGrid(partition, 100, seed=4) as grid:
        assert not set(grid.get_node_ids()) & set(first)
    assert len(set(first)) == 100
    assert all(1 < node < 2**63 for node in first)


@pytest.mark.parametrize("workers", [1, 4])
def test_replies_come_in_the_order_of_the_messages(workers):
    with InProcessGrid(partition, 30, workers=workers) as grid:
        asked = messages(grid)
        random.Random(0).shuffle(asked)
        replies = grid.send_and_receive(asked)
    assert [reply.metadata.src_node_id for reply in replies] == [
        message.metadata.dst_node_id for message in asked
    ]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [
        message.metadata.message_id for message in asked
    ]
    assert sorted(metrics(reply)["partition"] for reply in replies) == list(range(30))


def test_a_client_that_spoils_its_message_changes_nobody_elses():
    def spoiler(message, context):
        left = len(message.content["arrays"])
        values = list(message.content["config"]["values"])
        message.content["arrays"].to_numpy_ndarrays(keep_input=False)
        message.content["config"]["values"].append(9)
        message.content["config"]["lr"] = 7.0
        message.metadata.group_id = "mine"
        del message.content["config"]
        return answer(message, left=left, values=len(values))

    with InProcessGrid(spoiler, 5) as grid:
        records = content(lr=0.5, values=[1, 2])
        asked = messages(grid, records, group_id="1")
        assert [metrics(reply) for reply in grid.send_and_receive(asked)] == [
            {"left": 1, "values": 2}
        ] * 5
    assert dict(records["config"].items()) == {"lr": 0.5, "values": [1, 2]}
    assert records["arrays"].to_numpy_ndarrays()[0].tolist() == [0, 1, 2]
    assert {message.metadata.group_id for message in asked} == {"1"}


def test_messages_share_their_bytes():
    seen = []

    def keeper(message, context):
        seen.append(message.content["arrays"]["0"])
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    with InProcessGrid(keeper, 3) as grid:
        records = content()
        replies = grid.send_and_receive(messages(grid, records))
    arrays = seen + [reply.content["arrays"]["0"] for reply in replies]
    assert all(array.data is records["arrays"]["0"].data for array in arrays)
    assert len({id(array) for array in arrays}) == 6


def test_a_server_that_empties_a_reply_or_changes_a_pushed_message_does_not_reach_the_node():
    def rememberer(message, context):
        if "arrays" not in context.state:
            context.state["arrays"] = message.content["arrays"]
        return Message(RecordDict({"arrays": context.state["arrays"]}), reply_to=message)

    with InProcessGrid(rememberer, 1) as grid:
        for _ in range(3):
            asked = messages(grid)
            ids = grid.push_messages(asked)
            asked[0].content["arrays"].clear()
            (reply,) = grid.pull_messages(ids)
            (array,) = reply.content["arrays"].to_numpy_ndarrays(keep_input=False)
            assert array.tolist() == [0, 1, 2]


def counting(message, context):
    record = context.state.setdefault("count", MetricRecord({"n": 0}))
    record["n"] += 1
    if message.content["config"].get("fail"):
        context.state["half"] = MetricRecord()
        raise ZeroDivisionError("division by zero")
    return answer(message, n=record["n"], records=len(context.state))


def test_state_stays_with_its_node_and_a_failure_takes_its_changes_back():
    with InProcessGrid(counting, 2) as grid:
        first, second = grid.get_node_ids()
        wanted = [(first, 0), (first, 1), (second, 0), (first, 0), (second, 1), (second, 1)]
        replies = grid.send_and_receive(
            Message(content(fail=bool(fail)), node, "train") for node, fail in wanted
        )
        (third,) = grid.send_and_receive([Message(content(), second, "train")])
    good = [metrics(reply)["n"] for reply in replies if reply.has_content()]
    bad = [(reply.error.code, reply.error.reason) for reply in replies if reply.has_error()]
    assert good == [1, 1, 2]
    assert bad == [(2, "<class 'ZeroDivisionError'>:<'division by zero'>")] * 3
    assert metrics(third) == {"n": 2, "records": 1}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    st.sampled_from([1, 3]),
)
def test_however_messages_fall_each_node_counts_its_good_ones(wanted, workers):
    with InProcessGrid(counting, 4, workers=workers) as grid:
        nodes = grid.get_node_ids()
        replies = grid.send_and_receive(
            Message(content(fail=fail), nodes[node], "train") for node, fail in wanted
        )
    counts = [0] * 4
    assert len(replies) == len(wanted)
    for (node, fail), reply in zip(wanted, replies, strict=True):
        counts[node] += not fail
        assert reply.has_error() == fail
        if not fail:
            assert metrics(reply)["n"] == counts[node]


def test_what_ends_a_client_is_an_error_reply_of_its_kind():
    def ending(message, context):
        kind = message.content["config"]["kind"]
        if kind == "exit":
            raise SystemExit(3)
        if kind == "nothing":
            return None
        if kind == "config":
            context.run_config["lr"] = 1.0
        if kind == "error":
            return Message(Error(6, "a mod refused"), reply_to=message)
        return answer(message, ok=1)

    told = []
    run_config = {"lr": 0.5}
    failed = lambda position, error: told.append((position, type(error).__name__))  # noqa: E731
    with InProcessGrid(ending, 2, run_config=run_config, failed=failed) as grid:
        node = grid.get_node_ids()[1]
        kinds = ["exit", "nothing", "config", "error", "fine"]
        replies = grid.send_and_receive(
            Message(content(kind=kind), node, "train") for kind in kinds
        )
    codes = [reply.error.code for reply in replies[:4]]
    assert codes == [8, 2, 0, 6]
    assert "returned NoneType" in replies[1].error.reason
    assert "run_config" in replies[2].error.reason
    assert metrics(replies[4]) == {"ok": 1}
    assert told == [(1, "SystemExit"), (1, "TypeError"), (1, "ConfigChanged")]
    assert run_config == {"lr": 0.5}


def test_an_exception_that_cannot_say_what_it_is_is_a_reply_too():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("never")

    def failing(message, context):
        raise Mute

    with InProcessGrid(failing, 2) as grid:
        replies = grid.send_and_receive(messages(grid))
    assert [reply.error.code for reply in replies] == [2, 2]
    assert "Mute" in replies[0].error.reason


def test_a_defect_beside_the_client_is_raised_and_nobody_waits_for_ever():
    def broken(position, error):
        raise LookupError("a defect")

    with InProcessGrid(lambda *_: None, 2, failed=broken) as grid:
        with pytest.raises(LookupError, match="a defect"):
            grid.send_and_receive(messages(grid))
        with pytest.raises(LookupError, match="a defect"):
            grid.send_and_receive(messages(grid))


def test_replies_are_pulled_once_and_unknown_ids_are_said_to_be_gone():
    with InProcessGrid(partition, 3) as grid:
        ids = grid.push_messages(messages(grid))
        assert len(grid.pull_messages(ids[:2])) == 2
        replies = grid.pull_messages([*ids, "never"])
    by_id = {reply.metadata.reply_to_message_id: reply for reply in replies}
    assert metrics(by_id[ids[2]]) == {"partition": 2}
    gone = [by_id[name] for name in (ids[0], ids[1], "never")]
    assert [reply.error.code for reply in gone] == [3, 3, 3]
    assert {reply.metadata.message_type for reply in gone} == {"system"}


def test_a_reply_that_is_not_there_yet_is_pulled_later(monkeypatch):
    monkeypatch.setattr(grid_module, "PULL_SECONDS", 0.0)
    gate = threading.Event()

    def waiting(message, context):
        gate.wait(60)
        return partition(message, context)

    with InProcessGrid(waiting, 2) as grid:
        ids = grid.push_messages(messages(grid))
        assert grid.pull_messages(ids) == []
        gate.set()
        monkeypatch.setattr(grid_module, "PULL_SECONDS", 60.0)
        assert [metrics(reply)["partition"] for reply in grid.pull_messages(ids)] == [0, 1]


def test_after_a_timeout_there_is_what_was_ready_and_the_rest_can_be_pulled(monkeypatch):
    gate = threading.Event()

    def slow(message, context):
        if context.node_config["partition-id"] == 1:
            gate.wait(60)
        return partition(message, context)

    with InProcessGrid(slow, 3) as grid:
        asked = messages(grid)
        replies = grid.send_and_receive(asked, timeout=0.3)
        assert [metrics(reply)["partition"] for reply in replies] == [0]
        gate.set()
        monkeypatch.setattr(grid_module, "PULL_SECONDS", 60.0)
        rest = grid.pull_messages([message.metadata.message_id for message in asked[1:]])
        assert [metrics(reply)["partition"] for reply in rest] == [1, 2]
        assert grid.send_and_receive(messages(grid), timeout=0) == []


def test_an_expired_message_is_gone_and_never_reaches_its_node():
    reached = []

    def slow(message, context):
        reached.append(context.node_config["partition-id"])
        time.sleep(0.3)
        return partition(message, context)

    with InProcessGrid(slow, 2) as grid:
        replies = grid.send_and_receive(messages(grid, ttl=0.1))
        time.sleep(0.4)
    assert [reply.error.code for reply in replies] == [3, 3]
    assert reached == [0]


def test_messages_that_cannot_be_sent():
    with InProcessGrid(partition, 2) as grid:
        node = grid.get_node_ids()[0]
        good = Message(content(), node, "query")
        assert len(grid.push_messages([Message(content(), 5, "query"), good])) == 1
        with pytest.raises(ValueError, match="Invalid message"):
            grid.push_messages([answer(good, a=1)])
        with pytest.raises(RuntimeError, match="Cannot find the run"):
            grid.set_run(type("Other", (), {"run_id": 1})())
        grid.set_run(grid.run)
        assert grid.create_message(content(), "train", node, "4").metadata.group_id == "4"


def test_one_thread_at_a_time_touches_a_node_and_several_work_at_once():
    busy, most, lock = {}, [0, 0], threading.Lock()
    two = threading.Barrier(2, timeout=60)

    def watched(message, context):
        node = context.node_id
        with lock:
            busy[node] = busy.get(node, 0) + 1
            most[0] = max(most[0], busy[node])
            most[1] = max(most[1], sum(busy.values()))
        two.wait()  # passes only if two clients are at work side by side
        with lock:
            busy[node] -= 1
        return partition(message, context)

    with InProcessGrid(watched, 2, workers=2) as grid:
        replies = grid.send_and_receive(
            Message(content(), node, "train") for _ in range(10) for node in grid.get_node_ids()
        )
    assert all(reply.has_content() for reply in replies)
    assert most == [1, 2]


def drawing(message, context):
    return answer(message, python=random.random(), numpy=float(np.random.rand()))


def draws(seed, order):
    """What each node draws in two rounds, by partition, and what the server draws after."""
    random.seed(1)
    np.random.seed(1)
    found = {}
    with InProcessGrid(drawing, 4, seed=seed) as grid:
        nodes = grid.get_node_ids()
        for turn in range(2):
            replies = grid.send_and_receive(Message(content(), nodes[i], "train") for i in order)
            found |= {(turn, i): metrics(r) for i, r in zip(order, replies, strict=True)}
    return found, (random.random(), float(np.random.rand()))


def test_clients_draw_from_seeded_global_generators_and_the_server_does_not_notice():
    first, server = draws(5, [0, 1, 2, 3])
    assert draws(5, [3, 1, 0, 2]) == (first, server)
    other, _ = draws(6, [0, 1, 2, 3])
    values = [tuple(each.values()) for found in (first, other) for each in found.values()]
    assert len(set(values)) == 16
    random.seed(1)
    np.random.seed(1)
    assert server == (random.random(), float(np.random.rand()))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_hangs_keeps_nobody_else_from_working(monkeypatch, workers):
    gate, hanging = threading.Event(), range(workers)

    def sticky(message, context):
        if context.node_config["partition-id"] in hanging:
            gate.wait(60)
        return counting(message, context)

    random.seed(1)
    with InProcessGrid(sticky, 5, workers=workers) as grid:
        nodes = grid.get_node_ids()
        first = messages(grid)
        assert grid.send_and_receive(first, timeout=0.2) == []
        (reply,) = grid.send_and_receive([Message(content(), nodes[4], "train")], timeout=60)
        assert metrics(reply)["n"] == 2  # the first round's message came before
        others = Message(content(), nodes[0], "train"), Message(content(), nodes[3], "train")
        assert len(grid.send_and_receive(others, timeout=0.2)) == 1
        gate.set()
        monkeypatch.setattr(grid_module, "PULL_SECONDS", 60.0)
        late = grid.pull_messages([message.metadata.message_id for message in first])
        assert [metrics(reply)["n"] for reply in late] == [1] * 5
        assert len(grid.send_and_receive(messages(grid))) == 5
        assert not grid._stuck and not grid._running and not grid._busy
        assert len(grid._threads) == workers


def test_closing_does_not_wait_for_a_client_that_hangs():
    gate = threading.Event()
    try:
        with InProcessGrid(lambda *_: gate.wait(), 2) as grid:
            assert grid.send_and_receive(messages(grid), timeout=0.05) == []
            started = time.monotonic()
        assert time.monotonic() - started < 30
    finally:
        gate.set()


def test_many_messages_cost_little_memory_and_none_is_lost():
    with InProcessGrid(partition, 1000, workers=3) as grid:
        for _ in range(3):
            replies = grid.send_and_receive(messages(grid))
            assert [metrics(reply)["partition"] for reply in replies] == list(range(1000))
        assert not grid._tasks and not grid._waiters and not grid._ready


def test_an_app_that_waits_for_more_nodes_than_there_are_is_told(monkeypatch):
    monkeypatch.setattr(grid_module, "LOOK_SECONDS", 0.05)
    with InProcessGrid(partition, 2) as grid:
        for _ in range(20):  # it may look as often as it likes while it works
            grid.get_node_ids()
            grid.send_and_receive(messages(grid))
            time.sleep(0.005)
        with pytest.raises(UsageError, match="more nodes than the 2 there are: --nodes"):
            wait_for_nodes(grid, 3)


def wait_for_nodes(grid, wanted):
    for _ in range(100):
        if len(grid.get_node_ids()) >= wanted:
            return
        time.sleep(0.01)
