"""The guard before Flower's server: what strangers reach, how much they may send, and what a node's
request is worth to others."""

import asyncio
import base64
import hashlib
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedsys.errors import StorageError
from fedsys.flower.processes import binding, guard
from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.binding import CLOCK, EACH, Seen, Stamp, stamped
from fedsys.flower.processes.guard import BODY, HEADER, UNKNOWN, Guard


class App:
    """Reads the body and answers."""

    def __init__(self):
        self.body, self.status = None, 200

    async def __call__(self, scope, receive, send):
        self.body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.body = None
                return
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def request(path, *parts, headers=(), kind="http"):
    """What comes to the guard: (scope, messages)."""
    target, _, query = path.partition("?")
    scope = {
        "type": kind,
        "method": "POST",
        "path": target,
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
        "client": ("10.0.0.7", 1234),
    }
    return scope, [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts or [b""])
    ]


async def given(guard, scope, messages):
    """(status, the headers of the answer)."""
    sent, messages = [], list(messages)

    async def receive():
        await asyncio.sleep(0)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    return (sent[0].get("status"), dict(sent[0].get("headers", ()))) if sent else (None, {})


def ask(path, *parts, limit=BODY, **options):
    """(status, body as the app saw it, or None where it never got one)."""
    app = App()
    answer = asyncio.run(given(Guard(app, "right", limit), *request(path, *parts, **options)))
    return answer[0], app.body


KEY = HEADER.encode()


def test_whoever_asks_hears_that_the_server_is_there():
    assert ask("/health", b"x") == (200, b"x")


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/control/register-node",
     "/v1/runtime/acquire-task", "/v1/responses", "/v1/fleet", "/v1/fleets/x", "//v1/fleet/x"],
)  # fmt: skip
def test_all_else_is_for_the_coordinator(path):
    assert ask(path) == (403, None)
    assert ask(path, headers=[(KEY, b"wrong")]) == (403, None)
    assert ask(path, headers=[(KEY, b"")]) == (403, None)
    assert ask(path, b"x", headers=[(KEY, b"right")]) == (200, b"x")


def test_a_body_is_limited_whether_or_not_its_length_is_said():
    for path in ("/v1/runtime/push-object", "/v1/fleet/push-object"):
        own = [(KEY, b"right")] if "runtime" in path else of(KEYS["bank-a"], path, b"12345")
        assert ask(path, b"12345", limit=5, headers=own) == (200, b"12345")
        own = [(KEY, b"right")] if "runtime" in path else of(KEYS["bank-a"], path, b"123456")
        long = (None, None) if "runtime" in path else (413, None)
        assert ask(path, b"123", b"456", limit=5, headers=own) == long
        for length in (b"6", b"-1", b"1e3", b"9" * 30, b"\xb2"):
            headers = [*own, (b"content-length", length)]
            assert ask(path, b"123456", limit=5, headers=headers) == (413, None)


def test_a_websocket_is_closed():
    assert ask("/v1/fleet/x", kind="websocket") == (None, None)


# --- a node's requests ---------------------------------------------------------------------------

KEYS = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("bank-a", "bank-b", "stranger")}
PUSH, PULL = "/v1/fleet/push-messages", "/v1/fleet/pull-messages"


def pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def of(key, path, body=b"", now=None, shown=None):
    """The headers of a node's request. shown: the key that it says it has."""
    stamp = stamped(key, b"POST " + path.encode(), hashlib.sha256(body).digest(), now)
    return [
        (NODE.encode(), base64.b64encode(pem(shown or key))),
        (binding.HEADER.encode(), stamp.text().encode()),
    ]


class Server:
    """A guard, the app behind it, and what was told of refusals."""

    def __init__(self, status=200, told=None, **options):
        names = {pem(KEYS[name]): name for name in ("bank-a", "bank-b")}
        self.told, self.app = [], App()
        self.app.status = status
        self.seen = options.setdefault("seen", Seen())

        def refused(bank, source):
            self.told.append((bank, source))
            if told is not None:
                raise told

        self.guard = Guard(self.app, "right", bank_of=names.get, refused=refused, **options)

    def ask(self, path, body=b"", headers=()):
        """(status, what the node hears of its fault, body as the app saw it)."""
        self.app.body = None
        status, answer = asyncio.run(given(self.guard, *request(path, body, headers=headers)))
        return status, answer.get(binding.REFUSED.encode(), b"").decode(), self.app.body


