"""A coordinator's desk behind its door on loopback, with TLS and without Flower, for tests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from fedsys.federation.enrolment.desk import Desk
from fedsys.federation.enrolment.door import Door
from fedsys.federation.enrolment.nodes import Nodes
from fedsys.federation.home import Facts, Home
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.tables import Column, Label, Schema
from fedsys.trust.identity import (
    ServerIdentity,
    certificate_fingerprint,
    read_authority,
    read_server,
)
from fedsys.trust.invitations import Invitations
from fedsys.trust.tokens import Token, invite

SCHEMA = Schema(label=Label("late"), columns=(Column("age", "number"), Column("income", "number")))
SECRET = "the coordinator's"


def coordinator(folder: Path, host: str = LOOPBACK, name: str = "eu-credit") -> Home:
    """A federation, made anew, on a port that is free."""
    facts = Facts(name=name, host=host, port=free_port(), banks=2)
    return Home.create(folder, facts, SCHEMA)


def invited(home: Home, bank: str, **options: object) -> Token:
    """A token for a bank."""
    authority = read_authority(home.folder / "authority").certificate
    token, invitation = invite(
        home.facts.name, bank, [home.facts.address], certificate_fingerprint(authority), **options
    )
    Invitations(home.folder / "invitations.json").add(invitation)
    return token


async def behind(scope, receive, send):
    """Stands for Flower's server."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def open_door(
    home: Home,
    desk: Desk | None = None,
    host: str = LOOPBACK,
    identity: ServerIdentity | None = None,
) -> Iterator[Desk]:
    """Serves the desk at the federation's port. identity: a certificate that is not to be checked
    here before."""
    desk = desk or Desk(home)
    if identity is None:
        authority = read_authority(home.folder / "authority").certificate
        identity = read_server(home.folder / "server", authority)
    config = uvicorn.Config(
        Door(behind, SECRET, desk, Nodes(home)),
        host=host,
        port=home.facts.port,
        ssl_certfile=str(identity.certificate_path),
        ssl_keyfile=str(identity.key_path),
        log_config=None,  # its own would close whatever absl writes to
        ws="none",
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield desk
    finally:
        server.should_exit = True
        thread.join()
