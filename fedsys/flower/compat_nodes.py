"""Everything of a deployed Flower that is not public and that fedsys stands on, in one place.

`compat.py` has what simulations need. A new version of Flower may change any of it:
`tests/flower/test_compat_nodes.py` says what breaks then. Flower's parts are imported where they
are used: they take a second, and most of fedsys needs none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from fedsys.flower import compat  # noqa: F401  sets what Flower reads when it is imported

QUICK_PULL = {"initial_backoff": 0.02, "backoff_cap": 0.5}
"""Seconds between looks for an object that is still being uploaded. Flower begins with 1."""


class Headers:
    """Adds headers to every request of a client; they may change between requests."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers.update(self.headers)
        return call_next(context)


def run_superlink(arguments: Sequence[str], guard: Any, options: Mapping[str, Any]) -> None:
    """Is `flower-superlink`, behind a middleware of ours (an ASGI class) that sees all requests."""
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink
    from starlette.middleware import Middleware

    extensions.get_middleware = lambda: (Middleware(guard, **options),)
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def run_supernode(
    arguments: Sequence[str],
    sleep: Callable[[float], None],
    stale: int | None,
    activated: Callable[[int], None],
) -> None:
    """Is `flower-supernode`, without its long sleeps.

    sleep: instead of `time.sleep` in its loop. stale: the id that this node had when it was killed:
    the server takes the node for active for another minute, so it is first deactivated with the
    node's own key. activated: is told the node's id.
    """
    from flwr.supernode.cli.flower_supernode import flower_supernode

    loop: Any = import_module("flwr.supernode.start_client_internal")
    connect, receive = loop.http_request_response, loop._pull_and_store_message

    @contextmanager
    def connected(address: str, insecure: bool, authority: Any, keys: Any, *rest: Any) -> Any:
        if stale is not None:
            _deactivate(address, authority, keys, stale)
        with connect(address, insecure, authority, keys, *rest) as connection:
            activated(connection[0])
            yield connection

    def received(*, state: Any, object_store: Any, **rest: Any) -> int | None:
        run_id = receive(state=state, object_store=object_store, **rest)
        if run_id is None:
            _forget(state, object_store)
        return run_id

    loop.http_request_response = connected
    loop._pull_and_store_message = received
    loop.time = SimpleNamespace(sleep=sleep)
    _pull_quickly(loop, "pull_objects")
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()


def _forget(state: Any, store: Any) -> None:
    """Drops a message that came with a run that ended meanwhile. Flower leaves its task behind,
    which our app, unlike Flower's, would wait for in vain."""
    from flwr.common.constant import Status, SubStatus

    for message in state.get_messages_legacy(is_reply=False):
        store.delete(message.metadata.message_id)
        state.delete_messages(message_ids=[message.metadata.message_id])
    left = [Status.PENDING, Status.STARTING, Status.RUNNING]
    for task in state.get_tasks(statuses=left):
        state.finish_task(task.task_id, sub_status=SubStatus.FAILED, details="the run ended")


def _deactivate(address: str, authority: Any, keys: Any, node: int) -> None:
    import httpx
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    interceptors = [_version("SuperNode"), NodeAuthHttpInterceptor(*keys)]
    client = FleetHttpClient.from_server_address(address, False, authority, interceptors)
    with client, suppress(httpx.HTTPError):  # not active, or no longer known: not in the way
        client.DeactivateNode(DeactivateNodeRequest(node_id=node))


def _pull_quickly(module: Any, name: str) -> None:
    """Shortens the pauses of a module's function that pulls objects."""
    if not isinstance(getattr(module, name), partial):
        setattr(module, name, partial(getattr(module, name), **QUICK_PULL))


def _version(component: str) -> Any:
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return RuntimeVersionHttpInterceptor(component_name=component)


# The server's side: its nodes, and runs that we drive.


def control(address: str, authority: bytes, headers: dict[str, str]) -> Any:
    """A client of the SuperLink's Control API. authority: the CA's certificate as a PEM."""
    from flwr.supercore.control.control_http_client import ControlHttpClient

    interceptors = [_version("flwr"), Headers(headers)]
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

    token = _claimed(_executor(address, authority, headers, secret), "flwr-serverapp", run_id)
    if token is None:
        return None

    class OurGrid(HttpGrid):
        def _connect(self) -> None:
            super()._connect()
            assert self._client is not None
            self._client._interceptors = (*self._client._interceptors, Headers(headers))

    _pull_quickly(import_module("flwr.superlink.grid.http_grid"), "pull_objects")
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


MESSAGE_SECONDS = 10.0
"""How long a task's message may be later than the task."""


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


def is_away(error: Exception) -> bool:
    """Whether an error means that the other side does not answer, or no longer knows the task."""
    import httpx

    return isinstance(error, httpx.HTTPError)


def _executor(address: str, authority: bytes | None, headers: dict[str, str], secret: bytes) -> Any:
    from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    signed = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    return RuntimeHttpClient.from_server_address(
        address, authority is None, authority, [_version("SuperExec"), Headers(headers), signed]
    )


def _claimed(executor: Any, component: str, run_id: int | None = None) -> str | None:
    """The token of the oldest task that waits; of that run, if one is given."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType

    kind = TaskType.SERVER_APP if component == "flwr-serverapp" else TaskType.CLIENT_APP
    while True:
        given = executor.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        if not given.HasField("task") or not given.token:
            return None
        if run_id in (None, given.task.run_id):
            return str(given.token)


def beat(client: Any) -> bool:
    """Says that a claimed task is still worked on. False where it is no longer ours."""
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

    return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)


# The bank's side: the messages that a SuperNode has for its app.


class TaskGone(Exception):
    """A task whose message is not there: its run ended while the node was receiving it."""


class NodeTasks:
    """Claims a SuperNode's tasks one after another, in a process that stays.

    address: of its Runtime API on this machine. secret: of its executor.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
        from flwr.supercore.runtime import RuntimeHttpClient

        class Client(RuntimeHttpClient):
            """A node makes a task before it has the task's message."""

            def PullMessages(self, request: Any) -> Any:  # noqa: N802
                given = super().PullMessages(request)
                end = time.monotonic() + MESSAGE_SECONDS
                while not given.messages_list and time.monotonic() < end:
                    time.sleep(0.01)
                    given = super().PullMessages(request)
                return given

        app: Any = import_module("flwr.supernode.runtime.run_clientapp")
        _pull_quickly(app, "pull_and_inflate_object_from_tree")
        self._app = app
        self._executor = _executor(address, None, {}, secret)
        self._token = RuntimeTokenHttpInterceptor("none yet")
        self.client = Client.from_server_address(
            address, True, None, [_version("flwr-clientapp"), self._token]
        )

    def claim(self) -> bool:
        """Takes the next task, if there is one."""
        token = _claimed(self._executor, "flwr-clientapp")
        if token is not None:
            self._token._token = token
        return token is not None

    def read(self) -> tuple[Message, str, Any]:
        """The task's message, the hash of its run's bundle, and what `finish` needs.

        Raises TaskGone where there is none any more.
        """
        from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

        try:
            message, context, run, _ = self._app.pull_task_input(self.client)
        except (RuntimeError, ObjectPullError) as error:
            raise TaskGone(str(error)) from None
        return message, run.fab_hash, context

    def finish(self, reply: Message, context: Any) -> None:
        """Sends the reply and ends the task."""
        from flwr.common.constant import SubStatus

        self._app.push_message(self.client, reply, context)
        self._app.push_task_output(self.client, context, SubStatus.COMPLETED, "")
