"""Messages of a deployed grid, as far as that is not public: sent, and fetched part by part.

Each part's bytes are held once. Like `compat_nodes.py`; tested by
`tests/flower/test_compat_grid.py`.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast

from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedsys.flower import compat
from fedsys.flower.compat_nodes import TaskGone, unpacked

# --- messages to nodes -------------------------------------------------------------------------

AT_ONCE = 4
"""Parts of a message that are sent, or asked for, at a time."""


def push_message(grid: Any, message: Message) -> str:
    """Sends a message and gives its id; '' where the server does not take it.

    What the server has already, such as the same weights for another node, is not sent again. Each
    part is made into bytes when it is sent: Flower's own way makes all of them first.
    """
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.runtime_pb2 import PushAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    client, node, run_id = grid._runtime_client, grid.node, grid.run.run_id
    with no_object_id_recompute():
        name = message.object_id
        message.metadata.__dict__["_message_id"] = name
        parts: dict[str, Any] = {}
        tree = _tree(name, message, parts)
    head = message_to_proto(remove_content_from_message(message))
    given = client.PushMessages(
        PushAppMessagesRequest(messages_list=[head], message_object_trees=[tree])
    )
    session, wanted = given.session_id, set(given.objects_to_push)

    def push(part: str) -> None:
        request = PushObjectRequest(
            node=node,
            run_id=run_id,
            object_id=part,
            object_content=parts[part].deflate(),
            session_id=session,
        )
        if not client.PushObject(request).stored:
            raise ObjectPushError(part, run_id, session)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(push, [part for part in parts if part in wanted]):
            pass
    return next(iter(given.message_ids), "") or ""


def _tree(name: str, item: Any, parts: dict[str, Any]) -> Any:
    """What a message consists of, as Flower says it; `parts` gets id -> object, children first.

    A child's id is taken from its parent, which knows it: a piece of an array would work its own
    out anew, by hashing.
    """
    from flwr.proto.message_pb2 import ObjectTree

    children = [_tree(child, part, parts) for child, part in (item.children or {}).items()]
    parts[name] = item
    return ObjectTree(object_id=name, children=children)


# --- replies -------------------------------------------------------------------------------------

ROOM = 4 << 20
"""Bytes that a reply may have beyond its arrays: names, shapes, and what else it says."""
PART = 512
"""Bytes that a part takes at least, on the average of any honest reply with its `ROOM`."""
PATIENT = 2.0
"""Seconds that a piece of an array is waited for, whose message is there: two are sent at a time,
and the message is the last."""
AGAIN, LONGEST = 0.5, 30.0
"""Seconds after which a reply is fetched again where a piece did not come: doubled each time."""
_ARRAYS = 3
"""How deep in a message its arrays are; their pieces lie below: message, records, record, array."""


class Unfit(Exception):
    """A reply that is not fetched, or not to its end. code: of `compat.REFUSED`."""

    def __init__(self, code: int) -> None:
        super().__init__(compat.REFUSED[code])
        self.code = code


class _NotYet(Exception):
    """A part that is still on its way."""


@dataclass
class Coming:
    """A reply whose parts may still be on their way.

    question: the message that it answers. name: its own id. frame: ids of the parts that say what
    it is made of, its own first. pieces: ids of the pieces of its arrays. due, pause: when it is
    worth a look, and how much later the next time, in seconds of the monotonic clock.
    """

    question: str
    name: str
    frame: list[str]
    pieces: set[str]
    due: float = 0.0
    pause: float = field(default_factory=lambda: AGAIN)

    @property
    def least(self) -> int:
        """Bytes that it has at least: of an array's pieces all but the last are full."""
        from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as FULL

        full = max(0, len(self.pieces) - len(self.frame))
        return max(full * FULL, (len(self.frame) + len(self.pieces)) * PART - ROOM)


def claim_replies(grid: Any, questions: Sequence[str]) -> list[Coming]:
    """The replies to messages that are there, or begin to be: each is told once."""
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest

    request = PullAppMessagesRequest(message_ids=questions)
    given = grid._runtime_client.PullMessages(request)
    return [
        _coming(reply.metadata.reply_to_message_id, reply.metadata.message_id, tree)
        for reply, tree in zip(given.messages_list, given.message_object_trees, strict=True)
    ]


def _coming(question: str, name: str, tree: Any) -> Coming:
    frame, pieces, level = dict[str, None](), set[str](), [tree]
    for _ in range(_ARRAYS + 1):
        frame.update((part.object_id, None) for part in level)
        level = [child for part in level for child in part.children]
    while level:  # what lies still deeper is no message, and is counted
        pieces.update(part.object_id for part in level)
        level = [child for part in level for child in part.children]
    return Coming(question, name, list(frame), pieces)


def fetch_reply(grid: Any, coming: Coming, limit: int) -> tuple[Message, int] | None:
    """The reply and its bytes if all of it is there, else None; nothing is kept until then.

    limit: bytes that it may have. Raises Unfit for one that has more, or is no message: of what is
    too large no more is fetched than that. Raises TaskGone where a part will never come. Either
    way `forget_reply` is the caller's. Flower's own way waits for parts that are missing, however
    long, takes any size, and holds three copies of an array at the end.
    """
    if time.monotonic() < coming.due:
        return None
    if coming.least > limit:
        raise Unfit(compat.TOO_LARGE)
    fetch = _Fetch(grid, coming, limit)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            message = fetch.message(pool)
    except _NotYet:
        if fetch.begun:
            coming.due = time.monotonic() + coming.pause
            coming.pause = min(LONGEST, 2 * coming.pause)
        return None
    forget_reply(grid, coming)
    return message, fetch.taken


