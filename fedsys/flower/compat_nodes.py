"""Everything of a deployed Flower that is not public and that fedsys stands on, in one place.

`compat.py` has what simulations need. A new version of Flower may change any of it:
`tests/flower/test_compat_nodes.py` says what breaks then. Flower's parts are imported where they
are used: they take a second, and most of fedsys needs none.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from fedsys.flower import compat  # noqa: F401  sets what Flower reads when it is imported
from fedsys.flower.processes import binding

QUICK_PULL = {"initial_backoff": 0.02, "backoff_cap": 0.5}
"""Seconds between looks for an object that is still being uploaded. Flower begins with 1."""


AGAIN = 2
"""How often a node signs a request that the guard refused: the first may have come late."""


_CONTROL, _FLEET = "flwr.superlink.routers.control.middlewares", "flwr.superlink.routers.fleet"
_OF_CONTROL, _OF_FLEET = ("/v1/control/",), ("/v1/fleet/",)
_TRACED = ("/v1/runtime/",) if os.environ.get("FLWR_TRACING_ENABLED") == "1" else ()
MIDDLEWARES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (_CONTROL, "ControlSensitiveResponseMiddleware", _OF_CONTROL),
    (_CONTROL, "ControlAuthenticationMiddleware", _OF_CONTROL),
    (_CONTROL, "ControlLicenseMiddleware", _OF_CONTROL),
    (_CONTROL, "ControlEventLogMiddleware", _OF_CONTROL),
    (f"{_FLEET}.node_auth", "NodeAuthMiddleware", _OF_FLEET),
    (f"{_FLEET}.middlewares", "FleetEventLogMiddleware", _OF_FLEET),
    ("flwr.supercore.routers.runtime.tracing", "RuntimeTracingMiddleware", _TRACED),
)
"""Middlewares of Flower's server, and the paths with which they do anything. Each takes every
request through a task and a stream of its own, and the server has one core for all banks."""


class Headers:
    """Adds headers to every request of a client; they may change between requests."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers.update(self.headers)
        return call_next(context)


def run_superlink(arguments: Sequence[str], guard: Any) -> None:
    """Is `flower-superlink`, behind a middleware of ours that sees all requests: guard, of an app,
    gives an ASGI app."""
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink
    from starlette.middleware import Middleware

    # Flower refuses a clock that is 5 s ahead, and ends the node. The guard says what is wrong.
    nodes: Any = import_module("flwr.superlink.routers.fleet.node_auth")
    nodes.SYSTEM_TIME_TOLERANCE = binding.CLOCK
    extensions.get_middleware = lambda: (Middleware(guard),)
    for module, name, paths in MIDDLEWARES:
        _step_aside(getattr(import_module(module), name), paths)
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def _step_aside(middleware: Any, paths: tuple[str, ...]) -> None:
    """Lets a class of middlewares see requests below these paths alone."""
    whole = middleware.__call__

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(paths):
            await self.app(scope, receive, send)
        else:
            await whole(self, scope, receive, send)

    middleware.__call__ = call


def run_supernode(
    arguments: Sequence[str],
    sleep: Callable[[float], None],
    stale: int | None,
    activated: Callable[[int], None],
    refused: Callable[[str], None],
) -> None:
    """Is `flower-supernode`, without its long sleeps, and with requests that count once.

    sleep: instead of `time.sleep` in its loop. stale: the id that this node had when it was killed:
    the server takes the node for active for another minute, so it is first deactivated with the
    node's own key. activated: is told the node's id. refused: see `signing`.
    """
    from flwr.supernode.cli.flower_supernode import flower_supernode

    loop: Any = import_module("flwr.supernode.start_client_internal")
    connect, receive = loop.http_request_response, loop._pull_and_store_message

    @contextmanager
    def connected(address: str, insecure: bool, authority: Any, keys: Any, *rest: Any) -> Any:
        if stale is not None:
            _deactivate(fleet(address, authority, keys, refused), stale)
        with connect(address, insecure, authority, keys, *rest) as connection:
            activated(connection[0])
            yield connection

    def received(*, state: Any, object_store: Any, **rest: Any) -> int | None:
        run_id = receive(state=state, object_store=object_store, **rest)
        if run_id is None:
            _forget(state, object_store)
        return run_id

    connection: Any = import_module("flwr.supernode.fleet_http_connection")
    connection.NodeAuthHttpInterceptor = signing(refused)
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


def signing(refused: Callable[[str], None]) -> Any:
    """A class in place of Flower's that signs a node's requests: it signs them our way, too.

    refused: hears why the guard lets nothing of this node in, in a word of `binding.Fault`.
    """
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    class Signing(NodeAuthHttpInterceptor):
        def intercept(self, context: Any, call_next: Any) -> Any:
            request = context.request
            bare, digest = request.headers.copy(), hashlib.sha256(request.content).digest()
            asked = request.method.encode() + b" " + request.url.raw_path
            for _ in range(AGAIN):
                stamp = binding.stamped(self._private_key, asked, digest)
                request.headers = bare.copy()
                request.headers[binding.HEADER] = stamp.text()
                answer = super().intercept(context, call_next)
                if binding.REFUSED not in answer.headers:
                    return answer
            refused(answer.headers[binding.REFUSED])
            return answer

    return Signing


