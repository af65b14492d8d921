"""Rows 17 to 19 of the fault matrix: keys, certificates, ports and requests that are not as they
should be.

Each is told apart, in one line that says what to do.
"""

import socket
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node

from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.home import Facts as BankFacts
from fedsys.federation.demo.fraud import SCHEMA
from fedsys.federation.home import Facts, Home
from fedsys.flower.processes.binding import HEADER
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.trust.identity import issue_server, make_authority, read_authority
from tests.federation.faults.federation import Process, ended, lines, until
from tests.flower.deployed import alive, recorded, sent_again


@contextmanager
def plain_server():
    """A server that does not speak TLS. Gives its port."""
    with socket.create_server((LOOPBACK, 0)) as listening:

        def answer():
            with suppress(OSError):
                while True:
                    line, _ = listening.accept()
                    with line:
                        line.recv(1000)
                        line.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1]


@pytest.fixture
def stranger(federation, tmp_path):
    """An agent that never enrolled: (its process, once it has said one of some words)."""
    agents = []

    def started(server, authority, *words):
        facts = BankFacts(
            name="bank-x",
            federation=federation.home.facts.name,
            server=server,
            coordinator=federation.home.keys.public.signing,
            source=federation.bank("bank-a").facts.source,
        )
        home = BankHome.create(tmp_path / f"bank-{len(agents)}", facts, SCHEMA, authority)
        agent = Process(home.folder, [sys.executable, "-m", "fedsys.clients.bank.agent"])
        agent.start()
        agents.append(agent)
        until(lambda: any(word in agent.text() for word in words), f"a word of {words}")
        return agent

    yield started
    for agent in agents:
        agent.stop()


def test_an_unknown_key_another_authority_and_no_tls_are_told_apart(
    federation, stranger, tmp_path, observed
):
    address = federation.home.facts.address
    ours = federation.home.authority_path.read_bytes()
    unknown = stranger(address, ours, "does not let this bank in")
    assert "fedsys federation approve" in unknown.text()
    theirs = make_authority(tmp_path / "other", "other").certificate_path.read_bytes()
    other = stranger(address, theirs, "is not the federation's server")
    until(lambda: not alive(other.pid), "its end")
    assert other.stop() == 5
    with plain_server() as port:
        plain = stranger(f"{LOOPBACK}:{port}", ours, "does not speak TLS")
    assert "Traceback" not in unknown.text() + other.text() + plain.text()
    assert "bank-x" not in federation.home.folder.joinpath("banks.json").read_text()
    refused = federation.audited("request refused")[-1]["details"]
    assert refused == {"bank": "unknown", "code": "identity"}
    observed(17, "unknown key: not let in, audited; other CA: exit code 5, not the "
             "federation's server; no TLS: said so, and waited for")  # fmt: skip


def test_a_server_whose_certificate_is_out_of_date_does_not_start(tmp_path, observed):
    facts = Facts(name="late", host=LOOPBACK, port=free_port(), banks=2)
    home = Home.create(tmp_path / "late", facts, SCHEMA)
    long_ago = datetime.now(UTC) - timedelta(days=900)
    authority = make_authority(tmp_path / "authority", "late", long_ago)
    issue_server(tmp_path / "server", authority, [LOOPBACK], long_ago)
    for name in ("authority", "server"):
        (home.folder / name).rename(tmp_path / f"{name}-new")
        (tmp_path / name).rename(home.folder / name)
    assert read_authority(home.folder / "authority")
    server = Process(home.folder, [sys.executable, "-m", "fedsys.federation.server"])
    server.start()
    until(lambda: not alive(server.pid), "its end")
    assert server.stop() == 5, server.text()
    assert "expired on" in server.text()
    assert "Traceback" not in server.text()
    assert not (home.folder / "flower" / "state.db").exists(), "nothing was started"
    observed(18, f"does not start, exit code 5: {server.text().strip()[-90:]}")


def test_a_copied_or_altered_request_of_a_node_is_refused_while_its_bank_goes_on(
    federation, observed
):
    server, bank = federation.home.server(), federation.bank("bank-a")
    active = bank.node(free_port()).active()
    beat = SendNodeHeartbeatRequest(node=Node(node_id=active[1]), heartbeat_interval=30.0)
    before = len(federation.audited("request refused"))
    job = federation.ask(rounds=1, quorum=3)

    def ask(client):
        return client.SendNodeHeartbeat(beat)

    copied = recorded(server, bank.keys, ask)
    assert sent_again(server, copied) == (403, "replayed")
    held = recorded(server, bank.keys, ask, arrives=False)
    bare = {name: value for name, value in held.headers.items() if name != HEADER}
    assert sent_again(server, held, content=held.content + b"\0") == (403, "altered")
    # This would take a message from the bank.
    assert sent_again(server, held, path="/v1/fleet/pull-messages") == (403, "altered")
    assert sent_again(server, held, headers=bare) == (403, "unsigned")
    assert sent_again(server, held) == (200, ""), "as it was signed, and for the first time"
    # Another bank's name, with a signature of one's own.
    other = federation.bank("bank-b")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        recorded(server, other.keys, ask)

    told = [entry["details"] for entry in federation.audited("request refused")[before:]]
    assert told == [
        *4 * [{"bank": "bank-a", "code": "identity"}], {"bank": "bank-b", "code": "identity"}
    ]  # fmt: skip
    assert ended(job) == "done", job.status.error
    assert [line["admitted"] for line in lines(job)] == [3]
    assert bank.node(free_port()).active() == active, "its node was not even started again"
    observed(19, "403 and audited: copied, with another body, for another path, in another "
             "bank's name; its bank goes on meanwhile")  # fmt: skip


def test_what_a_node_signs_its_requests_with_is_seen_by_nobody(federation, observed):
    """Row 19, too: what nobody sees cannot be copied."""
    with socket.create_connection((LOOPBACK, federation.home.facts.port), 10.0) as line:
        line.sendall(
            b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        with suppress(ConnectionError):
            assert not line.recv(1000).startswith(b"HTTP/1.1 2"), "answers without TLS"
    logs = [path for process in federation.processes for path in process.folder.rglob("*.log")]
    assert len(logs) >= len(federation.processes)
    for path in logs:
        written = path.read_bytes().lower()
        assert b"flwr-signature" not in written and HEADER.encode() not in written, path
    observed(19, "travels only inside TLS to the pinned authority, and is in no log")
