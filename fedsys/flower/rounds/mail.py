"""Messages to some clients over any grid of Flower's, and their replies as they come.

A grid knows nodes; a client's node may be away and come back, and a message may get lost. Replies
are asked for in short steps that grow while nothing comes, where Flower's own loop sleeps for three
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsys.admission import Reason
from fedsys.checks import above, at_least, at_most
from fedsys.errors import EngineError, FedsysError
from fedsys.flower import compat

FIRST = 1e-3
"""Seconds between the first two times that replies are asked for."""

GROWTH = 1.5
"""How much longer each pause is than the one before, while nothing comes."""

RETRY = 1.0
"""Seconds before a message is sent again to a node that was away."""

PULLED = 2**28
"""Bytes of replies that are asked for at once."""

GRACE = 30.0
"""Seconds that the others have at least, once enough have answered: a bank's process that was
killed is back in less."""

LINGER = 5.0
"""Seconds that a message outlives the deadline, so that what is left of it can be dropped."""

NodeOf = Callable[[int], int | None]
"""Client -> the node where it is now, or None while it is nowhere."""


@dataclass(frozen=True)
class Waiting:
    """How long a round waits for its clients.

    deadline: seconds. Until then, a client that is away is waited for, and sent its message when
        it comes back; later answers are too late. None waits for all that are there, however long
        they take, and not for those that are away.
    enough, grace: once this part of the clients has answered, the others have `grace` seconds left;
        None is as long again as those took, and GRACE at least: one that takes up to twice as long
        is slow, and no longer away.
    again: a client that is silent for so many seconds is sent its message once more: a node that
        was killed has lost the first. None is never.
    poll: the longest pause between two looks for replies, in seconds.
    """

    deadline: float | None = None
    enough: float = 1.0
    grace: float | None = 0.0
    again: float | None = None
    poll: float = 0.25

    def __post_init__(self) -> None:
        above(0, deadline=self.deadline, enough=self.enough, again=self.again, poll=self.poll)
        at_most(1, enough=self.enough)
        at_least(0, grace=self.grace)

    def end(self, enough_at: float | None) -> float:
        """When nobody is waited for any longer. enough_at: when enough had answered, or None."""
        ends = [float("inf") if self.deadline is None else self.deadline]
        if enough_at is not None:
            ends.append(enough_at + (max(GRACE, enough_at) if self.grace is None else self.grace))
        return min(ends)


@dataclass(frozen=True)
class Lost:
    """No answer. text: what Flower says of it, which may hold a client's own words."""

    reason: Reason
    detail: str
    text: str = ""


@runtime_checkable
class Remote(Protocol):
    """What a grid is told whose replies come from strangers, and lie on a server until then."""

    def expect(self, reply_bytes: int) -> None:
        """How large the replies to the messages that follow can be; a larger one is an error."""

    def drop(self, message_ids: Iterable[str]) -> None:
        """That nobody waits for replies to these messages any longer."""


@dataclass
class _Letter:
    """What is known of the message to one client. sent, due: seconds since the beginning."""

    due: float = 0.0
    sent: float | None = None
    trouble: Lost = Lost(Reason.LOST, "its node is away")
    ids: set[str] = field(default_factory=set)


