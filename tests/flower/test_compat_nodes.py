"""What of a deployed Flower is not public and yet stood upon: a version that changes it fails here.

Each message says which of our features breaks. All of it is reached through `compat_nodes.py`.
"""

import asyncio
import hashlib
import inspect
import io
import zipfile
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesRequest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from fedsys.flower import compat_nodes
from fedsys.flower.processes import binding
from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.bundle import bundle, bundle_hash
from fedsys.flower.processes.long_poll import ASKED, SECONDS

SERVER = "fedsys federation serve"
BANK = "fedsys bank join"


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_superlink_asks_for_middleware_when_its_app_is_made():
    from flwr.superlink import extensions, main

    assert main.extensions is extensions, f"{SERVER}: the guard is put in through it"
    assert "extensions.get_middleware()" in inspect.getsource(main._get_middleware), (
        f"{SERVER}: the guard would not be asked"
    )
    assert callable(
        compat_nodes.import_module("flwr.superlink.cli.flower_superlink").flower_superlink
    )


def test_the_superlink_has_the_options_that_make_it_safe():
    module = compat_nodes.import_module("flwr.superlink.cli.flower_superlink")
    parser = module._parse_args_run_superlink()
    given = [
        *("--host", "127.0.0.1", "--port", "1", "--ssl-ca-certfile", "a", "--ssl-certfile", "b"),
        *("--ssl-keyfile", "c", "--database", "d", "--enable-supernode-auth"),
        *("--isolation", "process", "--superexec-auth-secret-file", "e"),
        "--disable-runtime-dependency-installation",
    ]
    known, unknown = parser.parse_known_args(given)
    assert not unknown, f"{SERVER}: options that Flower no longer has"
    assert known.enable_supernode_auth
    assert not known.runtime_dependency_install
    assert not known.insecure


def test_the_supernode_has_the_options_that_make_it_safe():
    module = compat_nodes.import_module("flwr.supernode.cli.flower_supernode")
    given = [
        *("--superlink", "h:1", "--root-certificates", "a", "--auth-supernode-private-key", "b"),
        *("--host", "127.0.0.1", "--port", "1", "--isolation", "process"),
        *("--superexec-auth-secret-file", "c"),
    ]
    known, unknown = module._parse_args_run_supernode().parse_known_args(given)
    assert not unknown, f"{BANK}: options that Flower no longer has"
    assert not known.insecure
    assert not known.runtime_dependency_install


def test_the_supernodes_loop_has_what_we_put_others_in_place_of():
    loop = compat_nodes.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop)
    assert "time.sleep(3)" in source, f"{BANK}: rounds wait seconds for a sleep that has changed"
    assert "time.sleep(0.5)" in source, f"{BANK}: so do replies"
    assert "import time\n" in source, f"{BANK}: the module's own time is replaced"
    assert {"initial_backoff", "backoff_cap"} <= set(parameters(loop.pull_objects)), BANK
    assert parameters(loop.http_request_response)[:4] == [
        "server_address", "insecure", "root_certificates", "authentication_keys",
    ], f"{BANK}: a node that was killed is deactivated there"  # fmt: skip
    assert {"state", "object_store"} <= set(parameters(loop._pull_and_store_message)), BANK
    assert "_pull_and_store_message(\n" in inspect.getsource(loop.start_client_internal), BANK


def test_a_node_may_deactivate_itself():
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    assert hasattr(FleetHttpClient, "DeactivateNode"), f"{BANK}: locked out for a minute"
    assert parameters(NodeAuthHttpInterceptor) == ["private_key", "public_key"], BANK


def test_a_nodes_requests_are_signed_by_a_class_that_is_replaced():
    connection = compat_nodes.import_module("flwr.supernode.fleet_http_connection")
    loop = compat_nodes.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(connection.http_request_response)
    assert "NodeAuthHttpInterceptor(private_key, public_key)" in source, f"{BANK}: nobody gets in"
    assert loop.http_request_response is connection.http_request_response, BANK


def test_a_question_for_messages_may_wait_at_the_server():
    from flwr.supercore.protobuf.client import ProtobufClient
    from flwr.supernode.fleet_http_client import FleetHttpClient

    assert f'path="{ASKED}"' in inspect.getsource(FleetHttpClient.PullMessages), SERVER
    patience = inspect.signature(ProtobufClient).parameters
    assert patience["timeout"].default > 5 * SECONDS, f"{BANK}: nodes give up"


