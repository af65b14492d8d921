"""Messages and replies, part by part: what goes over the line, what is held, what is refused.

The server is one in memory, of the four requests that matter; `test_runtime.py` has the real one.
"""

import gc
import json
import random
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)

from fedsys.flower import compat, compat_grid, compat_messages
from fedsys.flower.compat_messages import AT_ONCE, PART, ROOM, Unfit
from fedsys.flower.compat_nodes import TaskGone

RUN, QUESTION = 7, "q" * 64
MB = 1 << 20


class Server:
    """A grid and its server. contents: id -> bytes of what is there. announced: trees of replies.
    pulled, pushed, confirmed: ids, as they came."""

    def __init__(self):
        self.node, self.run = Node(node_id=1), SimpleNamespace(run_id=RUN)
        self._runtime_client = self
        self.contents, self.announced, self.gone = {}, [], set()
        self.pulled, self.pushed, self.confirmed = [], [], []

    def PullMessages(self, request):  # noqa: N802
        assert list(request.message_ids) == [QUESTION]
        messages, trees = zip(*self.announced, strict=True) if self.announced else ((), ())
        return PullAppMessagesResponse(messages_list=messages, message_object_trees=trees)

    def PullObject(self, request):  # noqa: N802
        name = request.object_id
        self.pulled.append(name)
        if name in self.gone:
            return PullObjectResponse(object_found=False)
        content = self.contents.get(name, b"")
        return PullObjectResponse(
            object_found=True, object_available=bool(content), object_content=content
        )

    def ConfirmMessageReceived(self, request):  # noqa: N802
        self.confirmed.append(request.message_object_id)

    def PushMessages(self, request):  # noqa: N802
        names = [one for tree in request.message_object_trees for one in ids(tree)]
        missing = [name for name in dict.fromkeys(names) if name not in self.contents]
        return PushAppMessagesResponse(
            message_ids=[message.metadata.message_id for message in request.messages_list],
            objects_to_push=missing,
            session_id="s",
        )

    def PushObject(self, request):  # noqa: N802
        assert get_object_id(request.object_content) == request.object_id
        assert request.object_id not in self.contents
        self.contents[request.object_id] = request.object_content
        self.pushed.append(request.object_id)
        return PushObjectResponse(stored=True)

    def announce(self, tree, name):
        """A reply that is made of this."""
        self.announced = [(message_to_proto(reply_of(RecordDict(), name)), tree)]
        [coming] = compat_messages.claim_replies(self, [QUESTION])
        return coming

    def reply(self, content, pushed=True):
        """A reply that a node sends, with all its parts where `pushed`."""
        message = reply_of(content)
        if pushed:
            parts = get_all_nested_objects(message)
            self.contents.update((name, part.deflate()) for name, part in parts.items())
        return self.announce(get_object_tree(message), message.object_id)


def ids(tree):
    return [one for child in tree.children for one in ids(child)] + [tree.object_id]


def reply_of(content, name=""):
    with compat.identity(RUN):
        question = Message(RecordDict(), 5, "train")
        compat.name_message(question, QUESTION)
        reply = Message(content, reply_to=question)
    compat.name_message(reply, name)
    return reply


def fetched(server, coming, limit=64 * MB):
    return compat_messages.fetch_reply(server, coming, limit)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(compat_messages, "PATIENT", 0.02)
    monkeypatch.setattr(compat_messages, "AGAIN", 0.0)


@pytest.fixture
def small_pieces(monkeypatch):
    """Arrays in pieces of 1,000 bytes."""
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1000)
    monkeypatch.setattr("flwr.common.constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1000)


def update(*vectors):
    arrays = {f"{number:03d}": Array(vector) for number, vector in enumerate(vectors)}
    return RecordDict({"update": ArrayRecord(arrays), "said": ConfigRecord({"round": 3})})


def numbers(count, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype("f4")


# --- replies that are right ----------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.integers(0, 3000).map(numbers),
            st.integers(0, 3000).map(lambda count: np.zeros(count, "f8")),
            st.just(np.array(2.5)),
        ),
        max_size=5,
    ),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=30)
