"""The coordinator's end of Flower's runtime: the grid of a deployed federation.

    with DeployedGrid(access, told) as grid:
        engine = GridEngine(grid, ..., node_of=grid.node_of(nodes))

Flower would start a process for each run, from an app that came over the wire. Here it is a process
that stays, of the fedsys that is installed: it claims the task of a run that holds no code. The
bank's end is `answering.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid

from fedsys.errors import EngineError
from fedsys.flower import compat, compat_grid, compat_messages, compat_nodes
from fedsys.flower.processes.access import Access
from fedsys.flower.processes.bundle import bundle
from fedsys.flower.processes.memory import give_back
from fedsys.flower.processes.quota import allowance
from fedsys.flower.rounds.mail import NodeOf
from fedsys.storage import write_atomic

NODES_SECONDS = 0.5
"""How long what the server says of its nodes is believed."""
PULL_SECONDS = 0.05
SMALL_REPLY = 16 << 20
"""Bytes of a reply to a message of which nobody said how large that can be."""
HELD = 4 << 20
"""Bytes of replies that are given at once; one reply may have more."""


@dataclass(frozen=True)
class _Sent:
    """A message to which there is no reply yet. node: whom it went to. since: when that node was
    started last; starts: how often the server was. limit: bytes that the reply may have."""

    node: int
    since: str
    starts: int
    limit: int


class DeployedGrid(Grid):
    """A grid of real nodes, over a SuperLink. Use it in a `with`; one at a time in a process.

    Messages to a node that was started again since are reported as lost, at once, and so are all
    where the server was: it may have been killed while a node fetched its message. Where the run
    itself was lost, because the server was away for long, a new one is begun.
    told: hears of a new run. starts: how often the server was started. note: a file that keeps the
    run's id, so that a coordinator that was killed ends its last run when it begins the next.
    check: is called now and then while messages are under way, with the bytes that replies may
    still bring to the server; may raise to end that.
    """

    def __init__(
        self,
        access: Access,
        told: Callable[[str], None] = lambda line: None,
        starts: Callable[[], int] = lambda: 1,
        note: Path | None = None,
        check: Callable[[int], None] = lambda coming: None,
    ) -> None:
        self._access, self._told, self._starts, self._note = access, told, starts, note
        self._check, self._expected = check, 0
        self._grid: Any = None
        self._coming: dict[str, compat_messages.Coming] = {}
        self._sent: dict[str, _Sent] = {}
        self._unwanted: set[str] = set()
        self._rejected: list[compat_messages.Coming] = []
        self._limit = SMALL_REPLY
        self._nodes: dict[int, Any] = {}
        self._seen = float("-inf")
        self._closing = threading.Event()
        self._beating: threading.Thread | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> DeployedGrid:
        give_back()
        self._begin()
        self._beating = threading.Thread(target=self._beat, name="run's heartbeat", daemon=True)
        self._beating.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        if self._beating is not None:
            self._beating.join()
        self._end()

    def node_of(self, nodes: Mapping[int, int]) -> NodeOf:
        """Client -> its node, while that is online. nodes: client -> node id."""

        def found(client: int) -> int | None:
            node = nodes.get(client)
            return node if node in self._online() else None

        return found

    # --- what Flower's grids have ----------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """The run is our own."""

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Of the nodes that are online."""
        return list(self._online())

    def get_nodes(self) -> list[Any]:
        return list(self._online().values())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages and returns their ids: '' for one that could not be sent."""
        messages = list(messages)
        for message in messages:
            message.content = compat_nodes.packed(message.content)
        since, starts = self._online(), self._starts()
        try:
            ids = [compat_messages.push_message(self._grid, message) for message in messages]
        except Exception as error:
            self._lost_run(error)
            return [""] * len(messages)
        for name, message in zip(ids, messages, strict=True):
            if name:
                node = message.metadata.dst_node_id
                self._sent[name] = _Sent(node, _since(since.get(node)), starts, self._limit)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that are there, and errors for messages that nobody will answer.

        Of large replies only one at a time, so that no more is held, however many there are.
        """
        wanted = [name for name in message_ids if name]
        known = [name for name in wanted if name in self._sent]
        lost = [name for name in wanted if name not in self._sent]
        replies: list[Message] = []
        try:
            fresh = [name for name in known if name not in self._coming]
            for coming in compat_messages.claim_replies(self._grid, fresh) if fresh else ():
                self._coming[coming.question] = coming
            held = 0
            for name in known:
                reply, size = self._fetched(name)
                if reply is not None:
                    self._forget(name)
                    replies.append(reply)
                held += size
                if held >= HELD:
                    break
        except Exception as error:
            self._lost_run(error)
            return [*replies, *(_lost(name) for name in wanted if not _answered(name, replies))]
        online, starts = self._online(), self._starts()
        for name in known:
            sent = self._sent.get(name)
            if sent is None:
                continue
            again = sent.node in online and _since(online[sent.node]) != sent.since
            if again or sent.starts != starts:
                self._forget(name)
                self._unwanted.add(name)
                lost.append(name)
        return [*replies, *(_lost(name) for name in lost)]

    def expect(self, reply_bytes: int) -> None:
        """Says how large the replies to the messages that follow can be. A larger one is not
        fetched: it comes as an error."""
        self._expected = reply_bytes
        self._limit = reply_bytes + compat_messages.ROOM

    def drop(self, message_ids: Iterable[str]) -> None:
        """Says that nobody waits for replies to these messages. The server deletes those that are
        there; others when this is called the next time, and so where it is away now."""
        for name in message_ids:
            coming = self._coming.get(name)
            self._forget(name)
            if coming is not None:
                self._rejected.append(coming)
            elif name:
                self._unwanted.add(name)
        if self._grid is not None:
            with compat_grid.asked_once(self._grid):
                self._delete()

    def _delete(self) -> None:
        """Has the server delete what of replies that nobody wants is there."""
        try:
            if self._unwanted:
                for coming in compat_messages.claim_replies(self._grid, list(self._unwanted)):
                    self._unwanted.discard(coming.question)
                    self._rejected.append(coming)
            while self._rejected:
                compat_messages.forget_reply(self._grid, self._rejected[-1])
                self._rejected.pop()
        except Exception as error:
            if not compat_nodes.is_away(error):
                raise

    def _fetched(self, name: str) -> tuple[Message | None, int]:
        """The reply to a message, if all of it is there, and its bytes."""
        coming = self._coming.get(name)
        if coming is None:
            return None, 0
        try:
            fetched = compat_messages.fetch_reply(self._grid, coming, self._sent[name].limit)
        except compat_nodes.TaskGone:
            return _lost(name), 0
        except compat_messages.Unfit as unfit:
            self._rejected.append(coming)
            self._delete()
            return _error(name, unfit.code, str(unfit)), HELD
        return fetched or (None, 0)

    def _forget(self, name: str) -> None:
        self._sent.pop(name, None)
        self._coming.pop(name, None)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        missing = {name for name in self.push_messages(messages) if name}
        replies: list[Message] = []
        while missing and (end is None or time.monotonic() < end):
            found = self.pull_messages(missing)
            replies += found
            missing -= {reply.metadata.reply_to_message_id for reply in found}
            if missing:
                time.sleep(PULL_SECONDS)
        return replies

    # --- the run ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        access = self._access
        with access.control() as control:
            self._end_last(control)
            run_id = compat_grid.start_run(control, bundle())
        if self._note is not None:
            write_atomic(self._note, [str(run_id).encode()])
        grid = compat_grid.claimed_grid(
            access.address,
            access.authority,
            access.headers,
            access.executor,
            run_id,
            self._allowed,
        )
        if grid is None:
            raise EngineError(
                f"{access.address}: another process claimed the run: is a second coordinator "
                "of this federation running?"
            )
        self._grid = grid

    def _allowed(self, node: int) -> str:
        """What a question to a node says of its answer."""
        known = self._nodes.get(node)
        return allowance(self._limit, known.public_key) if known is not None else ""

    def _end_last(self, control: Any) -> None:
        """Ends the run before this one: nodes may wait for a message that nobody completes."""
        try:
            last = int(self._note.read_text("ascii")) if self._note is not None else None
        except (OSError, ValueError):
            return
        if last is not None:
            _stopped(control, last)

    def _end(self) -> None:
        grid, self._grid = self._grid, None
        if grid is None:
            return
        with self._access.control() as control:
            _stopped(control, grid.run.run_id)
        grid.close()

    def _lost_run(self, error: Exception) -> None:
        """Begins a new run where the old one is over or spoiled; raises all other errors."""
        if not (compat_grid.run_is_over(error) or compat_messages.push_was_cut(error)):
            self._check_room()
            raise error
        self._told("the server lost the run in between; going on with a new one")
        with self._lock:
            self._sent.clear()
            self._coming.clear()
            self._unwanted.clear()
            self._rejected.clear()
            self._end()
            self._begin()

    def _check_room(self) -> None:
        self._check(self._expected * (1 + len(self._sent)))

    def _beat(self) -> None:
        while not self._closing.wait(compat_nodes.BEAT_SECONDS):
            with self._lock:
                try:
                    compat_nodes.beat(self._grid._runtime_client)
                except Exception as error:
                    if not compat_nodes.is_away(error):
                        raise

    def _online(self) -> dict[int, Any]:
        """Node id -> what the server says of it."""
        if time.monotonic() - self._seen > NODES_SECONDS:
            self._check_room()
            try:
                self._nodes = {node.node_id: node for node in self._grid.get_nodes()}
            except Exception as error:
                self._lost_run(error)
                self._nodes = {}
            self._seen = time.monotonic()
        return self._nodes


def _stopped(control: Any, run_id: int) -> None:
    """Ends a run, if it is there and has not ended."""
    try:
        compat_grid.stop_run(control, run_id)
    except Exception as error:  # the server may be gone, which ends the run as well
        if not compat_nodes.is_away(error):
            raise


def _answered(name: str, replies: list[Message]) -> bool:
    return any(reply.metadata.reply_to_message_id == name for reply in replies)


def _since(node: Any) -> str:
    """When a node was started last; '' for one that is not there."""
    return "" if node is None else str(node.last_activated_at)


def _lost(name: str) -> Message:
    """Says that nobody will answer a message."""
    return _error(name, compat.NODE_AWAY, "its node or the server was started again")


def _error(name: str, code: int, text: str) -> Message:
    """An error in place of the reply to a message."""
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=compat.SERVER_NODE,
        dst_node_id=compat.SERVER_NODE,
        reply_to_message_id=name,
        group_id="",
        created_at=time.time(),
        ttl=1.0,
        message_type=compat.SYSTEM_MESSAGE,
    )
    return compat.built_message(metadata, error=Error(code, text))