def test_the_server_reads_a_nodes_key_and_time_as_the_guard_does():
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
    from flwr.superlink.routers.fleet import node_auth

    assert FLEET_HTTP_PUBLIC_KEY_HEADER == NODE, f"{SERVER}: no node gets in"
    source = inspect.getsource(node_auth.authenticate_node)
    assert "request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True" in source, (
        f"{SERVER}: the guard asks for one bank's signature, and Flower might take it for another's"
    )
    assert "not -SYSTEM_TIME_TOLERANCE" in source, f"{SERVER}: clocks that are ahead are refused"
    assert node_auth.TIMESTAMP_TOLERANCE >= binding.CLOCK, f"{SERVER}: so are those behind"


PATHS = (
    "/v1/control/start-run",
    "/v1/fleet/pull-messages",
    "/v1/runtime/pull-messages",
    "/v1/runtime/acquire-task",
    "/health",
)
ASIDE = [
    (module, name, path)
    for module, name, paths in compat_nodes.MIDDLEWARES
    for path in PATHS
    if not path.startswith(paths)
]


@pytest.mark.parametrize("module, name, path", ASIDE)
def test_a_middleware_that_steps_aside_would_have_done_nothing(module, name, path):
    middleware = getattr(compat_nodes.import_module(module), name)(None)
    request = Request({"type": "http", "method": "POST", "path": path, "headers": [],
                       "query_string": b"", "server": ("here", 1)})  # fmt: skip
    request.state.protobuf_request = PullMessagesRequest()
    response = Response(b"answer", headers={"x": "y"})
    before, asked = list(response.raw_headers), []

    async def call_next(given):
        asked.append(given)
        return response

    assert asyncio.run(middleware.dispatch(request, call_next)) is response, SERVER
    assert (asked, response.raw_headers) == ([request], before), SERVER


def test_middlewares_that_step_aside_are_those_of_the_server():
    from flwr.superlink import main

    known = [middleware.cls.__name__ for middleware in main._get_middleware()]
    aside = [name for _, name, _ in compat_nodes.MIDDLEWARES]
    others = ["BaseHTTPMiddleware", "ProtobufTranslationMiddleware"]
    assert sorted(known) == sorted([*aside, *others]), f"{SERVER}: rounds are slower than they were"


@pytest.mark.parametrize("path, seen", [("/mine/a", True), ("/other", False), ("/mine", False)])
def test_a_middleware_sees_the_requests_below_its_paths(path, seen):
    class Marking:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app({**scope, "marked": True}, receive, send)

    got = []

    async def app(scope, receive, send):
        got.append(scope)

    compat_nodes._step_aside(Marking, ("/mine/",))
    asyncio.run(Marking(app)({"type": "http", "path": path}, None, None))
    asyncio.run(Marking(app)({"type": "lifespan"}, None, None))
    assert [scope.get("marked", False) for scope in got] == [seen, True]


KEY = ec.generate_private_key(ec.SECP384R1())


def heard(*answers):
    """(stamps of a node's requests, what it was told) where the server answers so to a heartbeat.

    answers: what each says of a fault, or ''.
    """
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

    stamps, told, left = [], [], list(answers)

    def answer(request):
        stamp = binding.read_stamp(request.headers[binding.HEADER].encode())
        digest = hashlib.sha256(request.content).digest()
        assert stamp.fits(KEY.public_key(), b"POST " + request.url.raw_path, digest)
        assert request.headers[NODE]
        stamps.append(stamp)
        fault = left.pop(0)
        return httpx.Response(
            403 if fault else 200, headers={binding.REFUSED: fault} if fault else {}
        )

    client = compat_nodes.fleet("127.0.0.1:1", None, (KEY, KEY.public_key()), told.append)
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    with client, suppress(httpx.HTTPStatusError):
        client.SendNodeHeartbeat(SendNodeHeartbeatRequest(heartbeat_interval=30.0))
    assert not left
    return stamps, told


def test_every_request_of_a_node_is_signed_for_its_path_and_body_and_once():
    assert heard("") != heard("")
    (first, second), told = heard("replayed", "")
    assert first.nonce != second.nonce
    assert told == [], "what came late, or was sent before by another, is signed anew"
    assert heard("clock 500", "clock 500")[1] == ["clock 500"]


def test_clients_of_flowers_interfaces_are_made_as_here():
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.runtime import RuntimeHttpClient

    for client in (ControlHttpClient, RuntimeHttpClient):
        assert parameters(client.from_server_address)[:4] == [
            "server_address", "insecure", "root_certificates", "interceptors",
        ], SERVER  # fmt: skip
    for name in ("StartRun", "StopRun", "RegisterNode", "UnregisterNode", "ListNodes"):
        assert hasattr(ControlHttpClient, name), SERVER
    for name in ("AcquireTask", "PullTaskInput", "PullMessages", "SendTaskHeartbeat"):
        assert hasattr(RuntimeHttpClient, name), SERVER


