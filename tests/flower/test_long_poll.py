"""A node that asks for messages waits at the server until there is one, and no longer."""

import asyncio
import base64

import pytest

from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.long_poll import ASKED, LongPoll
from fedsys.flower.processes.quota import HEADER, QUESTION, allowance

KEY, OTHER = b"-----BEGIN PUBLIC KEY-----\none", b"-----BEGIN PUBLIC KEY-----\nother"
LONG = 20.0


class Server:
    """An app behind the long poll. passed: (path, body) of the requests that it got, in order."""

    def __init__(self, seconds=LONG):
        self.passed = []
        self.door = LongPoll(self.app, seconds)

    async def app(self, scope, receive, send):
        self.passed.append((scope["path"], (await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, path, headers, gone=None):
        """The status; None where there was no answer. gone: when its sender leaves."""
        sent = []
        bodies = [{"type": "http.request", "body": path.encode(), "more_body": False}]

        async def receive():
            if bodies:
                return bodies.pop()
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await self.door({"type": "http", "path": path, "headers": headers}, receive, send)
        return sent[0]["status"] if sent else None

    def pull(self, key=KEY, gone=None):
        """A node asks for messages."""
        headers = [(NODE.encode(), base64.b64encode(key))]
        return asyncio.ensure_future(self.ask(ASKED, headers, gone))

    async def push(self, key=KEY):
        """The coordinator has a message for that node."""
        assert await self.ask(QUESTION, [(HEADER.encode(), allowance(9, key).encode())]) == 200


async def turns():
    """Lets everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_first_question_is_answered_at_once():
    async def case():
        server = Server()
        assert await asyncio.wait_for(server.pull(), 5) == 200
        assert server.passed == [(ASKED, ASKED.encode())]

    asyncio.run(case())


def test_a_message_ends_the_wait_of_its_node_alone():
    async def case():
        server = Server()
        await server.pull(KEY)
        await server.pull(OTHER)
        waiting, other = server.pull(KEY), server.pull(OTHER)
        await turns()
        assert not waiting.done() and not other.done()
        await server.push(KEY)
        assert await asyncio.wait_for(waiting, 5) == 200
        assert not other.done()
        assert [path for path, _ in server.passed] == [ASKED, ASKED, QUESTION, ASKED], (
            "the message is there before its node is let through"
        )
        other.cancel()

    asyncio.run(case())


def test_each_message_that_came_meanwhile_is_one_question_without_a_wait():
    async def case():
        server = Server()
        await server.pull()
        await server.push()
        await server.push()
        for _ in range(2):
            assert await asyncio.wait_for(server.pull(), 5) == 200
        third = server.pull()
        await turns()
        assert not third.done()
        third.cancel()

    asyncio.run(case())


def test_without_a_message_a_node_waits_so_long_and_asks_then():
    async def case():
        server = Server(seconds=0.2)
        await server.pull()
        waiting = server.pull()
        await turns()
        assert not waiting.done()
        assert await asyncio.wait_for(waiting, 5) == 200
        assert len(server.passed) == 2

    asyncio.run(case())


@pytest.mark.parametrize("meanwhile", [False, True], ids=["before its message", "as it comes"])
def test_a_node_that_leaves_takes_no_message_with_it(meanwhile):
    async def case():
        server, gone = Server(), asyncio.Event()
        await server.pull()
        waiting = server.pull(gone=gone)
        await turns()
        gone.set()
        if not meanwhile:
            assert await asyncio.wait_for(waiting, 5) is None
        await server.push()
        assert await asyncio.wait_for(waiting, 5) is None
        assert [path for path, _ in server.passed] == [ASKED, QUESTION]
        assert await asyncio.wait_for(server.pull(), 5) == 200, "the message waits for the next"

    asyncio.run(case())


def test_other_requests_pass():
    async def case():
        server = Server()
        for path in ("/v1/fleet/push-messages", "/v1/runtime/pull-messages", "/health"):
            for _ in range(2):
                assert await asyncio.wait_for(server.ask(path, []), 5) == 200

    asyncio.run(case())