def forget_reply(grid: Any, coming: Coming) -> None:
    """Lets the server delete a reply, and what of it is still to come."""
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest

    grid._runtime_client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(
            node=grid.node, run_id=grid.run.run_id, message_object_id=coming.name
        )
    )


class _Fetch:
    """A reply that is being fetched: first what says how it is made, then the pieces of its arrays,
    each to its place. taken: bytes so far. begun: whether the pieces are being fetched."""

    def __init__(self, grid: Any, coming: Coming, limit: int) -> None:
        self._client, self._node, self._run_id = grid._runtime_client, grid.node, grid.run.run_id
        self._coming, self._limit = coming, limit
        self._lock = Lock()
        self.taken = 0
        self.begun = False

    def message(self, pool: ThreadPoolExecutor) -> Message:
        """All of it. Raises _NotYet, TaskGone and Unfit."""
        names = self._coming.frame
        contents = dict(zip(names, pool.map(self._part, names), strict=True))
        if self.taken > ROOM + PART * len(names):
            raise Unfit(compat.TOO_LARGE)
        self.begun = True
        try:
            arrays, order = self._arrays(contents)
        except Exception:  # a stranger's bytes, read by Flower's code, may raise anything
            raise Unfit(compat.MALFORMED) from None
        self._fill(pool, order)
        try:
            return self._inflated(contents, arrays)
        except Exception:
            raise Unfit(compat.MALFORMED) from None

    def _part(self, name: str, patience: float = 0.0) -> bytes:
        """A part as it travels. Raises _NotYet after `patience` seconds, TaskGone and Unfit."""
        from flwr.proto.message_pb2 import PullObjectRequest

        request = PullObjectRequest(node=self._node, run_id=self._run_id, object_id=name)
        end = time.monotonic() + patience
        while True:
            given = self._client.PullObject(request)
            if not given.object_found:
                raise TaskGone("a part of the reply is gone")
            if given.object_available:
                break
            if time.monotonic() >= end:
                raise _NotYet
            time.sleep(0.02)
        content: bytes = given.object_content
        with self._lock:
            self.taken += len(content)
            if self.taken > self._limit:
                raise Unfit(compat.TOO_LARGE)
        return content

    def _arrays(
        self, contents: dict[str, bytes]
    ) -> tuple[dict[str, Array], list[tuple[bytearray, str]]]:
        """The arrays by id, still empty, and what comes in which of them, one after another."""
        arrays: dict[str, Array] = {}
        order: list[tuple[bytearray, str]] = []
        for name, content in contents.items():
            kind, children, body = _read(content)
            if kind != "Array":
                continue
            said = json.loads(bytes(body))
            array = Array(said["dtype"], tuple(said["shape"]), said["stype"], b"")
            array.data = place = bytearray()  # type: ignore[assignment]  # nobody changes it
            arrays[name] = array
            pieces = [children[number] for number in said["arraychunk_ids"]]
            if not self._coming.pieces.issuperset(pieces):
                raise ValueError("a piece that the reply did not announce")
            order += [(place, piece) for piece in pieces]
        if len(order) > self._limit // PART:
            raise ValueError("pieces without bytes")
        return arrays, order

    def _piece(self, name: str) -> memoryview:
        """A piece's bytes."""
        content = self._part(name, PATIENT)
        try:
            return _read(content)[2]
        except ValueError:
            raise Unfit(compat.MALFORMED) from None

    def _fill(self, pool: ThreadPoolExecutor, order: list[tuple[bytearray, str]]) -> None:
        """Fetches the pieces, a few ahead of the one whose turn it is."""

        ahead: deque[Future[memoryview]] = deque()
        try:
            for number, (place, _) in enumerate(order):
                for _, piece in order[number + len(ahead) : number + AT_ONCE]:
                    ahead.append(pool.submit(self._piece, piece))
                place += ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _inflated(self, contents: dict[str, bytes], made: dict[str, Any]) -> Message:
        """The message out of its parts. made: those that are made already, by id."""
        from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry

        def inflated(name: str) -> Any:
            if name not in made:
                kind, children, body = _read(contents[name])
                parts = {child: inflated(child) for child in children}
                if kind == "ArrayRecord":
                    made[name] = record = ArrayRecord()  # Flower's own way makes the arrays anew
                    for key, array in json.loads(bytes(body)).items():
                        record[key] = parts[array]
                else:
                    made[name] = inflatable_class_registry[kind].inflate(contents[name], parts)
            return made[name]

        message = inflated(self._coming.name)
        if message.has_content():
            if not isinstance(message.content, RecordDict):
                raise ValueError("a message without records")
            message.content = unpacked(message.content)
        said = message.metadata.__dict__
        said["_message_id"], said["_reply_to_message_id"] = self._coming.name, self._coming.question
        return cast(Message, message)


def _read(content: bytes) -> tuple[str, list[str], memoryview]:
    """What a part is, the ids of its children, and its body."""
    from flwr.supercore.inflatable.inflatable_object import (
        get_object_head_values_from_object_content as head,
    )

    kind, children, size = head(content)
    return kind, children, memoryview(content)[len(content) - size :]


def push_was_cut(error: Exception) -> bool:
    """Whether the server was started again while a message was on its way to it: what there is
    of the message is never completed."""
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    return isinstance(error, ObjectPushError)
