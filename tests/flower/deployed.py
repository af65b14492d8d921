"""Flower's real processes on loopback, with TLS and node keys, for tests."""

import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedsys.flower import compat_nodes
from fedsys.flower.processes import binding, supernode
from fedsys.flower.processes.access import Access, admit_nodes
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.flower.processes.superlink import SuperLink, free_port, supervised
from fedsys.flower.processes.supernode import SuperNode
from fedsys.supervision import Supervised
from fedsys.trust.identity import issue_server, make_authority
from fedsys.trust.keyfiles import place
from fedsys.trust.keys import SiteKeys, make_keys

ECHO = Path(__file__).parent / "echo.py"
WAIT = 60.0


def superlink(folder: Path) -> SuperLink:
    """A server's files, made anew."""
    authority = make_authority(folder / "authority", "test")
    identity = issue_server(folder / "server", authority, ["127.0.0.1"])
    secret = {name: secrets.token_hex(32).encode() for name in ("coordinator", "executor")}
    place(folder / "secrets", secret)
    return SuperLink(
        folder=folder / "flower",
        port=free_port(),
        authority=authority.certificate_path,
        certificate=identity.certificate_path,
        key=identity.key_path,
        secret=folder / "secrets" / "coordinator",
        executor=folder / "secrets" / "executor",
    )


@dataclass(frozen=True)
class Node(SuperNode):
    """A node on a machine whose clock is so many seconds ahead."""

    ahead: float = 0.0

    def command(self) -> list[str]:
        python, _, module, *rest = super().command()
        shifted = (
            "import sys, time; from importlib import import_module; real = time.time; "
            f"time.time = lambda: real() + {self.ahead}; "
            f"import_module({module!r}).main(sys.argv[1:])"
        )
        return [python, "-c", shifted, *rest]


class Bank:
    """A node and its app. keys: of the node. ahead: seconds, of its clock.

    program: the app's command, to which the node's address and secret are added. app_pid: its
    process.
    """

    def __init__(self, folder: Path, server: SuperLink, ahead: float = 0.0) -> None:
        self.keys: SiteKeys = make_keys(folder / "keys")
        place(folder / "secrets", {"executor": secrets.token_hex(32).encode()})
        self.node = Node(
            folder=folder / "flower",
            server=server.address,
            authority=server.authority,
            key=self.keys.node_path,
            executor=folder / "secrets" / "executor",
            port=free_port(),
            ahead=ahead,
        )
        self.said: list[str] = []
        self.program = [sys.executable, str(ECHO)]
        self.app_pid: int | None = None

    @contextmanager
    def running(self) -> Iterator[Supervised]:
        with supernode.supervised(self.node, self.said.append) as process, self.app():
            yield process

    @contextmanager
    def app(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [*self.program, self.node.address, str(self.node.executor)]
        with (
            open(self.node.folder.parent / "app.log", "ab") as log,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as app,
        ):
            self.app_pid = app.pid
            try:
                yield app
            finally:
                app.kill()


class Deployed:
    """A server, banks, and what was said of them. ahead: each bank's clock, in seconds."""

    def __init__(self, folder: Path, banks: int, ahead: Sequence[float] = ()) -> None:
        self.server = superlink(folder / "coordinator")
        self.banks = [
            Bank(folder / f"bank-{number}", self.server, seconds)
            for number, seconds in enumerate(ahead or banks * [0.0])
        ]
        self.said: list[str] = []

    @contextmanager
    def running(self) -> Iterator[tuple[Supervised, list[Supervised]]]:
        with ExitStack() as stack:
            server = stack.enter_context(supervised(self.server, self.said.append))
            self.admit()
            yield server, [stack.enter_context(bank.running()) for bank in self.banks]

    @property
    def access(self) -> Access:
        return Access.of(self.server)

    def admit(self) -> None:
        keys = [bank.keys.node_public for bank in self.banks]
        ids = admit_nodes(self.access, keys)
        self.nodes = {number: ids[key] for number, key in enumerate(keys)}

    def await_nodes(self, grid: DeployedGrid) -> None:
        until(lambda: set(self.nodes.values()) <= set(grid.get_node_ids()))


def recorded(
    server: SuperLink, keys: SiteKeys, ask: Callable[[Any], object], arrives: bool = True
) -> httpx.Request:
    """A request of a node as it goes over the line.

    ask: calls one of the methods of a `FleetHttpClient`. arrives: whether the server gets it.
    """
    sent: list[httpx.Request] = []

    class Recorder:
        def intercept(self, context: Any, call_next: Any) -> Any:
            sent.append(context.request)
            if not arrives:
                raise httpx.ReadError("cut")
            return call_next(context)

    pair, authority = (keys.node, keys.node.public_key()), server.authority.read_bytes()
    with (
        compat_nodes.fleet(server.address, authority, pair, print) as client,
        suppress(httpx.ReadError),
    ):
        client._interceptors = (*client._interceptors, Recorder())
        ask(client)
    return sent[-1]


def sent_again(server: SuperLink, request: httpx.Request, **changes: Any) -> tuple[int, str]:
    """(status, what is wrong with it) where somebody sends a node's request again.

    changes: another `path`, `content` or `headers` than it had.
    """
    path, headers = changes.get("path", request.url.path), changes.get("headers", request.headers)
    whose = {
        name: value for name, value in headers.items() if name not in ("host", "content-length")
    }
    context = ssl.create_default_context(cafile=str(server.authority))
    with httpx.Client(verify=context) as client:
        answer = client.post(
            f"https://{server.address}{path}",
            content=changes.get("content", request.content),
            headers=whose,
        )
    return answer.status_code, answer.headers.get(binding.REFUSED, "")


def until(happened, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


def message(node: int, array: np.ndarray, **asked: float) -> Message:
    content = {"arrays": ArrayRecord({"x": Array(array)}), "asked": ConfigRecord(asked)}
    return Message(RecordDict(content), node, "train")


def alive(pid: int | None) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> set[int]:
    """The processes that a process started, and those that they started."""
    found: set[int] = set()
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(
                    Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:
                continue
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found
