"""Audit logs to tamper with, and a forger's tools."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from fedsys.trust.audit import Audit, Head
from fedsys.trust.events import Event
from fedsys.trust.verification import Kind, verify

NOW = datetime(2026, 5, 1, 12, 30, 15, 250, tzinfo=UTC)
HASH = "ab" * 32
RUN = "0123456789ab"


def opened(path: Path, site: str = "eu-credit", lines: int = 6) -> Audit:
    log = Audit(path)
    log.record(Event.OPENED, site=site, federation="eu-credit", version="0.1.0")
    for number in range(1, lines):
        log.record(Event.ROUND_BEGUN, run=RUN, round=number, banks=3)
    return log


def lines(log: Audit) -> list[bytes]:
    return log.path.read_bytes().splitlines()


def rewrite(log: Audit, lines_: list[bytes]) -> None:
    log.path.write_bytes(b"".join(line + b"\n" for line in lines_))


def fault(log: Audit, known: tuple[Head, ...] = ()) -> tuple[int, Kind] | None:
    found = verify(log.path, known).fault
    return (found.line, found.kind) if found else None


def edited(line: bytes, **changes) -> bytes:
    return json.dumps(
        {**json.loads(line), **changes}, sort_keys=True, separators=(",", ":")
    ).encode()


def rehashed(line: bytes, **changes) -> bytes:
    """What a forger who knows the format writes."""
    table = json.loads(edited(line, **changes))
    table.pop("hash")
    text = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    return edited(line, **changes, hash=hashlib.sha256(text).hexdigest())
