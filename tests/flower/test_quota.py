"""What a node may send to Flower's server: what questions to it call for, and no more."""

import asyncio
import base64

import pytest

from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.quota import ANSWER, HEADER, QUESTION, Quota, allowance

KEY, OTHER = b"-----BEGIN PUBLIC KEY-----\none", b"-----BEGIN PUBLIC KEY-----\nother"


class Line:
    """Requests to an app behind the quota, one after another. seen: the bodies that it got."""

    def __init__(self, spare=0):
        self.seen = []
        self.quota = Quota(self.app, spare)

    async def app(self, scope, receive, send):
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        self.seen.append(b"".join(parts))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(self, path, *parts, headers=()):
        """The status, or None where there was no answer."""
        sent = []
        messages = [
            {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
            for index, part in enumerate(parts or [b""])
        ]
        messages.append({"type": "http.disconnect"})

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "path": path, "headers": list(headers)}
        asyncio.run(self.quota(scope, receive, send))
        return sent[0].get("status") if sent else None

    def question(self, size, key=KEY):
        header = (HEADER.encode(), allowance(size, key).encode())
        assert self.ask(QUESTION, b"question", headers=[header]) == 200

    def answer(self, size, key=KEY, path=ANSWER[1]):
        header = (NODE.encode(), base64.b64encode(key))
        return self.ask(path, b"x" * size, headers=[header])


@pytest.mark.parametrize("path", ANSWER)
def test_a_node_sends_what_an_answer_can_have_twice_and_no_more(path):
    line = Line()
    line.question(100)
    assert line.answer(100, path=path) == line.answer(60, path=path) == 200
    assert line.answer(50, path=path) == 413
    assert line.answer(40, path=path) == 200, "what was refused is not counted"
    assert line.answer(1, path=path) == 413
    assert [len(body) for body in line.seen[1:]] == [100, 60, 40]


def test_the_next_question_allows_the_next_answer():
    line = Line()
    for _ in range(5):
        line.question(100)
        assert line.answer(150) == 200
        assert line.answer(50) == 200


def test_questions_do_not_add_up():
    line = Line()
    for _ in range(50):
        line.question(100)
    assert line.answer(400) == 200
    assert line.answer(1) == 413


def test_each_node_has_its_own():
    line = Line()
    line.question(100)
    assert line.answer(100, OTHER) == 413
    line.question(10, OTHER)
    assert line.answer(20, OTHER) == 200
    assert line.answer(200) == 200


def test_a_key_that_is_spelt_in_another_way_is_the_same():
    line = Line(spare=50)
    line.question(10)
    assert line.answer(20) == 200
    text = base64.b64encode(KEY).decode()
    other = (NODE.encode(), f"{text[:8]}\n{text[8:]}".encode())
    assert line.ask(ANSWER[1], b"x" * 20, headers=[other]) == 413


def test_one_that_was_not_asked_since_the_start_has_a_little():
    line = Line(spare=30)
    assert line.answer(30) == 200
    assert line.answer(1) == 413


def test_all_else_passes_as_it_is():
    line = Line()
    assert line.ask("/v1/fleet/pull-messages", b"1", b"2", b"3") == 200
    assert line.ask("/v1/runtime/push-object", b"x" * 100) == 200
    assert line.seen == [b"123", b"x" * 100]


def test_a_body_in_parts_is_counted_as_one():
    line = Line()
    line.question(10)
    header = (NODE.encode(), base64.b64encode(KEY))
    assert line.ask(ANSWER[1], b"x" * 15, b"y" * 5, headers=[header]) == 200
    assert line.seen[-1] == b"x" * 15 + b"y" * 5
    assert line.ask(ANSWER[1], b"x", headers=[header]) == 413


@pytest.mark.parametrize("said", [b"", b"x", b"-5 eA==", b"12", b"1e9 eA=="])
def test_a_question_that_does_not_say_allows_nothing(said):
    line = Line()
    assert line.ask(QUESTION, headers=[(HEADER.encode(), said)]) == 200
    assert line.answer(1) == 413


def test_a_sender_that_goes_away_is_let_go():
    line = Line(spare=100)
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(line.quota({"type": "http", "path": ANSWER[0], "headers": []}, receive, send))
    assert not sent and not line.seen
