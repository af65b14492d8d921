"""What stands before Flower's server: strangers reach what a bank needs, and nothing else.

Flower's server has three interfaces on one port. A bank's node needs Fleet, where every request is
signed with the node's key. Control (register nodes, start runs) and Runtime (a run's server) are
open to whoever trusts the server's certificate; here they need the coordinator's secret.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-fedsys-coordinator"
BODY = 8 << 20
"""Bytes of a request: Flower sends large arrays in pieces of 5 MiB."""


class Guard:
    """An ASGI middleware. secret: what the coordinator's requests carry in `HEADER`."""

    def __init__(self, app: App, secret: str, limit: int = BODY) -> None:
        self._app, self._secret, self._limit = app, secret.encode(), limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._may(scope):
            await _refuse(send, 403, b"for the coordinator alone")
        elif _length(scope) > self._limit:
            await _refuse(send, 413, b"too large")
        else:
            await self._app(scope, _limited(receive, self._limit), send)

    def _may(self, scope: Scope) -> bool:
        if scope["path"] == "/health" or scope["path"].startswith("/v1/fleet/"):
            return True
        given = next((v for k, v in scope["headers"] if k == HEADER.encode()), b"")
        return hmac.compare_digest(given, self._secret)


def _length(scope: Scope) -> int:
    """What a request says of its length; 0 where it says nothing."""
    said = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(said) if said.isdigit() and len(said) < 20 else 1 << 62


def _limited(receive: Receive, limit: int) -> Receive:
    """Receives a body up to a length; one that is longer ends as if its sender had gone."""
    seen = 0

    async def next_part() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return next_part


async def _refuse(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
