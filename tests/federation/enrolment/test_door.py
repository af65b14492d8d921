"""What stands at the desk's door: its limits, its certificate, and Flower's server behind it."""

import asyncio
import base64
import hashlib
import http.client
import json
import ssl

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.clients.bank.enrolment import enrol
from fedsys.federation.enrolment.desk import LONGEST, PATH
from fedsys.federation.enrolment.door import main
from fedsys.federation.enrolment.nodes import Nodes
from fedsys.flower import compat_nodes
from fedsys.flower.processes import database, launch
from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.binding import HEADER, stamped
from fedsys.flower.processes.superlink import LOOPBACK
from fedsys.trust.keys import make_keys
from tests.federation.doors import behind, invited
from tests.federation.enrolment.conftest import banks, refusals


def raw(home, method, path, body=None, headers=None):
    context = ssl.create_default_context(cafile=str(home.authority_path))
    line = http.client.HTTPSConnection(LOOPBACK, home.facts.port, timeout=20, context=context)
    try:
        line.request(method, path, body, headers or {})
        reply = line.getresponse()
        return reply.status, reply.read()
    finally:
        line.close()


def test_the_door_answers_its_own_and_leaves_the_rest_to_the_guard(home, door):
    assert raw(home, "GET", PATH + "authority") == (200, home.authority_path.read_bytes())
    assert raw(home, "GET", PATH + "enrol")[0] == 405
    status, body = raw(home, "POST", PATH + "nothing", b"{}")
    assert status == 403 and json.loads(body)["code"] == "data"
    assert raw(home, "GET", "/health")[0] == 204
    assert raw(home, "POST", "/v1/control/list-nodes", b"")[0] == 403
    assert raw(home, "POST", "/v1/fleet/activate-node", b"")[0] == 403
    assert refusals(home) == [("unknown", "data")] + [("unknown", "identity")] * 2


def test_a_nodes_request_goes_by_once_and_in_its_banks_name(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    path = "/v1/fleet/pull-messages"
    digest = hashlib.sha256(b"body").digest()
    stamp = stamped(bank.keys.node, b"POST " + path.encode(), digest).text()
    key = base64.b64encode(bank.keys.node_public).decode()
    headers = {NODE: key, HEADER: stamp}
    assert raw(home, "POST", path, b"other", headers)[0] == 403
    assert raw(home, "POST", path, b"body", headers)[0] == 204
    assert raw(home, "POST", path, b"body", headers)[0] == 403
    assert refusals(home) == [("bank-a", "identity")] * 2
    enrol(invited(home, "bank-a"), tmp_path / "new")  # with other keys: the old are nobody's
    stamp = stamped(bank.keys.node, b"POST " + path.encode(), digest).text()
    assert raw(home, "POST", path, b"body", {**headers, HEADER: stamp})[0] == 403
    assert refusals(home)[2:] == [("unknown", "identity")]


def test_the_server_behind_the_door_has_a_quota_as_the_one_without_it(home, tmp_path, monkeypatch):
    keys = make_keys(tmp_path / "keys")
    banks(home).add("bank-a", keys.public)
    made, sent, path = [], [], "/v1/fleet/push-object"
    monkeypatch.setattr(compat_nodes, "run_superlink", lambda rest, guard: made.append(guard))
    for module, name in [(launch, "end_with_parent"), (launch, "give_back"),
                         (database, "small_caches")]:  # fmt: skip
        monkeypatch.setattr(module, name, lambda: None)  # they are for a process of its own
    secret = home.folder / "secrets" / "coordinator"
    main([str(home.folder), str(secret), str(tmp_path / "seen"), "--port"])
    app, body = made[0](behind), bytes(7 << 20)

    async def send(message):
        sent.append(message)

    async def push():
        stamp = stamped(keys.node, b"POST " + path.encode(), hashlib.sha256(body).digest()).text()
        key = base64.b64encode(keys.node_public)
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
                 "query_string": b"", "client": ("10.0.0.7", 1),
                 "headers": [(NODE.encode(), key), (HEADER.encode(), stamp.encode())]}  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, receive, send)

    for _ in range(3):
        asyncio.run(push())
    assert [one["status"] for one in sent if "status" in one] == [204, 204, 413]


def test_strangers_fill_neither_the_log_nor_a_banks_place_in_it(home):
    nodes = Nodes(home)
    for number in range(300):
        nodes.note_refused("unknown", f"10.0.0.{number}")
    assert len(refusals(home)) <= 61
    nodes.note_refused("bank-a", "10.0.0.1")
    assert refusals(home)[-1] == ("bank-a", "identity")
    for _ in range(100):
        nodes.note_refused("bank-a", "10.0.0.1")
    assert len(refusals(home)) <= 72


def test_a_large_body_is_not_read_to_its_end(home, door):
    assert raw(home, "POST", PATH + "enrol", b"x" * (LONGEST + 1))[0] == 413
    assert refusals(home) == []
