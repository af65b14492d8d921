"""Messages to some clients over any grid of Flower's, and their replies as they come.

A grid knows nodes; a client's node may be away and come back, and a message may get lost. Replies
are asked for in short steps that grow while nothing comes, where Flower's own loop sleeps for three
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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

NodeOf = Callable[[int], int | None]
"""Client -> the node where it is now, or None while it is nowhere."""


@dataclass(frozen=True)
class Waiting:
    """How long a round waits for its clients.

    deadline: seconds. Until then, a client that is away is waited for, and sent its message when
        it comes back; later answers are too late. None waits for all that are there, however long
        they take, and not for those that are away.
    enough, grace: once this part of the clients has answered, the others have `grace` seconds left.
    again: a client that is silent for so many seconds is sent its message once more: a node that
        was killed has lost the first. None is never.
    poll: the longest pause between two looks for replies, in seconds.
    """

    deadline: float | None = None
    enough: float = 1.0
    grace: float = 0.0
    again: float | None = None
    poll: float = 0.25

    def __post_init__(self) -> None:
        above(0, deadline=self.deadline, enough=self.enough, again=self.again, poll=self.poll)
        at_most(1, enough=self.enough)
        at_least(0, grace=self.grace)


@dataclass(frozen=True)
class Lost:
    """No answer. text: what Flower says of it, which may hold a client's own words."""

    reason: Reason
    detail: str
    text: str = ""


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
) -> Iterator[tuple[int, RecordDict | Lost]]:
    """Sends each client its content, and yields the answers as they come, one a client.

    reply_bytes: how large an answer is, about; with large ones, few are asked for at a time.
    Raises EngineError where the grid itself fails.
    """
    began = time.monotonic()
    letters = {int(client): _Letter() for client in clients}
    window, pause, answers = max(1, PULLED // max(1, reply_bytes)), FIRST, 0
    enough_at: float | None = None
    while letters:
        now = time.monotonic() - began
        for client, letter in list(letters.items()):
            _send(grid, client, letter, content, node_of, round, waiting, now)
            if waiting.deadline is None and not letter.ids:
                yield client, letters.pop(client).trouble
        heard = 0
        for client, outcome in _heard(grid, letters, window, waiting.deadline is not None, began):
            del letters[client]
            heard += 1
            answers += not isinstance(outcome, Lost)
            yield client, outcome
        now = time.monotonic() - began
        if enough_at is None and answers >= waiting.enough * len(clients):
            enough_at = now
        ends = [waiting.deadline] if waiting.deadline is not None else []
        ends += [enough_at + waiting.grace] if enough_at is not None else []
        if ends and now >= min(ends):
            break
        pause = FIRST if heard else min(pause * GROWTH, waiting.poll)
        if letters:
            time.sleep(min([pause, *(end - now for end in ends)]))
    for client, letter in letters.items():
        yield client, Lost(Reason.LATE, "no answer in time") if letter.ids else letter.trouble


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
    left = None if waiting.deadline is None else max(1.0, waiting.deadline - now)
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
        for message in _asked(partial(grid.pull_messages, asked)) if asked else ():
            name = message.metadata.reply_to_message_id
            client = whose.pop(name, None)
            if client is None or client not in letters:
                continue  # nobody asked, or it is a second answer
            letters[client].ids.discard(name)
            if message.has_content():
                yield client, message.content
                continue
            lost = _lost(message)
            if lost.reason is Reason.FAILED or not retry:
                yield client, lost
                continue
            letters[client].trouble = lost
            if not letters[client].ids:
                letters[client].due = time.monotonic() - began + RETRY


def _lost(message: Message) -> Lost:
    """Why there is no answer. Flower's text may hold a client's own words: it is kept apart."""
    code = int(message.error.code)
    text = " ".join(str(message.error.reason).split())[:1000]
    if code in compat.LOST:
        return Lost(Reason.LOST, compat.LOST[code], text)
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
