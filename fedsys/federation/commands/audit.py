"""Logs for people: printed, verified, and held against other sites' logs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fedsys.errors import DataError, IdentityError
from fedsys.federation.commands.options import note
from fedsys.federation.enrolment.desk import COORDINATOR
from fedsys.trust.audit import Entry
from fedsys.trust.events import Event
from fedsys.trust.verification import (
    Fault,
    Log,
    Stretch,
    disagreements,
    read_log,
    seen_heads,
)


def shown(path: Path, as_json: bool) -> int:
    """Prints a log, a line an entry, and gives the exit code: not 0 where it stops at a fault."""
    if not path.exists():
        return 0
    log = read_log(path)
    for entry in log.entries:
        click.echo(entry.line().decode() if as_json else _text(entry))
    if log.verdict.fault is None:
        return 0
    note(f"✘ {path}: {log.verdict.fault.text}; what follows is not shown: --verify says more")
    return IdentityError.code


def _text(entry: Entry) -> str:
    details = "  ".join(f"{name} {_short(item)}" for name, item in entry.details.items())
    return f"{entry.number:5}  {entry.time[:19]}Z  {entry.event:26}  {details}".rstrip()


def _short(item: object) -> str:
    text = str(item)
    return text[:12] if len(text) == 64 else text


@dataclass(frozen=True)
class _Read:
    """A site's log. good: what to say of it where nothing is wrong."""

    path: Path
    site: str
    log: Log
    good: str

    @property
    def fault(self) -> Fault | None:
        return self.log.verdict.fault


def verified(path: Path, site: str, others: Sequence[Path], as_json: bool) -> int:
    """Verifies a site's log by itself and against others', prints what came of it, gives the exit
    code: 0 where all holds, IdentityError's where something was changed."""
    ours, theirs = _read_all(path, site, others)
    quarrels = [(one.path, text) for one in theirs for text in _quarrel(ours, one)]
    good = not quarrels and all(one.fault is None for one in (ours, *theirs))
    if as_json:
        click.echo(json.dumps(_table(good, ours, theirs, quarrels)))
    else:
        told = {name for name, _ in quarrels}
        for one in (ours, *theirs):
            if one.fault is not None:
                _tell_fault(one)
            elif one.path not in told:
                click.echo(f"✔ {one.path}: {one.good}")
        for name, text in quarrels:
            click.echo(f"✘ {name}: {text}")
        if not others and good:
            click.echo(
                "  a log that was written anew as a whole shows only against another's: --with"
            )
    return 0 if good else IdentityError.code


def _read_all(path: Path, site: str, others: Sequence[Path]) -> tuple[_Read, list[_Read]]:
    """Every log, each against the heads that others recorded of it.

    Raises DataError for a log that says nothing of this one.
    """
    alone = {other: read_log(other) for other in others}
    sites = {other: _site(other, log) for other, log in alone.items()}
    for other, theirs in sites.items():
        if (site == COORDINATOR) == (theirs == COORDINATOR):
            raise DataError(f"{other}: is of {theirs}: hold a bank's log against the coordinator's")
    held = [head for log in alone.values() for head in seen_heads(log.entries, site)]
    log = read_log(path, held)
    for other, known in alone.items():
        if _federation(log) not in (None, _federation(known)):
            raise DataError(f"{other}: is of federation {_federation(known)}, not of this one")
    said = f"{log.verdict.entries} entries hold, the last is {log.verdict.head.hash[:16]}"
    if log.verdict.torn:
        said += f"; {log.verdict.torn} torn lines, as a kill leaves them"
    found = []
    for other, theirs in sites.items():
        read = read_log(other, seen_heads(log.entries, theirs))
        count = read.verdict.entries
        found.append(_Read(other, theirs, read, f"agrees, {count} entries of {theirs}"))
    return _Read(path, site, log, said), found


def _site(path: Path, log: Log) -> str:
    """Whose log it is. Raises DataError where it does not say."""
    first = next(iter(log.entries), None)
    if first is None or first.event is not Event.OPENED:
        raise DataError(f"{path}: does not begin as a log of fedsys: is it the right file?")
    return str(first.details["site"])


def _quarrel(ours: _Read, theirs: _Read) -> list[str]:
    """What the two logs say differently."""
    server, bank = (ours, theirs) if ours.site == COORDINATOR else (theirs, ours)
    found = disagreements(server.log, bank.log, COORDINATOR, bank.site)
    return [one.text for one in found]


def _federation(log: Log) -> str | None:
    """Which federation a log is of; None where its first entry is gone."""
    first = next(iter(log.entries), None)
    return str(first.details["federation"]) if first and first.event is Event.OPENED else None


def _tell_fault(one: _Read) -> None:
    """Where a log's first fault is, and what of it can be relied on."""
    assert one.fault is not None
    click.echo(f"✘ {one.path}: {one.fault.text}")
    for line in _left(one.log):
        click.echo(f"  {line}")


def _left(log: Log) -> Iterator[str]:
    """What of a log with a fault can be relied on."""
    verdict = log.verdict
    if verdict.entries:
        yield f"before it, {_numbers(1, verdict.head.number)} {_vouched(verdict.vouched)}"
    else:
        yield "nothing before it can be relied on"
    for piece in verdict.rest:
        numbers = _numbers(piece.first, piece.last.number)
        yield f"after it, {numbers} ({_span(piece)}) {_vouched(piece.vouched)}"


def _numbers(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def _span(piece: Stretch) -> str:
    first, last = piece.lines
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _vouched(number: int) -> str:
    if number:
        return f"chain among themselves; another site's log confirms them up to entry {number}"
    return "chain among themselves; no other log here confirms them"


def _table(
    good: bool, ours: _Read, theirs: Sequence[_Read], quarrels: Sequence[tuple[Path, str]]
) -> dict[str, Any]:
    """What came of it as plain values."""
    verdict = ours.log.verdict
    findings = [
        {"log": str(one.path), "said": one.fault.text} for one in (ours, *theirs) if one.fault
    ]
    findings += [{"log": str(path), "said": text} for path, text in quarrels]
    return {
        "whole": good,
        "entries": verdict.entries,
        "head": {"number": verdict.head.number, "hash": verdict.head.hash},
        "torn": verdict.torn,
        "findings": findings,
        "logs": [_log_table(one) for one in (ours, *theirs)],
    }


def _log_table(one: _Read) -> dict[str, Any]:
    verdict, fault = one.log.verdict, one.fault
    return {
        "log": str(one.path),
        "site": one.site,
        "fault": fault and {"line": fault.line, "kind": str(fault.kind), "said": fault.text},
        "before": {"entries": verdict.entries, "confirmed": verdict.vouched},
        "after": [
            {
                "lines": list(piece.lines),
                "entries": [piece.first, piece.last.number],
                "confirmed": piece.vouched,
            }
            for piece in verdict.rest
        ],
    }