def fleet(address: str, authority: Any, keys: Any, refused: Callable[[str], None]) -> Any:
    """A client of the SuperLink's Fleet API, as a node has it; use it in a `with`.

    authority: the CA's certificate as a PEM. keys: the node's private and public key.
    """
    from flwr.supernode.fleet_http_client import FleetHttpClient

    interceptors = [version("SuperNode"), signing(refused)(*keys)]
    return FleetHttpClient.from_server_address(address, False, authority, interceptors)


def _deactivate(client: Any, node: int) -> None:
    import httpx
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest

    with client, suppress(httpx.HTTPError):  # not active, or no longer known: not in the way
        client.DeactivateNode(DeactivateNodeRequest(node_id=node))


def _pull_quickly(module: Any, name: str) -> None:
    """Shortens the pauses of a module's function that pulls objects."""
    if not isinstance(getattr(module, name), partial):
        setattr(module, name, partial(getattr(module, name), **QUICK_PULL))


def version(component: str) -> Any:
    """Tells the other side our version of Flower, as it wants to know."""
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return RuntimeVersionHttpInterceptor(component_name=component)


def executor(address: str, authority: bytes | None, headers: dict[str, str], secret: bytes) -> Any:
    """A client of a Runtime API that may claim tasks. authority: None for plain HTTP."""
    from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    signed = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    return RuntimeHttpClient.from_server_address(
        address, authority is None, authority, [version("SuperExec"), Headers(headers), signed]
    )


def claimed(executor: Any, component: str, run_id: int | None = None) -> str | None:
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


def is_away(error: Exception) -> bool:
    """Whether an error means that the other side does not answer, or no longer knows the task."""
    import httpx

    return isinstance(error, httpx.HTTPError)


BEAT_SECONDS = 10.0
"""Flower takes a task that is silent for 60 s for dead."""


def beat(client: Any) -> bool:
    """Says that a claimed task is still worked on. False where it is no longer ours."""
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

    return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)


# A small message in one piece: Flower sends each record and each array by itself.

PACKED = "fedsys.packed"
SMALL = 1 << 20
"""Bytes up to which a message is packed. Of large ones Flower stores what is equal for all banks
once, and sends the pieces side by side."""


def packed(content: RecordDict) -> RecordDict:
    """The content as one record, where it is small."""
    from flwr.common.serde import recorddict_to_proto

    arrays = [array for record in content.array_records.values() for array in record.values()]
    if sum(len(array.data) for array in arrays) > SMALL:
        return content
    data = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return RecordDict({PACKED: ConfigRecord({"content": data})}) if len(data) <= SMALL else content


def unpacked(content: RecordDict) -> RecordDict:
    """The content as it was before it was packed; nothing at all where it cannot be read."""
    if PACKED not in content:
        return content
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Proto

    malformed = import_module("google.protobuf.message").DecodeError
    record = content[PACKED]
    data = record.get("content") if isinstance(record, ConfigRecord) else None
    try:
        if not isinstance(data, bytes) or len(data) > SMALL:
            raise ValueError("is no packed content")
        return recorddict_from_proto(Proto.FromString(data))
    except (malformed, ValueError, TypeError, KeyError, AttributeError):
        return RecordDict()


# The bank's side: the messages that a SuperNode has for its app.


class TaskGone(Exception):
    """A task whose message is not there: its run ended while the node was receiving it."""


MESSAGE_SECONDS = 10.0
"""How long a task's message may be later than the task."""


AGAIN_SECONDS = 20.0
"""How long what was cut off on this machine is asked again."""


class Again:
    """Asks a node again where its answer was cut off, as by a connection that it closed while it
    was idle. Flower does not; and a node that has a part of a reply waits for the rest for ever."""

    def invoke(self, ask: Callable[[], Any]) -> Any:
        import httpx

        end = time.monotonic() + AGAIN_SECONDS
        while True:
            try:
                return ask()
            except httpx.TransportError as error:
                if is_gone(error) or time.monotonic() > end:
                    raise
            time.sleep(0.05)


def is_gone(error: Exception) -> bool:
    """Whether nobody listens any more."""
    import httpx

    return isinstance(error, httpx.ConnectError)


def is_cut(error: Exception) -> bool:
    """Whether a request may have arrived whose answer did not."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError) and not is_gone(error)


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
        self._executor = executor(address, None, {}, secret)
        self._token = RuntimeTokenHttpInterceptor("none yet")
        self.client = Client.from_server_address(
            address,
            True,
            None,
            [version("flwr-clientapp"), self._token],
            retry_invoker=Again(),  # type: ignore[arg-type]
        )

    def claim(self) -> bool:
        """Takes the next task, if there is one."""
        token = claimed(self._executor, "flwr-clientapp")
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
        message.content = unpacked(message.content)
        return message, run.fab_hash, context

    def finish(self, reply: Message, context: Any) -> None:
        """Sends the reply and ends the task."""
        from flwr.common.constant import SubStatus

        reply.content = packed(reply.content)
        self._app.push_message(self.client, reply, context)
        self._app.push_task_output(self.client, context, SubStatus.COMPLETED, "")
