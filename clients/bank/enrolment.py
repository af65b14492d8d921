"""A bank enrols: keys are made here and stay; the coordinator gets their public halves.

A bank's folder is made in an order in which it may be killed at any moment and be enrolled again
with the same token: first the keys, at the end `bank.json`, without which the folder is no bank's.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedsys.clients.bank.connection import CLOCK, clock_difference, fetch_authority, post
from fedsys.clients.bank.home import EXECUTOR, BankHome, Facts
from fedsys.errors import FedsysError, IdentityError, NetworkError, UsageError
from fedsys.federation.enrolment.desk import ENROL
from fedsys.storage import write_atomic
from fedsys.tables import schema_of, write_schema
from fedsys.trust.events import Event
from fedsys.trust.jobs import version
from fedsys.trust.keyfiles import make_private, place
from fedsys.trust.keys import SiteKeys, make_keys, read_keys
from fedsys.trust.signing import sign
from fedsys.trust.tokens import Token

Told = Callable[[str], None]


@dataclass(frozen=True)
class Enrolled:
    """What came of it. warnings: lines for people."""

    home: BankHome
    fingerprint: str
    warnings: tuple[str, ...] = ()


def enrol(token: Token, folder: Path) -> Enrolled:
    """Enrols with a token, in a folder that is the bank's from then on.

    Raises IdentityError for a token or a server that is not right, NetworkError where no server
    answers, UsageError where the folder is a bank's already.
    """
    if (folder / "bank.json").exists():
        known = BankHome.open(folder).facts
        raise UsageError(
            f"{folder}: is {known.name} of {known.federation} already: go on with fedsys bank "
            "check, or enrol into another --home"
        )
    token.check_time()
    server, authority = _reached(token)
    make_private(folder)
    keys = _keys(folder / "keys")
    body = {
        "bank": token.bank,
        "code": token.code.hex(),
        "node": keys.public.node,
        "signing": keys.public.signing,
        "version": version(),
    }
    signed = sign(keys.signing, body, purpose=ENROL, audience=token.federation)
    answer = post(server, authority, ENROL, signed.data())
    if answer.get("fingerprint") != keys.public.spoken:
        raise IdentityError(
            f"{server}: has written down other keys than this bank's: tell the coordinator at once"
        )
    home = _made(folder, token, server, authority, answer)
    return Enrolled(home, keys.public.spoken, tuple(_warnings(answer)))


def _reached(token: Token) -> tuple[str, bytes]:
    """The first of the token's addresses that answers, and the federation's certificate."""
    failure: FedsysError | None = None
    for server in token.addresses:
        try:
            return server, fetch_authority(server, token.authority)
        except NetworkError as error:
            failure = failure or error
    assert failure is not None  # a token has an address
    raise failure


def _keys(folder: Path) -> SiteKeys:
    """The bank's keys: new ones, or those of an enrolment that did not come to its end."""
    return read_keys(folder) if folder.exists() else make_keys(folder)


def _made(
    folder: Path, token: Token, server: str, authority: bytes, answer: dict[str, Any]
) -> BankHome:
    try:
        text, coordinator = str(answer["schema"]), str(answer["coordinator"])
    except KeyError:
        raise NetworkError(f"{server}: its answer lacks the schema: update fedsys there") from None
    try:
        schema = schema_of(text, "the federation's schema")
    except UsageError as error:
        raise UsageError(f"{error}: is the coordinator's fedsys newer? update here") from None
    facts = Facts(token.bank, token.federation, server, coordinator)
    home = BankHome(folder, facts)
    if not (folder / "secrets").exists():
        place(folder / "secrets", {EXECUTOR: secrets.token_hex(32).encode()})
    write_schema(schema, folder / "schema.toml")
    write_atomic(folder / "authority.crt", [authority])
    audit = home.audit
    if audit.head().number == 0:
        audit.record(Event.OPENED, site=facts.name, federation=facts.federation, version=version())
    audit.record(Event.JOINED, bank=facts.name, fingerprint=home.keys.public.spoken)
    return keep(home)


def keep(home: BankHome, **changes: Any) -> BankHome:
    """The bank with other facts, which are on the disk then."""
    changed = BankHome(home.folder, replace(home.facts, **changes))
    path = home.folder / "bank.json"
    write_atomic(path, [json.dumps(asdict(changed.facts)).encode()])
    os.chmod(path, 0o600)  # the address of a database may hold a password
    return changed


def _warnings(answer: dict[str, Any]) -> list[str]:
    off, theirs = clock_difference(answer), str(answer.get("version"))
    warnings = []
    if abs(off) > CLOCK:
        way = "behind" if off > 0 else "ahead of"
        warnings.append(
            f"this clock is {abs(off):.0f} s {way} the coordinator's: timedatectl set-ntp true"
        )
    if theirs != version():
        warnings.append(
            f"fedsys {version()} here, {theirs} at the coordinator: jobs need the same on both"
        )
    return warnings
