"""What has to be known of a side of a federation to keep it running: a bank's, a coordinator's."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fedsys.clients.bank.home import BankHome
from fedsys.errors import UsageError
from fedsys.federation.home import Home

BANK, COORDINATOR = "bank", "coordinator"
LONGEST_NAME = 52
"""Letters that Kubernetes leaves for a StatefulSet's name, of 63 in a label."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOPBACK = ("localhost", "::1")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "oracle": 1521, "mssql": 1433}
"""Where databases wait if an address does not say."""


@dataclass(frozen=True)
class Service:
    """One side on this machine, as far as its files need it.

    side: 'bank' or 'coordinator'. name: of the service, good for systemd, Compose and Kubernetes.
    title: of it, for people. home: the side's folder. owner, group: whose folder it is, by number.
    host, port: where the federation's server is reached. listen: where the coordinator's listens.
    rows: the file that a bank reads, if it reads one. query: the file of its query, if that is one.
    variable: the environment variable with the database's address, if there is one.
    database: the database's (host, port), where its address stands in the bank's folder.
    """

    side: str
    name: str
    title: str
    home: Path
    owner: int
    group: int
    host: str
    port: int
    listen: str = ""
    rows: Path | None = None
    query: Path | None = None
    variable: str = ""
    database: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        for path in (self.home, self.rows, self.query):
            if path is not None and not str(path).isprintable():
                raise UsageError(f"{str(path)!r}: such a path cannot stand in a unit: rename it")

    @property
    def command(self) -> tuple[str, ...]:
        """What fedsys is told to do."""
        return ("bank", "join") if self.side == BANK else ("federation", "serve")

    @property
    def read(self) -> tuple[Path, ...]:
        """Files outside the home that it reads."""
        return tuple(path for path in (self.rows, self.query) if path is not None)


def bank_service(home: Path) -> Service:
    """The bank in a folder. Raises UsageError where its rows were not named yet."""
    found = BankHome.open(home)
    facts = found.facts
    if not facts.source:
        raise UsageError(
            f"{facts.name}: its rows were not named: fedsys bank check --source ROWS, then again"
        )
    host, _, port = facts.server.rpartition(":")
    variable, rows, database = _source(facts.source)
    return Service(
        side=BANK,
        name=service_name(f"fedsys-{facts.name}-{facts.federation}"),
        title=f"fedsys: {facts.name} in federation {facts.federation}",
        home=found.folder.absolute(),
        host=host.strip("[]"),
        port=int(port),
        rows=rows,
        query=Path(facts.query) if facts.query and os.path.isfile(facts.query) else None,
        variable=variable,
        database=database,
        owner=found.folder.stat().st_uid,
        group=found.folder.stat().st_gid,
    )


def coordinator_service(home: Path) -> Service:
    """The federation in a folder."""
    found = Home.open(home)
    facts = found.facts
    return Service(
        side=COORDINATOR,
        name=service_name(f"fedsys-{facts.name}"),
        title=f"fedsys: server of federation {facts.name}",
        home=found.folder.absolute(),
        host=facts.host,
        port=facts.port,
        listen=facts.listen,
        owner=found.folder.stat().st_uid,
        group=found.folder.stat().st_gid,
    )


def service_name(text: str) -> str:
    """A name of a-z, 0-9 and '-' that is short enough for Kubernetes; others stay apart."""
    name = text.replace(".", "-")
    if name == text and len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7].rstrip('-')}-{mark}"


def is_loopback(host: str) -> bool:
    """Whether only this machine itself is reached there."""
    return host in _LOOPBACK or host.startswith("127.")


def is_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def shell(words: tuple[str, ...]) -> str:
    """Words as they are typed in a shell."""
    return shlex.join(words)


def _source(source: str) -> tuple[str, Path | None, tuple[str, int] | None]:
    """(variable, file, (host, port) of the database) of a bank's rows."""
    if source.startswith("env:"):
        variable = source.removeprefix("env:")
        if not _VARIABLE.fullmatch(variable):
            raise UsageError(f"{variable!r}: is no name of a variable that a unit can set")
        return variable, None, None
    scheme, apart, rest = source.partition("://")
    if not apart:
        return "", Path(source), None
    if scheme.startswith("sqlite"):
        return "", Path(rest.removeprefix("/")).absolute(), None
    kind = scheme.partition("+")[0]
    try:
        url = urlsplit(source)
        host, port = url.hostname or "localhost", url.port or _PORTS.get(kind, 0)
    except ValueError:
        return "", None, None
    return "", None, (host, port) if port else None
