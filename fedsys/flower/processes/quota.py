"""How much a node may send to Flower's server: what the coordinator's questions to it call for.

Flower keeps what a node sends in the file of its state, piece by piece, and looks at nothing but
the pieces' hashes. So each question of the coordinator says, in a header, which node it is for and
how large an answer can be; a node that sends more than twice that is told to stop.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-fedsys-answer"
"""Of a question: BYTES KEY, where KEY is the node's public key as in Flower's own header."""
NODE = "flwr-public-key"
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
            self._allow(_header(scope, HEADER))
        elif path in ANSWER:
            body = await _whole(receive)
            if body is None:
                return
            if not self._take(_key(_header(scope, NODE)), len(body)):
                await _refuse(send)
                return
            receive = _again(body, receive)
        await self._app(scope, receive, send)

    def _allow(self, said: bytes) -> None:
        """Twice what an answer can have, and what is left of one question before it."""
        size, _, key = said.partition(b" ")
        if size.isdigit():
            more, name = 2 * int(size), _key(key)
            self._left[name] = min(2 * more, self._left.get(name, 0) + more)

    def _take(self, key: bytes, size: int) -> bool:
        """Whether a node may send so much more."""
        left = self._left.get(key, self._spare)
        if size <= left:
            self._left[key] = left - size
        return size <= left


def _header(scope: Scope, name: str) -> bytes:
    return next((value for key, value in scope["headers"] if key == name.encode()), b"")


def _key(text: bytes) -> bytes:
    """A key out of its header: one that is spelt in another way is the same."""
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""


async def _whole(receive: Receive) -> bytes | None:
    """A body, which the guard has bounded; None where its sender went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was received, then what comes after it."""
    waiting: list[MutableMapping[str, Any]]
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"more than an answer can have"})