def test_a_nodes_request_goes_through_once():
    server, headers = Server(), of(KEYS["bank-a"], PUSH, b"update")
    assert server.ask(PUSH, b"update", headers) == (200, "", b"update")
    assert server.told == []
    assert server.ask(PUSH, b"update", headers) == (403, "replayed", None)
    assert server.told == [("bank-a", "10.0.0.7")]
    again = of(KEYS["bank-a"], PUSH, b"update")
    assert server.ask(PUSH, b"update", again) == (200, "", b"update"), "signed anew it is another"


def test_an_altered_request_is_refused_and_the_right_one_still_counts():
    server, headers = Server(), of(KEYS["bank-a"], PUSH, b"update")
    key, stamp = headers
    other = of(KEYS["bank-a"], PUSH, b"update")[1][1]
    swapped = [key, (stamp[0], other.rpartition(b".")[0] + b"." + stamp[1].rpartition(b".")[2])]
    theirs = [(NODE.encode(), base64.b64encode(pem(KEYS["bank-b"]))), stamp]
    for path, body, given_headers, bank in [
        (PUSH, b"Update", headers, "bank-a"),
        (PUSH, b"", headers, "bank-a"),
        (PULL, b"update", headers, "bank-a"),
        (f"{PUSH}?x=1", b"update", headers, "bank-a"),
        (PUSH, b"update", swapped, "bank-a"),
        (PUSH, b"update", theirs, "bank-b"),
    ]:
        assert server.ask(path, body, given_headers) == (403, "altered", None)
        assert server.told.pop() == (bank, "10.0.0.7")
    assert len(server.seen) == 0, "who cannot sign fills no memory"
    assert server.ask(PUSH, b"update", headers) == (200, "", b"update")


def test_a_request_without_our_signature_is_refused():
    server, (key, stamp) = Server(), of(KEYS["bank-a"], PUSH, b"update")
    for headers in ([key], [key, (stamp[0], b"x")], [key, stamp, stamp], [key, (stamp[0], b"")]):
        assert server.ask(PUSH, b"update", headers) == (403, "unsigned", None)
        assert server.told.pop() == ("bank-a", "10.0.0.7")


def test_a_key_that_is_no_banks_is_refused_and_named_by_nobody():
    server, stamp = Server(), of(KEYS["bank-a"], PUSH)[1]
    edwards = ed25519.Ed25519PrivateKey.generate()
    small = ec.generate_private_key(ec.SECP256R1())
    key = (NODE.encode(), base64.b64encode(pem(KEYS["bank-a"])))
    for headers in [
        of(KEYS["stranger"], PUSH),
        [stamp],
        [key, key, stamp],  # which of them would Flower read?
        [(NODE.encode(), base64.b64encode(pem(edwards))), stamp],
        [(NODE.encode(), base64.b64encode(pem(small))), stamp],
        [(NODE.encode(), b"\xff\x00"), stamp],
        [(NODE.encode(), base64.b64encode(b"x" * 2000)), stamp],
        [(NODE.encode(), key[1][:40] + b"\n" + key[1][40:]), stamp],
    ]:
        assert server.ask(PUSH, b"", headers) == (403, "unknown", None)
        assert server.told.pop() == (UNKNOWN, "10.0.0.7")
    assert len(server.seen) == 0


def test_old_and_early_requests_are_refused_and_say_by_how_much():
    now = time.time()
    server = Server(clock=lambda: now)
    for off in (CLOCK + 5, -CLOCK - 5, 10**6, -(10**6)):
        headers = of(KEYS["bank-a"], PUSH, now=now + off)
        status, said, body = server.ask(PUSH, b"", headers)
        word, seconds = said.split()
        assert (status, word, body) == (403, "clock", None)
        assert abs(int(seconds) - off) <= 1
    assert server.told == [("bank-a", "10.0.0.7")] * 4
    for off in (CLOCK - 5, -CLOCK + 5):
        assert server.ask(PUSH, b"", of(KEYS["bank-a"], PUSH, now=now + off))[0] == 200


def test_of_copies_that_come_together_one_goes_through():
    server, headers = Server(), of(KEYS["bank-a"], PUSH, b"update")

    async def together():
        return await asyncio.gather(
            *(given(server.guard, *request(PUSH, b"up", b"date", headers=headers)) for _ in "12345")
        )

    answers = [status for status, _ in asyncio.run(together())]
    assert sorted(answers) == [200, 403, 403, 403, 403]
    assert server.told == [("bank-a", "10.0.0.7")] * 4


