"""Flower's server, started, watched and stopped by us.

Always with TLS and node authentication, with its state on disk, and without what Flower would do by
itself: install packages, run apps that somebody uploads, tell its makers. It listens on this
machine alone unless told otherwise.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from fedsys.errors import FedsysError, NetworkError, StorageError
from fedsys.supervision import Supervised

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 5.0
ROOM = 16 << 20
"""Bytes that the disk has to have left for the server's state. With none left the server answers
on, and the banks seem to be away: it cannot write down that they are there."""


@dataclass(frozen=True)
class SuperLink:
    """What a server needs.

    folder: of its state and log. listen, port: where it waits for banks. authority, certificate,
    key: paths of PEM files. secret, executor: paths of the secrets that the coordinator shows to
    the guard and to the Runtime API.
    """

    folder: Path
    port: int
    authority: Path
    certificate: Path
    key: Path
    secret: Path
    executor: Path
    listen: str = LOOPBACK

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        host = LOOPBACK if self.listen in ("0.0.0.0", "::", "localhost") else self.listen
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "superlink.log"

    @property
    def seen(self) -> Path:
        """The nonces of nodes' requests; see binding.py."""
        return self.folder / "requests.seen"

    def command(self) -> list[str]:
        """Of the process, with Flower's own options."""
        return [
            *(
                sys.executable,
                "-m",
                "fedsys.flower.processes.launch",
                "superlink",
                str(self.secret),
                str(self.seen),
            ),
            *("--host", self.listen, "--port", str(self.port)),
            *("--ssl-ca-certfile", str(self.authority)),
            *("--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)),
            *("--database", str(self.folder / "state.db"), "--enable-supernode-auth"),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.executor)),
            "--disable-runtime-dependency-installation",
        ]


def supervised(server: SuperLink, told: Callable[[str], None] = lambda line: None) -> Supervised:
    """The server as a process that is kept alive; use it in a `with`."""
    return Supervised(
        "Flower's server",
        server.command,
        server.log,
        is_ready=lambda pid: answers(server),
        explain=lambda log: _why(server, log),
        before=lambda stopping: _check_port(server, stopping),
        told=told,
        variables=variables(server.folder),
    )


def variables(folder: Path) -> dict[str, str]:
    """The environment of Flower's processes. Its own folder lies in ours, not in the home."""
    return {
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def check_room(server: SuperLink, coming: int = 0) -> None:
    """Raises StorageError where the server's disk is full, or soon will be. coming: bytes that
    messages may still bring."""
    try:
        disk = os.statvfs(server.folder)
    except OSError:
        return  # it is not there yet
    if disk.f_bavail * disk.f_frsize < ROOM + coming:
        raise _no_room(server)


def _no_room(server: SuperLink) -> StorageError:
    return StorageError(f"{server.folder}: no room for the server's state: make room there")


def answers(server: SuperLink) -> bool:
    """Whether the server can be used."""
    try:
        context = ssl.create_default_context(cafile=str(server.authority))
        context.check_hostname = False  # it is this machine; the authority is ours
        host, _, port = server.address.rpartition(":")
        place = HTTPSConnection(
            host.strip("[]"), int(port), timeout=ANSWER_SECONDS, context=context
        )
        try:
            place.request("GET", "/health")
            return place.getresponse().status == 200
        finally:
            place.close()
    except (OSError, HTTPException):
        return False


def free_port(listen: str = LOOPBACK) -> int:
    """A port that nobody uses now."""
    with socket.socket() as place:
        place.bind((listen, 0))
        return int(place.getsockname()[1])


def _check_port(server: SuperLink, stopping: threading.Event) -> None:
    """Raises NetworkError where another process has the port, or the address is not ours.

    The port of a server that has just been killed may take a moment to come free.
    """
    reason: OSError | None = None
    for _ in range(20):
        try:
            family = socket.AF_INET6 if ":" in server.listen else socket.AF_INET
            with socket.socket(family) as place:
                place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                place.bind((server.listen, server.port))
            return
        except OSError as error:
            reason = error
        if stopping.wait(0.1):
            return
    raise NetworkError(
        f"{server.listen}:{server.port}: cannot listen there: "
        f"{getattr(reason, 'strerror', reason)}: end what uses it, or choose another --port"
    )


def _why(server: SuperLink, log: str) -> FedsysError | None:
    if "disk is full" in log or "No space left" in log:
        return _no_room(server)
    if "address already in use" in log.lower():
        return NetworkError(f"{server.listen}:{server.port}: in use: choose another --port")
    return None
