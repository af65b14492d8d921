"""A federation as it lies in its coordinator's folder.

federation.json      what it is called, where it listens, how many banks it needs
schema.toml          the columns that banks agreed on
authority/ server/   the certificates; see trust.identity
keys/                the coordinator's own keys; see trust.keys
secrets/             what the coordinator shows to its own server
banks.json           which banks there are; see banks.py
statistics.json      what banks said of their rows; preparation.json what came of it
jobs/NAME/           one job each; see jobs/folder.py
flower/              the state and log of Flower's server
audit.jsonl          who joined, what ran, what was refused
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from fedsys import places
from fedsys.checks import at_least
from fedsys.errors import UsageError
from fedsys.flower.processes.superlink import SuperLink
from fedsys.storage import write_atomic
from fedsys.tables import Schema, read_schema, write_schema
from fedsys.trust.audit import Audit
from fedsys.trust.events import Event
from fedsys.trust.identity import (
    issue_server,
    make_authority,
    read_authority,
    read_server,
)
from fedsys.trust.jobs import version
from fedsys.trust.keyfiles import make_private, place
from fedsys.trust.keys import SiteKeys, make_keys, read_keys
from fedsys.trust.names import check_host, check_name

PORT = 8443
COORDINATOR, EXECUTOR = "coordinator", "executor"


@dataclass(frozen=True)
class Facts:
    """What a federation is. host: where banks reach it. listen: on which address of this machine
    the server waits. banks: how many have to take part."""

    name: str
    host: str
    port: int = PORT
    listen: str = "127.0.0.1"
    banks: int = 2

    def __post_init__(self) -> None:
        check_name(self.name, "federation")
        check_host(self.host)
        at_least(1, port=self.port, banks=self.banks)

    @property
    def address(self) -> str:
        """Where banks reach the server."""
        host = check_host(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True)
class Home:
    """A federation's folder."""

    folder: Path
    facts: Facts

    @classmethod
    def create(cls, folder: Path, facts: Facts, schema: Schema) -> Home:
        """Makes a federation with keys and certificates of its own.

        Raises UsageError where there is one, and never overwrites a key.
        """
        if (folder / "federation.json").exists():
            raise UsageError(f"{folder}: is a federation already: choose another --home")
        make_private(folder)
        home = cls(folder, facts)
        authority = make_authority(folder / "authority", facts.name)
        issue_server(folder / "server", authority, [facts.host])
        make_keys(folder / "keys")
        made = {name: secrets.token_hex(32).encode() for name in (COORDINATOR, EXECUTOR)}
        place(folder / "secrets", made)
        write_schema(schema, folder / "schema.toml")
        home.audit.record(
            Event.OPENED, site="coordinator", federation=facts.name, version=version()
        )
        # Last: a folder without it is not a federation.
        write_atomic(folder / "federation.json", [json.dumps(asdict(facts)).encode()])
        return home

    @classmethod
    def open(cls, folder: Path) -> Home:
        """The federation in a folder. Raises UsageError where there is none."""
        return cls(folder, places.read_facts(places.FEDERATION, folder, Facts))

    @cached_property
    def schema(self) -> Schema:
        """The columns that banks agreed on."""
        return read_schema(self.folder / "schema.toml")

    @cached_property
    def keys(self) -> SiteKeys:
        """The coordinator's own."""
        return read_keys(self.folder / "keys")

    @property
    def audit(self) -> Audit:
        """The coordinator's log."""
        return Audit(self.folder / "audit.jsonl")

    @property
    def authority_path(self) -> Path:
        """The certificate that banks trust."""
        return self.folder / "authority" / "ca.crt"

    def server(self) -> SuperLink:
        """Flower's server, ready to start. Raises IdentityError where a certificate is missing,
        out of date or open to others."""
        authority = read_authority(self.folder / "authority")
        identity = read_server(self.folder / "server", authority.certificate)
        return SuperLink(
            folder=self.folder / "flower",
            port=self.facts.port,
            authority=authority.certificate_path,
            certificate=identity.certificate_path,
            key=identity.key_path,
            secret=self.folder / "secrets" / COORDINATOR,
            executor=self.folder / "secrets" / EXECUTOR,
            listen=self.facts.listen,
        )
