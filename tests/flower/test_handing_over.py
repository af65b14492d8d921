"""A bank's trainer hands its answer to its node, or both start again: no node waits for ever."""

import threading

import httpx
import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import RecordDict

from fedsys.errors import EngineError
from fedsys.flower import compat, compat_nodes
from fedsys.flower.processes import answering
from fedsys.flower.processes.bundle import bundle_hash

from .deployed import message


def failing(*errors):
    """Raises each error once, then answers."""
    left = list(errors)

    def ask():
        if left:
            raise left.pop(0)
        return "answer"

    return ask


def test_what_was_cut_off_is_asked_again():
    """As where a connection was closed at the other end just when it was used again."""
    cut = [httpx.RemoteProtocolError("disconnected"), httpx.ReadError("reset")]
    assert compat_nodes.Again().invoke(failing(*cut)) == "answer"


def test_a_node_that_is_gone_is_not_asked_again():
    with pytest.raises(httpx.ConnectError):
        compat_nodes.Again().invoke(failing(httpx.ConnectError("refused")))


def test_what_stays_cut_off_is_given_up(monkeypatch):
    monkeypatch.setattr(compat_nodes, "AGAIN_SECONDS", 0.0)
    with pytest.raises(httpx.ReadTimeout):
        compat_nodes.Again().invoke(failing(*[httpx.ReadTimeout("slow")] * 99))


def status(code):
    request = httpx.Request("POST", "http://127.0.0.1/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code))


class Tasks:
    """A node's tasks whose answers come to nothing."""

    def __init__(self, address, secret):
        self.client = self

    def claim(self):
        return True

    def read(self):
        with compat.identity(7):
            return message(1, np.zeros(1)), bundle_hash(), None

    def finish(self, reply, context):
        if self.errors:
            raise self.errors.pop(0)
        self.stopping.set()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx.ReadTimeout("slow"), True),
        (httpx.RemoteProtocolError("disconnected"), True),
        (status(500), True),
        (status(401), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_a_part_of_an_answer_ends_the_trainer_and_a_node_that_is_away_does_not(
    tmp_path, monkeypatch, error, again
):
    stopping = threading.Event()
    monkeypatch.setattr(Tasks, "errors", [error], raising=False)
    monkeypatch.setattr(Tasks, "stopping", stopping, raising=False)
    monkeypatch.setattr(compat_nodes, "NodeTasks", Tasks)
    (tmp_path / "secret").write_bytes(b"x")

    def serve():
        with compat.identity(7):
            answering.serve(
                "", tmp_path / "secret", lambda content: RecordDict(), RecordDict, stopping
            )

    if again:
        with pytest.raises(EngineError, match="both have to start again"):
            serve()
    else:
        serve()
        assert stopping.is_set(), "the next answer was handed over"
