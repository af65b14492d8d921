"""The coordinator's side of a deployed Flower, as far as it is not public.

Nodes that may join, and runs that we drive; `compat_messages.py` has what goes over their grid.
Like `compat_nodes.py`; tested by `tests/flower/test_compat_grid.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.supercore.task_identity import TaskIdentity

from fedsys.flower.compat_nodes import Headers, claimed, executor, version
from fedsys.flower.processes import quota


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
    address: str,
    authority: bytes,
    headers: dict[str, str],
    secret: bytes,
    run_id: int,
    allowed: Callable[[int], str] = lambda node: "",
) -> Any:
    """The grid of a run whose server's task is claimed, as a ServerApp's process would do it.

    secret: of the SuperLink's executor. allowed: node id -> what a question to it says of its
    answer; see `quota.py`. Gives None where the task is not there to be claimed.
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
            ours = (Headers(headers), _Allowing(allowed))
            self._client._interceptors = (*self._client._interceptors, *ours)

    grid = OurGrid(address, False, authority, token=token)
    grid._retry_invoker = _Patient()  # type: ignore[assignment]
    given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    grid.set_run(run_from_proto(given.run))
    TaskIdentity.task_id = given.task_id
    TaskIdentity.run_id = given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    return grid


class _Allowing:
    """Says with every question what its answer may have."""

    def __init__(self, allowed: Callable[[int], str]) -> None:
        self._allowed = allowed

    def intercept(self, context: Any, call_next: Any) -> Any:
        if context.request.url.path == quota.QUESTION:
            [message] = context.message.messages_list
            said = self._allowed(message.metadata.dst_node_id)
            context.request.headers[quota.HEADER] = said
        return call_next(context)


PATIENCE = 60.0
"""Seconds that a server which does not answer is asked again and again."""


class _Patient:
    """Asks again while the server is away. Flower's own way ends this process where a token is
    no longer valid, which is no reason to here: see `run_is_over`."""

    seconds = PATIENCE

    def invoke(self, ask: Callable[[], Any]) -> Any:
        import httpx

        end, pause = time.monotonic() + self.seconds, 0.05
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


@contextmanager
def asked_once(grid: Any) -> Iterator[None]:
    """What is asked of the server within is not asked again while it is away."""
    grid._retry_invoker.seconds = 0.0
    try:
        yield
    finally:
        grid._retry_invoker.seconds = PATIENCE


def run_is_over(error: Exception) -> bool:
    """Whether an error of a grid means that its run has ended, or was never there."""
    answer = getattr(error, "response", None)
    return answer is not None and answer.status_code in (400, 401, 403, 404)
