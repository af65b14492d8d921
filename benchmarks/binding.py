"""What it costs that a node's request counts once: see `fedsys.flower.processes.binding`.

    python -m benchmarks.binding                 # for bodies of 1 kB, 1 MB and 5 MiB
    python -m benchmarks.binding --rounds 50     # more often [20]

One line a body: what the node does before it sends, what the guard does before it lets the
request through, and what Flower's own signature of the time costs beside it, in milliseconds: the
median of the rounds, and the least. Then the memory of the nonces, of one node that asks as often
as it may, and of all.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.timing import milliseconds, seconds, table, times_a_turn
from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.binding import ALL, EACH, HEADER, KEPT, Seen, Stamp, stamped
from fedsys.flower.processes.guard import Guard

PATH = "/v1/fleet/push-object"
BODIES = {"1 kB": 1000, "1 MB": 1_000_000, "5 MiB": 5 << 20}


async def _behind(scope: Any, receive: Any, send: Any) -> None:
    """Stands for Flower's server: it reads the body, and answers."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asking(key: ec.EllipticCurvePrivateKey, guard: Guard, body: bytes) -> Callable[[], object]:
    """A call that gives the guard a request that it has not seen, as its server does."""
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    asked, digest = f"POST {PATH}".encode(), hashlib.sha256(body).digest()
    ready = [stamped(key, asked, digest).text().encode() for _ in range(400)]
    loop = asyncio.new_event_loop()

    def ask() -> None:
        parts = [body[at : at + 65536] for at in range(0, len(body), 65536)]
        scope: MutableMapping[str, Any] = {
            "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
            "query_string": b"", "client": ("127.0.0.1", 1),
            "headers": [(NODE.encode(), base64.b64encode(pem)), (HEADER.encode(), ready.pop())],
        }  # fmt: skip

        async def receive() -> MutableMapping[str, Any]:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: MutableMapping[str, Any]) -> None:
            assert message.get("status", 200) == 200, "the guard let it through"

        loop.run_until_complete(guard(scope, receive, send))

    return ask


def measured(size: int, rounds: int, folder: Path) -> list[str]:
    """A line of the table."""
    key, body = ec.generate_private_key(ec.SECP384R1()), b"x" * size
    asked, algorithm = f"POST {PATH}".encode(), ec.ECDSA(hashes.SHA256())
    signature, public = key.sign(b"time", algorithm), key.public_key()

    def sign() -> None:
        stamped(key, asked, hashlib.sha256(body).digest())

    def flowers() -> None:
        key.sign(b"time", algorithm)
        public.verify(signature, b"time", algorithm)

    def guarded(rounds: int) -> list[float]:
        """Requests that are new each time, so many a round."""
        given = []
        for _ in range(rounds):
            ask = asking(key, Guard(_behind, "secret", seen=Seen(folder / "seen")), body)
            ask()
            given.append(seconds(ask, times_a_turn(seconds(ask))))
        return given

    times = times_a_turn(seconds(sign))
    own = [seconds(sign, times) for _ in range(rounds)]
    plain = [seconds(flowers, times) for _ in range(rounds)]
    return [milliseconds(own), milliseconds(guarded(rounds)), milliseconds(plain)]


def held() -> str:
    """What the nonces of one node that asks as often as it may take."""
    tracemalloc.start()
    seen = Seen()
    for number in range(EACH):
        seen.add(b"key", Stamp(1, f"{number:032x}", b""))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    most, disk = 2 * ALL / EACH * size, 2 * ALL * 32
    return (
        f"{EACH / KEPT:.0f} requests a second of one node for {KEPT} s: {size / 1e6:.1f} MB; "
        f"of all nodes at most {most / 1e6:.0f} MB, and {disk / 1e6:.0f} MB of disk"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.binding", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            [name, *measured(size, options.rounds, Path(folder))] for name, size in BODIES.items()
        ]
    heads = ["body", "node: hash, sign", "guard: read, hash, check, note", "Flower: sign, check"]
    print(table(heads, rows))
    print(held())
    return 0


if __name__ == "__main__":
    sys.exit(main())
