"""The desk's door: the server's own port, beside Flower's three interfaces.

    python -m fedsys.federation.enrolment.door FOLDER SECRET SEEN ARGUMENTS

is Flower's server, with the door.

One port and one certificate serve everything. What comes for the desk is answered here, in a thread
beside the server's loop, one at a time; all else goes on to the guard.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from fedsys.federation.enrolment.desk import AUTHORITY, LONGEST, PATH, Desk
from fedsys.federation.enrolment.nodes import Nodes
from fedsys.federation.home import Home
from fedsys.flower.processes.asgi import App, Receive, Scope, Send
from fedsys.flower.processes.binding import Seen
from fedsys.flower.processes.guard import Guard
from fedsys.flower.processes.launch import be_superlink
from fedsys.flower.processes.superlink import SuperLink

SECONDS = 10.0
"""How long a request may take to arrive."""


class Door:
    """An ASGI middleware. secret, seen: see `Guard`."""

    def __init__(
        self, app: App, secret: str, desk: Desk, nodes: Nodes, seen: Seen | None = None
    ) -> None:
        self._guard = Guard(
            app, secret, seen=seen, bank_of=nodes.bank_of, refused=nodes.note_refused
        )
        self._desk = desk
        self._one = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._guard(scope, receive, send)
            return
        what = scope["path"].removeprefix(PATH)
        if scope["method"] == "GET" and what == AUTHORITY:
            await _reply(send, 200, self._desk.authority(), b"application/x-pem-file")
            return
        if scope["method"] != "POST":
            await _reply(send, 405, b"{}")
            return
        try:
            data = await asyncio.wait_for(_body(receive), SECONDS)
        except TimeoutError:
            data = None
        if data is None:
            await _reply(send, 413, b"{}")
            return
        source = (scope.get("client") or ("unknown",))[0]
        async with self._one:
            said = await asyncio.to_thread(self._desk.answer, what, data, source)
        await _reply(send, 403 if "error" in said else 200, json.dumps(said).encode())


async def _body(receive: Receive) -> bytes | None:
    """A request's body; None where it is too long, or its sender left."""
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > LONGEST:
            return None
    return data


async def _reply(send: Send, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class OpenServer(SuperLink):
    """Flower's server, with the door. home: the federation's folder."""

    home: Path = Path()

    def command(self) -> list[str]:
        inner = super().command()
        rest = inner[inner.index(str(self.secret)) :]
        return [sys.executable, "-m", "fedsys.federation.enrolment.door", str(self.home), *rest]


@dataclass(frozen=True)
class OpenHome(Home):
    """A federation whose server has the door."""

    def server(self) -> SuperLink:
        plain = super().server()
        known = {name: getattr(plain, name) for name in SuperLink.__dataclass_fields__}
        return OpenServer(**known, home=self.folder)


def main(arguments: list[str]) -> None:
    """Becomes Flower's server."""
    folder, *rest = arguments
    home = Home.open(Path(folder))
    be_superlink(rest, Door, desk=Desk(home), nodes=Nodes(home))


if __name__ == "__main__":
    main(sys.argv[1:])
