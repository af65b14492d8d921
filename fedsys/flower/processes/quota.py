"""How much a node may send to Flower's server: what the coordinator's questions to it call for.

Flower keeps what a node sends in the file of its state, piece by piece, and looks at nothing but
the pieces' hashes. So each question of the coordinator says, in a header, which node it is for and
how large an answer can be; a node that sends more than twice that is told to stop.
"""

from __future__ import annotations

import base64

from fedsys.flower.processes.asgi import (
    NODE,
    App,
    Receive,
    Scope,
    Send,
    again,
    answer,
    header,
    key_of,
    whole,
)

HEADER = "x-fedsys-answer"
"""Of a question: BYTES KEY, where KEY is the node's public key as in Flower's own header."""
QUESTION = "/v1/runtime/push-messages"
ANSWER = ("/v1/fleet/push-messages", "/v1/fleet/push-object")
SPARE = 16 << 20
"""Bytes of a node that no question has gone to since the server was started."""


def allowance(size: int, public_key: bytes) -> str:
    """The header's value. size: bytes that the answer can have. public_key: of the node, a PEM."""
    return f"{size} {base64.b64encode(public_key).decode()}"


class Quota:
    """An ASGI middleware; stands behind the guard, which knows who asks. spare: see `SPARE`."""

    def __init__(self, app: App, spare: int = SPARE) -> None:
        self._app, self._spare = app, spare
        self._left: dict[bytes, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == QUESTION:
            self._allow(header(scope, HEADER))
        elif path in ANSWER:
            body = await whole(receive)
            if body is None:
                return
            if not self._take(key_of(header(scope, NODE)), len(body)):
                await answer(send, 413, b"more than an answer can have")
                return
            receive = again(body, receive)
        await self._app(scope, receive, send)

    def _allow(self, said: bytes) -> None:
        """Twice what an answer can have, and what is left of one question before it."""
        size, _, key = said.partition(b" ")
        if size.isdigit():
            more, name = 2 * int(size), key_of(key)
            self._left[name] = min(2 * more, self._left.get(name, 0) + more)

    def _take(self, key: bytes, size: int) -> bool:
        """Whether a node may send so much more."""
        left = self._left.get(key, self._spare)
        if size <= left:
            self._left[key] = left - size
        return size <= left