def exchange(
    grid: Grid,
    clients: Sequence[int],
    content: Callable[[int], RecordDict],
    node_of: NodeOf,
    *,
    round: int,
    reply_bytes: int,
    waiting: Waiting,
    enough: Callable[[], bool] | None = None,
    away: Collection[int] = (),
) -> Iterator[tuple[int, RecordDict | Lost]]:
    """Sends each client its content, and yields the answers as they come, one a client.

    reply_bytes: how large an answer can be; with large ones, few are asked for at a time. An answer
    is not held here once it is given: who lets go of it holds one at a time.
    enough: whether enough have answered, where that is more than a count of answers. away: clients
    that were away before: once enough have answered, those that still are get no grace.
    Raises EngineError where the grid itself fails.
    """
    began = time.monotonic()
    letters = {int(client): _Letter() for client in clients}
    everyone = list(letters.values())
    remote = grid if isinstance(grid, Remote) else None
    window, pause, answers = max(1, PULLED // max(1, reply_bytes)), FIRST, 0
    enough_at: float | None = None

    def part() -> bool:
        return answers >= waiting.enough * len(clients)

    if remote is not None:
        remote.expect(reply_bytes)
    try:
        while letters:
            now = time.monotonic() - began
            for client, letter in list(letters.items()):
                _send(grid, client, letter, content, node_of, round, waiting, now)
                if waiting.deadline is None and not letter.ids:
                    yield client, letters.pop(client).trouble
            heard = 0
            for client, outcome in _heard(
                grid, letters, window, waiting.deadline is not None, began
            ):
                del letters[client]
                heard += 1
                answers += not isinstance(outcome, Lost)
                yield client, outcome
                del outcome  # not held while the next is fetched
            now = time.monotonic() - began
            if enough_at is None and (enough or part)():
                enough_at = now
            end = waiting.end(enough_at)
            gone = enough_at is not None and all(
                client in away and node_of(client) is None for client in letters
            )
            if gone or now >= end:
                break
            pause = FIRST if heard else min(pause * GROWTH, waiting.poll)
            if letters:
                time.sleep(min(pause, end - now))
        for client, letter in letters.items():
            yield client, Lost(Reason.LATE, "no answer in time") if letter.ids else letter.trouble
    finally:
        if remote is not None:
            remote.drop([name for letter in everyone for name in letter.ids])


class Inquiry:
    """Messages that nobody waits for: their answers are looked for now and then, between rounds.

    reply_bytes: how large an answer can be.
    """

    def __init__(self, grid: Grid, reply_bytes: int) -> None:
        self._grid, self._reply_bytes = grid, reply_bytes
        self._letters: dict[int, _Letter] = {}
        self._began = time.monotonic()

    def look(
        self, clients: Sequence[int], content: Callable[[int], RecordDict], node_of: NodeOf
    ) -> list[tuple[int, RecordDict | Lost]]:
        """Sends each client its content once, and gives the answers that are there by now. Raises
        EngineError where the grid itself fails."""
        now = time.monotonic() - self._began
        if isinstance(self._grid, Remote):
            self._grid.expect(self._reply_bytes)
        for client in clients:
            if node_of(client) is not None:  # one that is away is looked for the next time
                letter = self._letters.setdefault(client, _Letter())
                _send(self._grid, client, letter, content, node_of, 1, Waiting(), now)
        window = max(1, len(self._letters))
        heard = list(_heard(self._grid, self._letters, window, True, self._began))
        for client, _ in heard:
            del self._letters[client]
        return heard


def _send(
    grid: Grid,
    client: int,
    letter: _Letter,
    content: Callable[[int], RecordDict],
    node_of: NodeOf,
    round: int,
    waiting: Waiting,
    now: float,
) -> None:
    """Sends a client its message, if it is due and there is a node to send it to."""
    silent = letter.sent is not None and waiting.again is not None
    if silent and now - float(letter.sent or 0) >= float(waiting.again or 0):
        letter.due = now
    if now < letter.due:
        return
    node = node_of(client)
    if node is None:
        letter.due = now + RETRY
        return
    left = None if waiting.deadline is None else max(1.0, waiting.deadline - now) + LINGER
    message = Message(content(client), node, MessageType.TRAIN, ttl=left, group_id=str(round))
    pushed = [name for name in _asked(partial(grid.push_messages, [message])) if name]
    if pushed:
        letter.ids.add(pushed[0])
        letter.sent, letter.due = now, float("inf")
    else:
        letter.trouble = Lost(Reason.LOST, "its message could not be sent")
        letter.due = now + RETRY


def _heard(
    grid: Grid, letters: dict[int, _Letter], window: int, retry: bool, began: float
) -> Iterator[tuple[int, RecordDict | Lost]]:
    """Asks for replies and yields those that are there, one a client.

    retry: whether a message that was lost is sent again instead of giving its client up.
    """
    ids = [name for letter in letters.values() for name in letter.ids]
    whose = {name: client for client, letter in letters.items() for name in letter.ids}
    for start in range(0, len(ids), window):
        asked = [name for name in ids[start : start + window] if whose[name] in letters]
        found = _asked(partial(grid.pull_messages, asked)) if asked else []
        found.reverse()
        while found:
            name = found[-1].metadata.reply_to_message_id
            outcome = _outcome(found.pop())
            client = whose.pop(name, None)
            if client is None or client not in letters:
                continue  # nobody asked, or it is a second answer
            letters[client].ids.discard(name)
            if isinstance(outcome, Lost) and outcome.reason is Reason.LOST and retry:
                letters[client].trouble = outcome
                if not letters[client].ids:
                    letters[client].due = time.monotonic() - began + RETRY
                continue
            yield client, outcome
            del outcome  # as above


def _outcome(message: Message) -> RecordDict | Lost:
    return message.content if message.has_content() else _lost(message)


def _lost(message: Message) -> Lost:
    """Why there is no answer. Flower's text may hold a client's own words: it is kept apart."""
    code = int(message.error.code)
    text = " ".join(str(message.error.reason).split())[:1000]
    if code in compat.LOST:
        return Lost(Reason.LOST, compat.LOST[code], text)
    if code in compat.REFUSED:
        return Lost(Reason.FORMAT, compat.REFUSED[code], text)
    return Lost(Reason.FAILED, compat.FAILED.get(code, f"Flower's error {code}"), text)


def _asked(call: Callable[[], Any]) -> list[Any]:
    """What the grid says, or EngineError where it fails."""
    try:
        return list(call())
    except FedsysError:
        raise
    except Exception as error:  # a grid's transport may raise anything
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"Flower's grid does not answer: {type(error).__name__}: {reason}"
        ) from error
