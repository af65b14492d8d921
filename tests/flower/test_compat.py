"""What of Flower is not public and yet stood upon: a new version that changes it fails here.

Each message says which of our features breaks. All of it is reached through `flower/compat.py`.
"""

import inspect
import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsys.flower import compat

GRID = "fedsys simulate --app (InProcessGrid)"


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_flower_is_of_a_version_that_this_was_written_for():
    from importlib.metadata import version

    assert version("flwr").startswith("1.41."), "read compat.py again and widen pyproject.toml"


def test_a_task_identity_can_be_set_and_put_back():
    from flwr.supercore.task_identity import TaskIdentity

    wanted = ("_task_id", "_run_id", "_node_id")
    assert all(hasattr(TaskIdentity, name) for name in wanted), f"{GRID}: Message() needs it"
    before = [getattr(TaskIdentity, name) for name in wanted]
    with compat.identity(77):
        message = Message(RecordDict(), 5, "train")
        assert message.metadata.run_id == 77
        assert message.metadata.src_node_id == compat.SERVER_NODE == 1
        assert TaskIdentity.task_id == compat.SERVER_NODE
    assert [getattr(TaskIdentity, name) for name in wanted] == before


def test_a_message_gets_its_id_from_outside():
    with compat.identity(1):
        message = Message(RecordDict(), 5, "train")
        compat.name_message(message, "mine")
        assert message.metadata.message_id == "mine", f"{GRID}: replies name what they answer"
        assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "mine"


def test_a_message_is_built_with_metadata_as_they_are():
    with compat.identity(1):
        message = Message(RecordDict(), 5, "train", ttl=9.0, group_id="3")
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    built = compat.built_message(message.metadata, content)
    assert built.metadata is message.metadata, f"{GRID}: clients get a copy of a message"
    assert built.content is content
    failed = compat.built_message(message.metadata, error=Error(2, "why"))
    assert failed.has_error() and not failed.has_content()


def test_a_twin_of_a_message_has_metadata_and_content_and_no_more():
    with compat.identity(1):
        message = Message(RecordDict(), 5, "train", ttl=9.0, group_id="3")
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    twin = compat.twin(message.metadata, content)
    assert vars(twin).keys() == vars(message).keys(), f"{GRID}: a message has more to it now"
    assert twin.content is content and not twin.has_error()
    assert twin.metadata == message.metadata and twin.metadata is not message.metadata


def test_values_go_straight_into_a_record():
    record = ConfigRecord({"a": 1})
    compat.data_of(record)["b"] = 2
    assert dict(record.items()) == {"a": 1, "b": 2}, f"{GRID}: copies of records are made so"


def test_error_codes_are_those_of_flower():
    assert (compat.UNKNOWN, compat.APP_RAISED, compat.MESSAGE_GONE, compat.APP_CRASHED) == (
        0, 2, 3, 8), f"{GRID}: error replies carry these codes"  # fmt: skip


def test_a_run_is_made_and_copied():
    run = compat.new_run(99)
    copy = compat.copied_run(run)
    assert (copy.run_id, copy.primary_task_id) == (99, compat.SERVER_NODE), f"{GRID}: grid.run"
    assert copy is not run and copy == run
    assert {"run_id", "fab_id", "override_config"} <= {each.name for each in fields(run)}


def test_a_node_is_described():
    info = compat.node_info(2**62, "2026-01-01T00:00:00+00:00")
    assert (info.node_id, info.status) == (2**62, "online"), f"{GRID}: grid.get_nodes"


def test_the_system_message_type_is_a_valid_one():
    from flwr.app import Metadata

    metadata = Metadata(1, "a", 1, 1, "b", "", 1.8e9, 0.0, compat.SYSTEM_MESSAGE)
    assert metadata.message_type == "system", f"{GRID}: the reply to an unknown id has this type"


def test_flower_logs_through_a_handler_whose_stream_can_be_turned():
    handlers = compat.console_handlers()
    assert len(handlers) == 1, "fedsys simulate --app shows Flower's log, or hushes it"
    assert isinstance(handlers[0], logging.StreamHandler)
    assert isinstance(handlers[0].colored, bool)


def test_a_grid_has_no_other_duties():
    duties = {"set_run", "run", "create_message", "get_node_ids", "push_messages",
              "pull_messages", "send_and_receive"}  # fmt: skip
    assert Grid.__abstractmethods__ == duties, f"{GRID}: it has to answer all of these"
    assert "get_nodes" in vars(Grid)
    assert parameters(Grid.send_and_receive) == ["self", "messages", "timeout"]


def test_apps_are_called_with_these_arguments():
    assert parameters(ClientApp.__call__) == ["self", "message", "context"], GRID
    assert parameters(ServerApp.__call__) == ["self", "grid", "context"], GRID
    names = ["run_id", "node_id", "node_config", "state", "run_config", "series_id"]
    assert [each.name for each in fields(Context)] == names, f"{GRID}: contexts are copied"


def test_records_can_be_copied_one_level_deep():
    record = ArrayRecord({"a": Array("float32", (1,), "numpy.ndarray", b"x")})
    copy = record.copy()
    del copy["a"]
    assert list(record) == ["a"], f"{GRID}: messages are isolated by such copies"
    records = RecordDict({"arrays": record})
    copied = records.copy()
    copied["more"] = ConfigRecord()
    assert list(records) == ["arrays"]


def test_no_other_module_imports_what_is_not_public():
    public = {"flwr.app", "flwr.clientapp", "flwr.clientapp.mod", "flwr.serverapp",
              "flwr.serverapp.strategy", "flwr.simulation"}  # fmt: skip
    room = Path(compat.__file__).parent
    for path in sorted(room.parent.rglob("*.py")):
        for name in re.findall(r"^\s*(?:from|import) (flwr[\w.]*)", path.read_text(), re.M):
            ours = tuple(room.glob("compat*.py"))
            assert name in public or path in ours, f"{path}: {name}"
