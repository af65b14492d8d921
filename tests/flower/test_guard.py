"""The guard before Flower's server: what strangers reach, and how much they may send."""

import asyncio

import pytest

from fedsys.flower.processes.guard import BODY, HEADER, Guard


class App:
    """Reads the body and answers 200."""

    def __init__(self):
        self.body = None

    async def __call__(self, scope, receive, send):
        self.body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.body = None
                return
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(path, *parts, headers=(), kind="http", limit=BODY):
    """(status, body as the app saw it, or None where it never got one)."""
    app, sent = App(), []
    messages = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts or [b""])
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": list(headers)}
    asyncio.run(Guard(app, "right", limit)(scope, receive, send))
    return (sent[0].get("status") if sent else None), app.body


KEY = HEADER.encode()


@pytest.mark.parametrize("path", ["/health", "/v1/fleet/pull-messages", "/v1/fleet/activate-node"])
def test_nodes_reach_what_they_need(path):
    assert ask(path, b"x") == (200, b"x")


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
    path = "/v1/fleet/push-object"
    assert ask(path, b"12345", limit=5) == (200, b"12345")
    assert ask(path, b"123456", limit=5, headers=[(b"content-length", b"6")]) == (413, None)
    assert ask(path, b"123", b"456", limit=5) == (None, None)
    for length in (b"-1", b"1e3", b"9" * 30, b"\xb2"):
        assert ask(path, b"x", limit=5, headers=[(b"content-length", length)]) == (413, None)


def test_a_websocket_is_closed():
    assert ask("/v1/fleet/x", kind="websocket") == (None, None)