def test_a_reply_arrives_as_it_was_sent(vectors, seed):
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        for place in ("flwr.app.message.array", "flwr.common.constant"):
            patched.setattr(f"{place}.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1000)
        server = Server()
        content = update(*vectors)
        content["more"] = MetricRecord({"loss": 0.5, "all": [1.0, float(seed)]})
        coming = server.reply(content)
        message, size = fetched(server, coming)
    assert list(message.content) == list(content)
    assert message.content["more"] == content["more"]
    for name, array in content["update"].items():
        np.testing.assert_array_equal(message.content["update"][name].numpy(), array.numpy())
    assert size >= max([vector.nbytes for vector in vectors], default=0)
    assert server.confirmed == [message.metadata.message_id] == [coming.name]


def test_an_error_arrives_as_one():
    server = Server()
    coming = server.reply(Error(3, "words"))
    message, _ = fetched(server, coming)
    assert (message.error.code, message.error.reason) == (3, "words")


def test_whatever_a_reply_says_it_answers_the_question_that_was_asked():
    server = Server()
    message = reply_of(update(numbers(3)))
    message.metadata.__dict__["_reply_to_message_id"] = "of another bank"
    parts = get_all_nested_objects(message)
    server.contents = {name: part.deflate() for name, part in parts.items()}
    got, _ = fetched(server, server.announce(get_object_tree(message), message.object_id))
    assert got.metadata.reply_to_message_id == QUESTION


def test_as_long_as_any_part_is_missing_nothing_is_held_or_confirmed(small_pieces):
    content = update(numbers(700), numbers(300, 1))
    server = Server()
    coming = server.reply(content)
    whole = dict(server.contents)
    for name in whole:
        server.contents = {part: whole[part] for part in whole if part != name}
        assert fetched(server, coming) is None
        assert not server.confirmed
    server.contents = whole
    assert fetched(server, coming) is not None


def test_a_reply_whose_message_is_not_there_yet_costs_a_look_at_few_parts(small_pieces):
    server = Server()
    coming = server.reply(update(numbers(50_000)), pushed=False)
    assert fetched(server, coming) is None
    assert len(server.pulled) <= AT_ONCE + 1


def test_one_whose_pieces_do_not_come_is_asked_for_less_and_less(small_pieces, monkeypatch):
    monkeypatch.setattr(compat_messages, "AGAIN", 0.1)
    server = Server()
    coming = server.reply(update(numbers(2000)))
    server.contents[next(iter(coming.pieces))] = b""
    assert fetched(server, coming) is None
    server.pulled.clear()
    assert fetched(server, coming) is None and not server.pulled, "not due"
    assert coming.pause == 0.2


def test_a_part_that_never_comes_is_said():
    server = Server()
    coming = server.reply(update(numbers(3)))
    server.gone = set(coming.pieces)
    with pytest.raises(TaskGone):
        fetched(server, coming)


# --- memory --------------------------------------------------------------------------------------


def test_the_numbers_of_a_reply_are_held_once():
    server = Server()
    vector = numbers(8_000_000)  # 32 MB in seven pieces
    coming = server.reply(update(vector))
    gc.collect()
    tracemalloc.start()
    message, _ = fetched(server, coming)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ahead = AT_ONCE * 2 * 5 * MB  # each as the answer to a request, and as bytes
    assert peak < 1.2 * vector.nbytes + ahead + MB
    data = message.content["update"]["000"].data
    np.testing.assert_array_equal(np.frombuffer(data, "f4", offset=128), vector)


def test_a_message_is_made_into_bytes_a_few_parts_at_a_time():
    server = Server()
    with compat.identity(RUN):
        message = Message(update(numbers(8_000_000)), 5, "train")
    before = dict.fromkeys(get_all_nested_objects(message), b"there")
    server.contents = dict(before)  # all but two pieces are there already
    for name in list(before)[:2]:
        del server.contents[name]
    gc.collect()
    tracemalloc.start()
    compat_messages.push_message(server, message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(server.pushed) == sorted(list(before)[:2])
    assert peak < 2 * 4 * 5 * MB


# --- messages ------------------------------------------------------------------------------------


def test_what_is_the_same_for_all_is_sent_once(small_pieces, monkeypatch):
    server = Server()
    weights = ArrayRecord({"anchor": Array(numbers(5000))})
    hashed = []
    monkeypatch.setattr(
        "flwr.supercore.inflatable.inflatable_object.get_object_id",
        lambda content: (hashed.append(len(content)), get_object_id(content))[1],
    )
    sent = []
    for client in range(3):
        content = RecordDict({"arrays": weights, "said": ConfigRecord({"client": client})})
        with compat.identity(RUN):
            message = Message(content, 5 + client, "train")
        server.pushed.clear()
        hashed.clear()
        name = compat_messages.push_message(server, message)
        sent.append((len(server.pushed), sum(one > 500 for one in hashed)))
        assert name == message.metadata.message_id and name in server.contents
    assert sent[0] > (22, 20)
    assert sent[1] == sent[2] == (3, 0), "its own three parts, and no piece is hashed again"


def test_what_was_sent_can_be_read_as_flower_reads_it():
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    server = Server()
    content = update(numbers(1000), numbers(3_000_000, 1))
    with compat.identity(RUN):
        message = Message(content, 5, "train")
    name = compat_messages.push_message(server, message)
    read = inflate_object_from_contents(name, dict(server.contents))
    assert read.content == content


def test_a_piece_that_the_server_does_not_take_is_a_push_that_was_cut():
    server = Server()
    server.PushObject = lambda request: PushObjectResponse(stored=False)
    with compat.identity(RUN):
        message = Message(update(numbers(3)), 5, "train")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        compat_messages.push_message(server, message)
    assert compat_messages.push_was_cut(raised.value)


def test_what_is_asked_once_is_not_asked_again_of_a_server_that_is_away():
    import httpx

    asked = []

    def away():
        asked.append(1)
        raise httpx.ConnectError("refused")

    grid = SimpleNamespace(_retry_invoker=compat_grid._Patient())
    with compat_grid.asked_once(grid), pytest.raises(httpx.ConnectError):
        grid._retry_invoker.invoke(away)
    assert len(asked) == 1

    def back():
        if len(asked) < 3:
            away()
        return "here"

    assert grid._retry_invoker.invoke(back) == "here"


# --- replies that are not right ------------------------------------------------------------------


def refused(server, coming, limit):
    """The code of the refusal, and how many bytes were fetched until then."""
    server.pulled.clear()
    with pytest.raises(Unfit) as raised:
        fetched(server, coming, limit)
    assert not server.confirmed
    return raised.value.code, sum(len(server.contents.get(name, b"")) for name in server.pulled)


def test_no_more_is_fetched_than_a_reply_may_have(small_pieces):
    server = Server()
    coming = server.reply(update(numbers(2 * MB)))
    limit = 3 * MB
    coming.frame += [f"{number:064d}" for number in range(9000)]  # so that it seems possible
    server.contents.update((name, b"x") for name in coming.frame if name not in server.contents)
    coming.frame = [name for name in coming.frame if server.contents[name] != b"x"]
    code, size = refused(server, coming, limit)
    assert code == compat.TOO_LARGE
    assert size <= limit + (AT_ONCE + 1) * 1100


def test_one_that_announces_more_than_it_may_have_is_not_fetched_at_all():
    server = Server()
    pieces = [ObjectTree(object_id=f"{number:064d}") for number in range(30)]
    tree = ObjectTree(object_id="m" * 64)
    place = tree
    for level in "rua":
        place = place.children.add(object_id=level * 64)
    place.children.extend(pieces)
    coming = server.announce(tree, "m" * 64)
    assert refused(server, coming, 64 * MB) == (compat.TOO_LARGE, 0)
    assert not server.pulled


def test_one_of_very_many_parts_is_not_fetched_at_all():
    server = Server()
    tree = ObjectTree(object_id="m" * 64)
    for number in range(2 * (ROOM + MB) // PART):
        tree.children.add(object_id=f"{number:064d}")
    coming = server.announce(tree, "m" * 64)
    assert refused(server, coming, MB) == (compat.TOO_LARGE, 0)
    assert not server.pulled


def test_a_piece_that_stands_for_many_is_counted_as_many():
    """A hundred bytes of JSON say that one piece of 1 MB comes ten thousand times."""
    server = Server()
    content = update(np.zeros(MB // 4, "f4"))
    coming = server.reply(content)
    [array] = [name for name, data in server.contents.items() if data.startswith(b"Array ")]
    head, body = server.contents[array].split(b"\0", 1)
    said = json.loads(body) | {"arraychunk_ids": [0] * 10_000}
    body = json.dumps(said).encode()
    kind, children, _ = head.split(b" ")
    server.contents[array] = b" ".join([kind, children, b"%d" % len(body)]) + b"\0" + body
    tracemalloc.start()
    code, size = refused(server, coming, 16 * MB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code == compat.TOO_LARGE and size <= (16 + AT_ONCE + 2) * MB
    assert peak < 64 * MB


def test_what_is_said_beside_the_arrays_has_a_bound_of_its_own():
    """Records become many times as large where they are read."""
    server = Server()
    content = update(numbers(3))
    content["said"] = ConfigRecord({"text": "x" * (ROOM + MB)})
    assert refused(server, server.reply(content), 64 * MB)[0] == compat.TOO_LARGE


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_parts_that_are_not_what_they_should_be_are_refused_and_nothing_else_happens(rng):
    server = Server()
    coming = server.reply(update(numbers(5), np.zeros(3)))
    names = list(server.contents)
    name = rng.choice(names)
    data = bytearray(server.contents[name])
    change = rng.choice(["other", "cut", "byte", "text", "kind"])
    if change == "other":
        data = bytearray(server.contents[rng.choice(names)])
    elif change == "cut":
        del data[rng.randrange(len(data)) :]
    elif change == "byte":
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif change == "text":
        at = data.find(b"\0") + 1
        data[at:] = rng.choice([b"[]", b"{}", b"7", b'{"a": 1}', b"\xff", b'{"dtype": []}'])
    else:
        kinds = [b"Message", b"RecordDict", b"ArrayRecord", b"Array", b"ConfigRecord", b"None"]
        data = bytearray(data.replace(data.split(b" ")[0], rng.choice(kinds), 1))
    server.contents[name] = bytes(data) or b"\0"
    with suppress(Unfit):
        got = fetched(server, coming)
        assert got is None or got[0].has_error() or isinstance(got[0].content, RecordDict)


def test_pieces_of_another_reply_are_not_fetched():
    server = Server()
    other = server.reply(update(numbers(5, 1)))
    [stolen] = other.pieces
    coming = server.reply(update(numbers(5)))
    [array] = [
        name
        for name, data in server.contents.items()
        if data.startswith(b"Array ") and name in coming.frame
    ]
    [own] = coming.pieces
    server.contents[array] = server.contents[array].replace(own.encode(), stolen.encode())
    assert refused(server, coming, 64 * MB)[0] == compat.MALFORMED
    assert stolen not in server.pulled


def test_a_chain_of_records_without_end_is_refused():
    server = Server()
    names = [f"{number:064d}" for number in range(3000)]
    tree = ObjectTree(object_id=names[0])
    for name in names[1:]:
        tree.children.add(object_id=name)
    for name, after in pairwise(names):
        body = json.dumps({"x": after}).encode()
        server.contents[name] = b"RecordDict %s %d\0" % (after.encode(), len(body)) + body
    server.contents[names[-1]] = b"RecordDict  2\0{}"
    coming = server.announce(tree, names[0])
    assert refused(server, coming, 64 * MB)[0] == compat.MALFORMED


def test_any_order_of_pieces_in_time_gives_the_same_reply(small_pieces):
    rng = random.Random(0)
    vector = numbers(5000)
    server = Server()
    coming = server.reply(update(vector))
    whole = dict(server.contents)
    late = [name for name in whole if name in coming.pieces]
    rng.shuffle(late)
    server.contents = {name: part for name, part in whole.items() if name not in late}
    for name in late:
        assert fetched(server, coming) is None
        server.contents[name] = whole[name]
    message, _ = fetched(server, coming)
    np.testing.assert_array_equal(message.content["update"]["000"].numpy(), vector)
