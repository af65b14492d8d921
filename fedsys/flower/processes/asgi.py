"""What our middlewares before Flower's server share: the types of ASGI, and a body as a whole."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NODE = "flwr-public-key"
"""Flower's header: a node's public key, a PEM in base 64."""


def header(scope: Scope, name: str) -> bytes:
    """The first value that a header has; empty where it is not there."""
    return next((bytes(v) for k, v in scope["headers"] if k == name.encode()), b"")


def key_of(text: bytes) -> bytes:
    """A node's key out of its header: one that is spelt in another way is the same."""
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""


async def whole(receive: Receive) -> bytes | None:
    """A body, whose length is bounded already; None where its sender went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was received to the one behind, and then what comes after it."""
    waiting: list[MutableMapping[str, Any]]
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return next_message


async def answer(
    send: Send, status: int, text: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answers in plain text, and ends the connection. more: headers."""
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close"), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