def test_a_body_cannot_be_held_back_until_its_nonce_is_forgotten(monkeypatch):
    monkeypatch.setattr(binding, "ARRIVING", 0.05)
    server, headers = Server(), of(KEYS["bank-a"], PUSH, b"update")

    async def never():
        await asyncio.sleep(60)

    async def held():
        sent = []

        async def send(message):
            sent.append(message)

        await server.guard(request(PUSH, headers=headers)[0], never, send)
        return sent[0]["status"]

    assert asyncio.run(held()) == 408
    assert server.app.body is None and len(server.seen) == 0


def test_what_comes_in_one_banks_name_at_a_time_is_bounded(monkeypatch):
    monkeypatch.setattr(guard, "COMING", 10)
    server, arrived = Server(), []

    async def upload(body, key="bank-a"):
        """A request whose last bytes come only when all others have sent their first."""
        left, sent = [body[:-1], body[-1:]], []

        async def receive():
            if len(left) == 1:
                await asyncio.sleep(0.01)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message):
            sent.append(message)

        headers = of(KEYS[key], PUSH, body)
        await server.guard(request(PUSH, headers=headers)[0], receive, send)
        arrived.append((key, sent[0]["status"]))

    async def together():
        await asyncio.gather(upload(b"12345"), upload(b"67890"), upload(b"abc"),
                             upload(b"123456789", "bank-b"))  # fmt: skip

    asyncio.run(together())
    assert sorted(arrived) == [("bank-a", 200), ("bank-a", 200), ("bank-a", 503), ("bank-b", 200)]
    arrived.clear()
    asyncio.run(upload(b"1234567890"))
    assert arrived == [("bank-a", 200)], "what has come counts no more"


def test_a_sender_that_leaves_costs_nothing():
    server, headers = Server(), of(KEYS["bank-a"], PUSH, b"update")
    scope, messages = request(PUSH, b"upda", b"te", headers=headers)
    assert asyncio.run(given(server.guard, scope, messages[:1])) == (None, {})
    assert server.told == [] and len(server.seen) == 0
    assert server.ask(PUSH, b"update", headers)[0] == 200


def test_a_node_that_asks_too_often_waits_and_the_others_do_not():
    server = Server(seen=Seen(each=3))
    answers = [server.ask(PULL, b"", of(KEYS["bank-a"], PULL))[0] for _ in range(5)]
    assert answers == [200] * 3 + [503] * 2
    assert server.ask(PULL, b"", of(KEYS["bank-b"], PULL))[0] == 200
    assert server.told == [], "it is no stranger"
    assert EACH / binding.KEPT > 200, "requests a second, for as long as one likes"


def test_what_cannot_be_remembered_is_not_let_in(monkeypatch):
    server = Server()

    def full(key, stamp):
        raise StorageError("no room")

    monkeypatch.setattr(server.seen, "add", full)
    assert server.ask(PULL, b"", of(KEYS["bank-a"], PULL)) == (503, "", None)


def test_a_log_that_cannot_be_written_lets_nobody_in():
    server = Server(told=StorageError("no room"))
    assert server.ask(PUSH, b"", of(KEYS["stranger"], PUSH)) == (403, "unknown", None)
    assert server.ask("/v1/control/start-run") == (403, "", None)
    assert len(server.told) == 2


def test_strangers_at_the_coordinators_interfaces_are_told_of():
    server = Server()
    assert server.ask("/v1/control/start-run") == (403, "", None)
    assert server.told == [(UNKNOWN, "10.0.0.7")]
    assert server.ask("/v1/control/start-run", b"", [(KEY, b"right")])[0] == 200
    assert len(server.told) == 1


def test_a_node_that_speaks_in_anothers_name_is_told_of():
    server = Server(status=401)  # which is what Flower says to it
    assert server.ask(PULL, b"", of(KEYS["bank-b"], PULL))[0] == 401
    assert server.told == [("bank-b", "10.0.0.7")]


def test_a_stamp_of_others_is_never_read_as_ours():
    server = Server()
    forged = Stamp(int(time.time()), "0" * 32, b"\x30\x06\x02\x01\x01\x02\x01\x01")
    headers = [of(KEYS["bank-a"], PUSH)[0], (binding.HEADER.encode(), forged.text().encode())]
    assert server.ask(PUSH, b"", headers) == (403, "altered", None)
