"""The coordinator's side of a deployed Flower, as far as it is not public.

Nodes that may join, runs that we drive, replies that are fetched part by part. Like
`compat_nodes.py`, and tested with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from fedsys.flower.compat_nodes import Headers, TaskGone, claimed, executor, unpacked, version


def control(address: str, authority: bytes, headers: dict[str, str]) -> Any:
    """A client of the SuperLink's Control API. authority: the CA's certificate as a PEM."""
    from flwr.supercore.control.control_http_client import ControlHttpClient

    interceptors = [version("flwr"), Headers(headers)]
    return ControlHttpClient.from_server_address(address, False, authority, interceptors)


def registered(client: Any) -> dict[bytes, int]:
    """Public key (PEM) -> node id, of all nodes that may join."""
    from flwr.proto.control_pb2 import ListNodesRequest

    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {bytes(node.public_key): node.node_id for node in nodes if node.status != "unregistered"}


def online(client: Any) -> dict[bytes, bool]:
    """Public key (PEM) -> whether the node is connected, of all nodes that may join."""
    from flwr.proto.control_pb2 import ListNodesRequest

    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {
        bytes(node.public_key): node.status == "online"
        for node in nodes
        if node.status != "unregistered"
    }


def register(client: Any, public_key: bytes) -> int:
    """Lets a node join, and gives its id."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    return int(client.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)


def unregister(client: Any, node: int) -> None:
    """Keeps a node out from now on."""
    from flwr.proto.control_pb2 import UnregisterNodeRequest

    client.UnregisterNode(UnregisterNodeRequest(node_id=node))


def start_run(client: Any, bundle: bytes) -> int:
    """Creates a run, which then waits for somebody to claim its server's task."""
    import hashlib

    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
    return int(client.StartRun(StartRunRequest(fab=fab)).run_id)


def stop_run(client: Any, run_id: int) -> None:
    """Ends a run; what its nodes still hold of it is dropped."""
    from flwr.proto.control_pb2 import StopRunRequest

    client.StopRun(StopRunRequest(run_id=run_id))


def claimed_grid(
    address: str, authority: bytes, headers: dict[str, str], secret: bytes, run_id: int
) -> Any:
    """The grid of a run whose server's task is claimed, as a ServerApp's process would do it.

    secret: of the SuperLink's executor. Gives None where the task is not there to be claimed.
    """
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest
    from flwr.superlink.grid import HttpGrid

    token = claimed(executor(address, authority, headers, secret), "flwr-serverapp", run_id)
    if token is None:
        return None

    class OurGrid(HttpGrid):
        def _connect(self) -> None:
            super()._connect()
            assert self._client is not None
            self._client._interceptors = (*self._client._interceptors, Headers(headers))

    grid = OurGrid(address, False, authority, token=token)
    grid._retry_invoker = _Patient()  # type: ignore[assignment]
    given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    grid.set_run(run_from_proto(given.run))
    TaskIdentity.task_id = given.task_id
    TaskIdentity.run_id = given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    return grid


PATIENCE = 60.0
"""Seconds that a server which does not answer is asked again and again."""


class _Patient:
    """Asks again while the server is away. Flower's own way ends this process where a token is
    no longer valid, which is no reason to here: see `run_is_over`."""

    def invoke(self, ask: Callable[[], Any]) -> Any:
        import httpx

        end, pause = time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                return ask()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                answer = getattr(error, "response", None)
                away = answer is None or answer.status_code in (502, 503, 504)
                if not away or time.monotonic() > end:
                    raise
            time.sleep(pause)
            pause = min(1.0, 2 * pause)


def run_is_over(error: Exception) -> bool:
    """Whether an error of a grid means that its run has ended, or was never there."""
    answer = getattr(error, "response", None)
    return answer is not None and answer.status_code in (400, 401, 403, 404)


@dataclass
class Coming:
    """A reply whose objects may still be on their way. question: the message that it answers.
    name: its own id. missing: objects that are not here yet. contents: those that are."""

    question: str
    name: str
    missing: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)


def claim_replies(grid: Any, questions: Sequence[str]) -> list[Coming]:
    """The replies to messages that are there, or begin to be: each is told once."""
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    request = PullAppMessagesRequest(message_ids=questions)
    given = grid._runtime_client.PullMessages(request)
    return [
        Coming(
            reply.metadata.reply_to_message_id,
            reply.metadata.message_id,
            [part.object_id for part in iterate_object_tree(tree)],
        )
        for reply, tree in zip(given.messages_list, given.message_object_trees, strict=True)
    ]


def fetch_reply(grid: Any, coming: Coming) -> Message | None:
    """The reply if all of it is there; else what there is is kept in `coming`.

    Flower's own way waits for the rest, however long, while other replies are there. Raises
    TaskGone where a part will never come.
    """
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    client, run_id = grid._runtime_client, grid.run.run_id

    def pull(name: str) -> Any:
        return client.PullObject(PullObjectRequest(node=grid.node, run_id=run_id, object_id=name))

    with ThreadPoolExecutor(FETCHES) as pool:
        for name, given in zip(coming.missing, pool.map(pull, coming.missing), strict=True):
            if not given.object_found:
                raise TaskGone("a part of the reply is gone")
            if given.object_available:
                coming.contents[name] = given.object_content
    coming.missing = [name for name in coming.missing if name not in coming.contents]
    if coming.missing:
        return None
    client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=grid.node, run_id=run_id, message_object_id=coming.name)
    )
    message: Any = inflate_object_from_contents(coming.name, coming.contents)
    message.metadata.__dict__["_message_id"] = coming.name
    if message.has_content():
        message.content = unpacked(message.content)
    return message


FETCHES = 4
"""Parts of a reply that are asked for at a time."""


def push_was_cut(error: Exception) -> bool:
    """Whether the server was started again while a message was on its way to it: what there is
    of the message is never completed."""
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    return isinstance(error, ObjectPushError)