def test_the_grid_can_be_told_a_run_and_how_long_to_wait():
    from flwr.superlink.grid import HttpGrid

    assert parameters(HttpGrid) == ["runtime_api_address", "insecure", "root_certificates", "token"]
    grid = HttpGrid("127.0.0.1:1", False, None, token="x")
    assert hasattr(grid, "_retry_invoker"), f"{SERVER}: Flower's own would end our process"
    assert hasattr(grid, "node"), f"{SERVER}: replies are fetched in its name"
    for name in ("PullMessages", "PullObject", "ConfirmMessageReceived"):
        assert hasattr(grid._runtime_client, name), f"{SERVER}: replies are fetched by parts"
    assert "_interceptors" in inspect.getsource(
        HttpGrid._connect.__globals__["RuntimeHttpClient"].__mro__[1]
    )


def test_the_app_side_has_the_steps_that_our_trainer_takes():
    app = compat_nodes.import_module("flwr.supernode.runtime.run_clientapp")
    assert parameters(app.pull_task_input) == ["client"], BANK
    assert parameters(app.push_message) == ["client", "message", "context"], BANK
    assert parameters(app.push_task_output) == ["client", "context", "sub_status", "details"], BANK
    assert "initial_backoff" in parameters(app.pull_and_inflate_object_from_tree), BANK
    assert "client.PullMessages(" in inspect.getsource(app.pull_task_input), BANK


def test_a_run_that_ends_amid_a_message_is_no_ordinary_exception():
    from flwr.supercore.run import RunNotRunningException

    assert not issubclass(RunNotRunningException, Exception), (
        f"{BANK}: Flower leaves a task behind because of it; see compat_nodes._forget"
    )


def test_what_the_server_says_of_a_node_tells_when_it_was_started():
    from flwr.proto.node_pb2 import NodeInfo

    names = {field.name for field in NodeInfo.DESCRIPTOR.fields}
    assert {"node_id", "last_activated_at", "status", "public_key"} <= names, (
        f"{SERVER}: messages of a bank that was killed would be waited for"
    )


def test_flower_takes_our_bundle_for_an_app():
    from flwr.cli.config_utils import get_fab_config, get_fab_metadata
    from flwr.common.config import get_fused_config_from_fab
    from flwr.supercore.run import Run

    assert {field.name for field in fields(Run)} >= {"run_id", "fab_hash", "override_config"}
    assert get_fab_metadata(bundle())[0] == "fedsys/fedsys"
    assert get_fab_config(bundle())["tool"]["flwr"]["app"]["publisher"] == "fedsys"
    assert get_fused_config_from_fab(bundle(), Run.create_empty(1)) == {}


def test_the_bundle_is_always_the_same_and_holds_no_code():
    assert bundle() == bundle()
    assert bundle_hash() == "c3bbf146d58878e62fab74f4aca0a8902177fa20b6e978dd71fb071143cec9bb", (
        "a bank refuses runs with another bundle: banks and coordinators of both versions must "
        "be updated together"
    )
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]


def test_small_messages_travel_in_one_piece_and_large_ones_in_theirs():
    small = RecordDict(
        {
            "a": ArrayRecord({"x": Array(np.arange(6.0).reshape(2, 3)), "y": Array(np.ones(2))}),
            "c": ConfigRecord({"round": 3, "signed": b"\x00\xff", "name": "x"}),
            "m": MetricRecord({"loss": float("nan"), "rows": 7}),
        }
    )
    travels = compat_nodes.packed(small)
    assert list(travels) == [compat_nodes.PACKED]
    back = compat_nodes.unpacked(travels)
    assert list(back) == list(small)
    np.testing.assert_array_equal(back["a"]["x"].numpy(), small["a"]["x"].numpy())
    assert back["c"] == small["c"]
    assert back["m"]["rows"] == 7
    large = RecordDict({"a": ArrayRecord({"x": Array(np.zeros(200_000))})})
    assert compat_nodes.packed(large) is large
    assert compat_nodes.unpacked(large) is large


@given(st.binary(max_size=300))
def test_what_cannot_be_unpacked_is_empty(data):
    record = ConfigRecord({"content": data})
    assert isinstance(compat_nodes.unpacked(RecordDict({compat_nodes.PACKED: record})), RecordDict)
    for wrong in (ConfigRecord({"content": "x"}), ConfigRecord({}), MetricRecord({"content": 1})):
        assert not compat_nodes.unpacked(RecordDict({compat_nodes.PACKED: wrong}))
