"""What stands before Flower's server: strangers reach what a bank needs, and nothing else.

Flower's server has three interfaces on one port. A bank's node needs Fleet, where every request is
signed with the node's key; `binding.py` says what for, and that it counts once. Control (register
nodes, start runs) and Runtime (a run's server) are open to whoever trusts the server's certificate;
here they need the coordinator's secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsys.errors import FedsysError, StorageError
from fedsys.flower.processes import binding
from fedsys.flower.processes.asgi import NODE, App, Receive, Scope, Send, again, answer, header
from fedsys.flower.processes.binding import Fault, Seen, Stamp, read_stamp

BankOf = Callable[[bytes], str | None]
"""From a node's public key, a PEM, to its bank's name; None where it is no bank's."""
Refused = Callable[[str, str], None]
"""Hears of a request that was refused: as which bank it came, and from which address. It is called
in a thread, one at a time."""

HEADER = "x-fedsys-coordinator"
FLEET = "/v1/fleet/"
BODY = 8 << 20
"""Bytes of a request: Flower sends large arrays in pieces of 5 MiB."""
COMING = 32 << 20
"""Bytes of one node's requests that are on their way at a time: it sends two pieces at once."""
UNKNOWN = "unknown"
"""As whom a request came that says nobody's name."""


class Guard:
    """An ASGI middleware.

    secret: what the coordinator's requests carry in `HEADER`. seen: the nonces of nodes' requests.
    bank_of: whose a node's key is; without it any key may ask Flower, which knows those it let in.
    """

    def __init__(
        self,
        app: App,
        secret: str,
        limit: int = BODY,
        seen: Seen | None = None,
        bank_of: BankOf = lambda key: UNKNOWN,
        refused: Refused = lambda bank, source: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app, self._secret, self._limit = app, secret.encode(), limit
        self._seen = Seen() if seen is None else seen
        self._bank_of, self._refused, self._clock = bank_of, refused, clock
        self._one = asyncio.Lock()
        self._coming: Counter[bytes] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif _length(scope) > self._limit:
            await answer(send, 413, b"too large")
        elif scope["path"].startswith(FLEET):
            await self._fleet(scope, receive, send)
        elif scope["path"] == "/health" or self._is_coordinators(scope):
            await self._app(scope, _limited(receive, self._limit), send)
        else:
            await self._note(UNKNOWN, scope)
            await answer(send, 403, b"for the coordinator alone")

    def _is_coordinators(self, scope: Scope) -> bool:
        return hmac.compare_digest(header(scope, HEADER), self._secret)

    # --- nodes -----------------------------------------------------------------------------------

    async def _fleet(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a node's request through, once."""
        try:
            node = self._announced(scope)
            read = self._whole(node.key.pem, receive)
            body, digest = await asyncio.wait_for(read, binding.ARRIVING)
            self._checked(node, scope, digest)
        except Refusal as refusal:
            await self._note(refusal.bank, scope)
            headers = [(binding.REFUSED.encode(), refusal.said.encode())]
            await answer(send, 403, refusal.said.encode(), headers)
        except _Gone:
            return
        except _TooLarge:
            await answer(send, 413, b"too large")
        except TimeoutError:
            await answer(send, 408, b"too slow")
        except (_Crowded, StorageError):  # the node tries again after a while
            await answer(send, 503, b"not now")
        else:
            await self._app(scope, again(body, receive), self._listening(node, scope, send))

    def _announced(self, scope: Scope) -> _Node:
        """Who asks, by the headers alone; nothing of it is proved yet. Raises Refusal."""
        pem = _one(scope, NODE.encode())
        key = None if pem is None else _public(pem)
        bank = None if key is None else self._bank_of(key.pem)
        if key is None or bank is None:
            raise Refusal(UNKNOWN, Fault.UNKNOWN)
        stamp = read_stamp(_one(scope, binding.HEADER.encode()) or b"")
        if stamp is None:
            raise Refusal(bank, Fault.UNSIGNED)
        off = stamp.off(self._clock())
        if abs(off) > binding.CLOCK:
            raise Refusal(bank, Fault.CLOCK, f" {off:.0f}")
        # Asked before the body comes, too: it could be kept back until the nonce is forgotten.
        if self._seen.had(key.pem, stamp):
            raise Refusal(bank, Fault.REPLAYED)
        if not self._seen.room(key.pem):
            raise _Crowded
        return _Node(bank, key, stamp)

    async def _whole(self, key: bytes, receive: Receive) -> tuple[bytes, bytes]:
        """(a request's body, its SHA-256), which is computed while it comes.

        Raises _Gone where its sender left, _TooLarge beyond the limit, and _Crowded where too much
        comes at a time in that key's name, as who only knows a bank's public key might send it.
        """
        parts, size, more, hashed = [], 0, True, hashlib.sha256()
        try:
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Gone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self._coming[key] += len(parts[-1])
                if size > self._limit:
                    raise _TooLarge
                if self._coming[key] > COMING:
                    raise _Crowded
                hashed.update(parts[-1])
                more = message.get("more_body", False)
        finally:
            self._coming[key] -= size
        return b"".join(parts), hashed.digest()

    def _checked(self, node: _Node, scope: Scope, digest: bytes) -> None:
        """Raises Refusal where the node did not sign this, or did so before. digest: SHA-256 of the
        body."""
        asked = scope["method"].encode() + b" " + scope["raw_path"]
        asked += b"?" + scope["query_string"] if scope["query_string"] else b""
        # The signature first: who cannot sign puts no nonce into the memory.
        if not node.stamp.fits(node.key.key, asked, digest):
            raise Refusal(node.bank, Fault.ALTERED)
        if self._seen.had(node.key.pem, node.stamp):
            raise Refusal(node.bank, Fault.REPLAYED)
        self._seen.add(node.key.pem, node.stamp)

    def _listening(self, node: _Node, scope: Scope, send: Send) -> Send:
        """Hears whether Flower refuses the node: it speaks in another's name."""

        async def passed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                await self._note(node.bank, scope)
            await send(message)

        return passed

    async def _note(self, bank: str, scope: Scope) -> None:
        source = (scope.get("client") or (UNKNOWN,))[0]
        async with self._one:
            with suppress(FedsysError):  # a log that cannot be written lets nobody in
                await asyncio.to_thread(self._refused, bank, source)


class Refusal(Exception):
    """A node's request that is not let in. bank: as which it came. said: what its node hears."""

    def __init__(self, bank: str, fault: Fault, more: str = "") -> None:
        super().__init__(fault)
        self.bank, self.said = bank, f"{fault}{more}"


class _Crowded(Exception):
    """A node asks more often, or sends more at a time, than is kept."""


class _Gone(Exception):
    """The sender of a body left."""


class _TooLarge(Exception):
    """A body is longer than it may be."""


@dataclass(frozen=True)
class _Key:
    pem: bytes
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True)
class _Node:
    """Who asks, and what proves it."""

    bank: str
    key: _Key
    stamp: Stamp


@lru_cache(maxsize=256)
def _public(text: bytes) -> _Key | None:
    """The key that a header holds, EC P-384; None where it holds none."""
    try:
        if len(text) > 1000:
            return None
        pem = base64.b64decode(text, validate=True)
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return None
    good = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    return _Key(pem, key) if good and isinstance(key, ec.EllipticCurvePublicKey) else None


def _one(scope: Scope, name: bytes) -> bytes | None:
    """A header's value; None where it is not there, or twice: others might read the other."""
    values = [v for k, v in scope["headers"] if k == name]
    return bytes(values[0]) if len(values) == 1 else None


def _length(scope: Scope) -> int:
    """What a request says of its length; 0 where it says nothing."""
    said = header(scope, "content-length") or b"0"
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
