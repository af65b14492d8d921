"""Flower's node as our process: let in when it may be, back at once, and never with a stranger."""

import os
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.errors import IdentityError, NetworkError
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.flower.processes.superlink import free_port
from fedsys.flower.processes.superlink import supervised as supervised_server
from fedsys.flower.processes.supernode import NotLetIn, _why, probe, supervised
from tests.flower.deployed import Bank, Deployed, alive, until


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return Deployed(tmp_path_factory.mktemp("deployed"), banks=2)


@pytest.fixture(scope="module")
def server(deployed):
    with supervised_server(deployed.server) as process:
        deployed.admit()
        yield process


def test_a_node_that_was_killed_is_back_although_the_server_takes_it_for_active(deployed, server):
    bank = deployed.banks[0]
    with supervised(bank.node, bank.said.append) as process:
        first = bank.node.active()
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: process.starts == 2)
        process.wait_ready()
        second = bank.node.active()
    assert second[1] == first[1] == deployed.nodes[0], "the same node"
    assert second[0] != first[0], "another process"
    # Flower would have refused it for a minute: it has to have come at its first try.
    assert bank.said == ["Flower's node ended (SIGKILL); starting it again"]


def test_a_whole_bank_that_was_killed_is_back_at_its_first_try(deployed, server):
    bank = deployed.banks[1]
    with supervised(bank.node) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.stop()
    said = []
    with supervised(bank.node, said.append) as process:
        assert alive(process.pid)
    assert said == []


def test_a_node_that_is_not_approved_waits_and_comes_when_it_is(deployed, server, tmp_path):
    bank = Bank(tmp_path, deployed.server)
    process = supervised(bank.node, bank.said.append)
    begun = threading.Thread(target=process.__enter__)
    begun.start()
    try:
        until(lambda: bank.said)
        assert "does not let this bank in" in bank.said[0]
        assert "fedsys federation approve" in bank.said[0]
        deployed.banks.append(bank)
        deployed.admit()
        begun.join(60)
        assert bank.node.active()[1] == deployed.nodes[2]
    finally:
        process.stop()
        deployed.banks.remove(bank)


def test_a_node_whose_clock_is_wrong_is_told_by_how_much(deployed, server, tmp_path):
    bank = Bank(tmp_path, deployed.server, ahead=900.0)
    process = supervised(bank.node, bank.said.append)
    begun = threading.Thread(target=process.__enter__)
    begun.start()
    try:
        until(lambda: bank.said)
        assert "this machine's clock differs from the coordinator's: it is" in bank.said[0]
        assert "s ahead, of at most 120: timedatectl" in bank.said[0]
        assert process.failure is None, "it is tried again until the clock is set"
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("refused: clock -130\n", "it is 130 s behind"),
        ("refused: clock 900\n[code: 2004] x\n", "has not approved it"),
        ("[code: 2004] x\nrefused: clock 900\n", "it is 900 s ahead"),
        ("refused: replayed\n", "altered, or a second time"),
        ("refused: altered\n", "altered, or a second time"),
        ("refused: unsigned\n", "install the coordinator's fedsys"),
        ("refused: unknown\n", "fedsys federation approve"),
    ],
)
def test_why_the_guard_refuses_a_node_is_told_and_waited_for(deployed, said, words):
    error = _why(deployed.banks[0].node, said)
    assert isinstance(error, NotLetIn)
    assert words in str(error)


def test_a_node_waits_for_a_server_that_is_away(tmp_path):
    deployed = Deployed(tmp_path, banks=1)
    bank = deployed.banks[0]
    process = supervised(bank.node, bank.said.append)
    begun = threading.Thread(target=process.__enter__)
    begun.start()
    try:
        until(lambda: bank.said)
        assert bank.said[0].startswith(f"waiting: {deployed.server.address}: ")
        with supervised_server(deployed.server):
            deployed.admit()
            begun.join(60)
            assert bank.node.active()[1] == deployed.nodes[0]
            with DeployedGrid(deployed.access) as grid:
                deployed.await_nodes(grid)
    finally:
        process.stop()


def test_a_server_that_is_not_the_federations_is_refused(deployed, server, tmp_path):
    other = Deployed(tmp_path, banks=1)
    with pytest.raises(IdentityError, match="is not the federation's server"):
        probe(deployed.server.address, other.server.authority)
    with pytest.raises(NetworkError, match="is the server running"):
        probe(f"127.0.0.1:{free_port()}", deployed.server.authority)
    probe(deployed.server.address, deployed.server.authority)


def test_a_node_listens_on_this_machine_alone(deployed, server):
    bank = deployed.banks[0]
    with supervised(bank.node) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert "--insecure" not in arguments
    assert arguments[arguments.index("--isolation") + 1] == "process"
