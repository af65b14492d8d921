"""Few pieces of arrays in Flower's server at a time, however many nodes send and ask.

A piece of 5 MiB is there five times while Flower works on it: as body, as message, as its field, as
SQLite's parameter and in its pages. Its threads gain nothing by working on many, as Python runs one
at a time; so the others wait, each with its body alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from fedsys.flower.processes.asgi import App, Receive, Scope, Send, again, whole

SLOTS = 4
PIECES = tuple(
    f"/v1/{side}/{do}-object" for side in ("fleet", "runtime") for do in ("push", "pull")
)


class Slots:
    """An ASGI middleware. slots: how many pieces are worked on at a time.

    Who is slow on the line holds none: a body is received before, and an answer sent after.
    """

    def __init__(self, app: App, slots: int = SLOTS) -> None:
        self._app, self._free = app, asyncio.Semaphore(slots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in PIECES:
            await self._app(scope, receive, send)
            return
        body = await whole(receive)
        if body is None:
            return
        receive = again(body, receive)
        del body  # Flower has it then, and we no longer
        answer: list[MutableMapping[str, Any]] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            answer.append(message)

        async with self._free:
            await self._app(scope, receive, keep)
        answer.reverse()
        while answer:
            await send(answer.pop())
