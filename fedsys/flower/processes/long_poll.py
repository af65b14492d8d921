"""Long polling: a node that asks for messages is answered when there is one, and not before.

Flower's nodes ask again and again. Each time is a signature to check and a look into the database,
so many nodes that ask often slow down the round that they wait for, and nodes that ask seldom begin
late. Here a question waits at the server for a while: the coordinator's next message to that node
ends the wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from fedsys.flower.processes.asgi import (
    NODE,
    App,
    Receive,
    Scope,
    Send,
    again,
    header,
    key_of,
    whole,
)
from fedsys.flower.processes.quota import HEADER, QUESTION

ASKED = "/v1/fleet/pull-messages"
SECONDS = 1.0
"""How long a node waits: as long as a server that is asked to end waits for its nodes, too."""


@dataclass
class _Mailbox:
    """Of one node. left: how many messages it may find, at most. came: set when one more does."""

    left: int = 1
    came: asyncio.Event = field(default_factory=asyncio.Event)


class LongPoll:
    """An ASGI middleware; stands behind the guard, which knows who asks. seconds: see `SECONDS`.

    A node's first question is not held up: what lies there is from before this server was started.
    """

    def __init__(self, app: App, seconds: float = SECONDS) -> None:
        self._app, self._seconds = app, seconds
        self._mailboxes: defaultdict[bytes, _Mailbox] = defaultdict(_Mailbox)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == ASKED:
            body = await whole(receive)
            if body is None or not await self._wait(key_of(header(scope, NODE)), receive):
                return
            receive = again(body, receive)
        await self._app(scope, receive, send)
        if path == QUESTION:
            self._tell(key_of(header(scope, HEADER).partition(b" ")[2]))

    def _tell(self, key: bytes) -> None:
        mailbox = self._mailboxes[key]
        mailbox.left += 1
        mailbox.came.set()

    async def _wait(self, key: bytes, receive: Receive) -> bool:
        """Until there may be a message, or long enough. False where the node went away: what it
        were given now would be lost."""
        mailbox = self._mailboxes[key]
        if not mailbox.left:
            mailbox.came.clear()
            came = asyncio.ensure_future(mailbox.came.wait())
            gone = asyncio.ensure_future(receive())
            try:
                await asyncio.wait(
                    (came, gone), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                there = not gone.done()
                came.cancel()
                gone.cancel()
            if not there:
                return False
        mailbox.left = max(0, mailbox.left - 1)
        return True
