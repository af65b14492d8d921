"""Flower's server as our process: ready, guarded, kept alive, and gone with us."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.proto.fleet_pb2 import ActivateNodeRequest

from fedsys.errors import NetworkError
from fedsys.flower import compat_grid
from fedsys.flower.processes.access import Access, admit_nodes
from fedsys.flower.processes.superlink import answers, supervised
from fedsys.trust.keys import make_keys
from tests.flower.deployed import alive, recorded, sent_again, superlink, until

OTHER = "127.0.0.2"
"""An address of this machine that is not the loopback's first."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def server(folder):
    return superlink(folder)


@pytest.fixture(scope="module")
def running(server, said):
    with supervised(server, said.append) as process:
        yield process


def ask(server, path, headers=None, body=b""):
    """The status of an answer, over TLS that trusts the federation's authority alone."""
    context = ssl.create_default_context(cafile=str(server.authority))
    request = urllib.request.Request(f"https://{server.address}{path}", body, headers or {})
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_listens_on_this_machine_alone_with_tls_and_node_authentication(server, running):
    host, port = server.address.split(":")
    assert host == "127.0.0.1"
    with socket.socket() as line:
        line.settimeout(2)
        assert line.connect_ex((OTHER, int(port))) != 0
    with (
        pytest.raises((ssl.SSLError, OSError)),
        socket.create_connection((host, int(port))) as line,
    ):
        ssl.create_default_context().wrap_socket(line, server_hostname="localhost")
    arguments = Path(f"/proc/{running.pid}/cmdline").read_text().split("\0")
    assert "--enable-supernode-auth" in arguments
    assert "--insecure" not in arguments
    assert arguments[arguments.index("--isolation") + 1] == "process"


def test_whoever_has_only_the_certificate_starts_no_run_and_registers_no_node(server, running):
    assert ask(server, "/health") in (200, 405)
    for path in ("start-run", "register-node", "list-nodes", "stop-run"):
        assert ask(server, f"/v1/control/{path}") == 403
    assert ask(server, "/v1/runtime/acquire-task") == 403
    assert ask(server, "/docs") == 403
    stranger = compat_grid.control(server.address, server.authority.read_bytes(), {})
    with stranger, pytest.raises(Exception, match="403"):
        compat_grid.start_run(stranger, b"evil")


def test_the_coordinator_decides_which_nodes_may_join(server, running, tmp_path):
    access = Access.of(server)
    first, second = (make_keys(tmp_path / name).node_public for name in ("a", "b"))
    ids = admit_nodes(access, [first])
    assert list(ids) == [first]
    assert admit_nodes(access, [first]) == ids
    both = admit_nodes(access, [first, second])
    assert both[first] == ids[first]
    assert list(admit_nodes(access, [second])) == [second]
    with access.control() as control:
        assert list(compat_grid.registered(control)) == [second]


def test_its_port_is_not_taken_from_another(server, running, folder):
    other = replace(server, folder=folder / "other")
    where = rf"127.0.0.1:{server.port}: cannot listen there"
    with pytest.raises(NetworkError, match=where), supervised(other):
        pass


def test_it_tells_its_makers_nothing(server, running):
    environment = Path(f"/proc/{running.pid}/environ").read_text()
    for said in ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"):
        assert said in environment
    assert f"FLWR_HOME={server.folder}" in environment, "Flower would write into the user's home"


def test_it_is_started_again_with_what_it_knew(server, running, said, tmp_path):
    access = Access.of(server)
    keys = make_keys(tmp_path / "a")
    key = keys.node_public
    node = admit_nodes(access, [key])[key]
    asked = ActivateNodeRequest(public_key=key, heartbeat_interval=30.0)
    request = recorded(server, keys, lambda client: client.ActivateNode(asked))
    assert sent_again(server, request) == (403, "replayed")
    killed = running.pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: running.pid not in (killed, None))
    running.wait_ready()
    with access.control() as control:
        assert compat_grid.registered(control)[key] == node
    assert said == ["Flower's server ended (SIGKILL); starting it again"]
    assert sent_again(server, request) == (403, "replayed"), "a server that was killed knows it"


def test_it_ends_with_the_process_that_started_it(tmp_path):
    server = superlink(tmp_path)
    script = (
        "import time; from pathlib import PosixPath\n"
        "from fedsys.flower.processes.superlink import SuperLink, supervised\n"
        f"with supervised({server!r}) as process:\n"
        "    print(process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert answers(server)
        parent.kill()
    until(lambda: not alive(pid))
    assert not answers(server)
