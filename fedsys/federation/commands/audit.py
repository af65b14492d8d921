"""Logs for people: printed, verified, and held against other sites' logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from fedsys.errors import DataError, IdentityError
from fedsys.federation.enrolment.desk import COORDINATOR
from fedsys.trust.audit import Entry
from fedsys.trust.events import Event
from fedsys.trust.verification import cross_check, entries_of, seen_heads, verify


def shown(path: Path, as_json: bool) -> None:
    """Prints a log, a line an entry."""
    for entry in entries_of(path) if path.exists() else []:
        click.echo(entry.line().decode() if as_json else _text(entry))


def _text(entry: Entry) -> str:
    details = "  ".join(f"{name} {_short(item)}" for name, item in entry.details.items())
    return f"{entry.number:5}  {entry.time[:19]}Z  {entry.event:26}  {details}".rstrip()


def _short(item: object) -> str:
    text = str(item)
    return text[:12] if len(text) == 64 else text


def verified(path: Path, site: str, others: Sequence[Path], as_json: bool) -> int:
    """Verifies a site's log by itself and against others', prints what came of it, gives the exit
    code: 0 where all holds, IdentityError's where something was changed."""
    held = [head for other in others for head in seen_heads(entries_of(other), site)]
    verdict = verify(path, held)
    findings = [(str(path), verdict.fault.text)] if verdict.fault else []
    lines = [f"{path}: {verdict.entries} entries hold, the last is {verdict.head.hash[:16]}"]
    if verdict.torn:
        lines.append(f"{path}: {verdict.torn} torn lines, as a kill leaves them")
    for other in others:
        theirs = _site(other)
        server, bank = (path, other) if site == COORDINATOR else (other, path)
        if COORDINATOR not in (site, theirs):
            raise DataError(f"{other}: is of {theirs}: hold a bank's log against the coordinator's")
        name = theirs if site == COORDINATOR else site
        found = [one.text for one in cross_check(server, bank, COORDINATOR, name)]
        findings += [(str(other), text) for text in found]
        if not found:
            lines.append(f"{other}: agrees, {len(entries_of(other))} entries of {theirs}")
    good = not findings
    if as_json:
        click.echo(json.dumps({
            "whole": good,
            "entries": verdict.entries,
            "head": {"number": verdict.head.number, "hash": verdict.head.hash},
            "torn": verdict.torn,
            "findings": [{"log": log, "said": text} for log, text in findings],
        }))  # fmt: skip
    else:
        for line in lines if good else []:
            click.echo(f"✔ {line}")
        for log, text in findings:
            click.echo(f"✘ {log}: {text}")
        if not others and good:
            click.echo(
                "  a log that was written anew as a whole shows only against another's: --with"
            )
    return 0 if good else IdentityError.code


def _site(path: Path) -> str:
    """Whose log it is. Raises DataError where it does not say."""
    first = next(iter(entries_of(path)), None)
    if first is None or first.event is not Event.OPENED:
        raise DataError(f"{path}: does not begin as a log of fedsys: is it the right file?")
    return str(first.details["site"])
