"""Flower's node at a bank, started, watched and stopped by us.

It connects out to the server and authenticates with the bank's key. Its app is not what the server
sends: it runs as a process of its own that we start (`--isolation process`), and takes the node's
messages on this machine; see `answering.py`.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsys.errors import EngineError, FedsysError, IdentityError, NetworkError
from fedsys.flower.processes.binding import CLOCK, Fault
from fedsys.flower.processes.superlink import LOOPBACK, variables
from fedsys.supervision import Supervised

PROBE_SECONDS = 5.0
PAUSE_SECONDS = 2.0
"""Between two looks for a server that is away."""
_REFUSED = re.compile(r"refused: ([a-z]{1,20})(?: (-?[0-9]{1,12}))?\n")
"""What the node says last where the guard lets nothing of it in; see `launch.py`."""


@dataclass(frozen=True)
class SuperNode:
    """What a node needs.

    folder: of its state and log. server: its address. authority: path of the federation's
    certificate, a PEM. key: path of the node's private key in OpenSSH's format. executor: path of
    the secret that our app shows to the node. port: of the node's own interface on this machine.
    """

    folder: Path
    server: str
    authority: Path
    key: Path
    executor: Path
    port: int

    @property
    def address(self) -> str:
        """Where our app reaches the node."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "supernode.log"

    @property
    def activated(self) -> Path:
        """Says which process is active, as which node."""
        return self.folder / "active.json"

    def active(self) -> tuple[int, int] | None:
        """(process, node id) of the last activation; None before the first."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self.activated.read_text())
            return int(said["process"]), int(said["node"])
        return None

    def command(self) -> list[str]:
        """Of the process, with Flower's own options."""
        active = self.active()
        stale = str(active[1]) if active else "-"
        return [
            *(sys.executable, "-m", "fedsys.flower.processes.launch", "supernode"),
            *(stale, str(self.activated)),
            *("--superlink", self.server, "--root-certificates", str(self.authority)),
            *("--auth-supernode-private-key", str(self.key)),
            *("--host", LOOPBACK, "--port", str(self.port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.executor)),
        ]


def supervised(node: SuperNode, told: Callable[[str], None] = lambda line: None) -> Supervised:
    """The node as a process that is kept alive; use it in a `with`.

    A server that is away, or does not let the node in yet, is waited for.
    """

    def is_ready(pid: int) -> bool:
        active = node.active()
        return active is not None and active[0] == pid

    return Supervised(
        "Flower's node",
        node.command,
        node.log,
        is_ready=is_ready,
        explain=lambda log: _why(node, log),
        before=lambda stopping: _await_server(node, stopping, told),
        patient=lambda error: isinstance(error, NotLetIn),
        told=told,
        variables=variables(node.folder),
    )


class NotLetIn(IdentityError):
    """The server does not let the node in, at least not now."""


def probe(server: str, authority: Path) -> None:
    """Raises NetworkError where nobody answers at the server's address, and IdentityError where
    it is not the federation's server."""
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError):
        raise IdentityError(f"{authority}: no certificate that can be read: enrol anew") from None
    try:
        line = socket.create_connection((host, int(port)), PROBE_SECONDS)
        with line, context.wrap_socket(line, server_hostname=host):
            return
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(
            f"{server}: is not the federation's server, or its certificate is out of date: "
            f"{error.verify_message}: ask its coordinator"
        ) from None
    except ssl.SSLError as error:
        raise NetworkError(
            f"{server}: does not speak TLS ({error.reason}): check address and port, and what "
            "stands between"
        ) from None
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise NetworkError(
            f"{server}: {reason}: is the server running, and may this machine connect to it?"
        ) from None


def _await_server(node: SuperNode, stopping: threading.Event, told: Callable[[str], None]) -> None:
    waited = False
    while not stopping.is_set():
        try:
            return probe(node.server, node.authority)
        except NetworkError as error:
            if not waited:
                told(f"waiting: {error}")
            waited = True
        stopping.wait(PAUSE_SECONDS)


def _why(node: SuperNode, log: str) -> FedsysError | None:
    tail = log[-4000:]
    refused = list(_REFUSED.finditer(tail))
    if refused and refused[-1].start() > tail.rfind("[code: 2004]"):
        return NotLetIn(f"{node.server}: {_refusal(refused[-1][1], int(refused[-1][2] or 0))}")
    if "[code: 2004]" in tail:
        return NotLetIn(f"{node.server}: {_refusal(Fault.UNKNOWN, 0)}")
    if "CERTIFICATE_VERIFY_FAILED" in tail:
        return IdentityError(f"{node.server}: is not the federation's server: ask its coordinator")
    if "address already in use" in tail.lower():
        return EngineError(f"port {node.port} of this machine is in use: start again")
    return None


def _refusal(fault: str, off: int) -> str:
    """Why the guard lets nothing of a node in. off: seconds that its clock is ahead."""
    if fault == Fault.CLOCK:
        return (
            f"this machine's clock differs from the coordinator's: it is {abs(off)} s "
            f"{'ahead' if off > 0 else 'behind'}, of at most {CLOCK}: timedatectl set-ntp true"
        )
    if fault in (Fault.ALTERED, Fault.REPLAYED):
        return (
            "what this bank sends arrives there altered, or a second time: find out what stands "
            "between, and tell the coordinator"
        )
    if fault == Fault.UNSIGNED:
        return "wants requests that are signed in another way: install the coordinator's fedsys"
    return (
        "does not let this bank in: its coordinator has not approved it (fedsys federation "
        "approve), or it was running within the last minute elsewhere"
    )
