"""Everything of Flower that is not public and that fedsys stands on, in one place.

A new version of Flower may change any of it: `tests/flower/test_compat.py` says what breaks then.
What is public (`flwr.app`, `flwr.clientapp`, `flwr.serverapp`) is imported where it is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Flower reads these when it is imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = SUPERLINK_NODE_ID
"""The node that a ServerApp's messages come from."""

SYSTEM_MESSAGE = SYSTEM_MESSAGE_TYPE
"""The type of a message that no app has sent."""

UNKNOWN = ErrorCode.UNKNOWN
APP_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
APP_CRASHED = ErrorCode.CLIENT_APP_CRASHED
MESSAGE_GONE = ErrorCode.MESSAGE_UNAVAILABLE
NODE_AWAY = ErrorCode.NODE_UNAVAILABLE

LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE: "its message is gone",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer got lost",
    ErrorCode.NODE_UNAVAILABLE: "its node is away",
}
"""Errors that may be over when the message is sent again."""

FAILED = {
    ErrorCode.UNKNOWN: "Flower could not run it",
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its app could not be loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "its app failed",
    ErrorCode.MOD_FAILED_PRECONDITION: "a mod of its app refused",
    ErrorCode.INVALID_FAB: "its app is not valid",
    ErrorCode.CLIENT_APP_CRASHED: "its app crashed",
}
"""Errors of the client itself."""

TOO_LARGE, MALFORMED = 1001, 1002
REFUSED = {
    TOO_LARGE: "larger than its answer can be",
    MALFORMED: "no message that can be read",
}
"""Codes of our own, for replies that a grid does not take."""


def new_run(run_id: int) -> Run:
    """What a grid knows of its run."""
    run = Run.create_empty(run_id)
    run.primary_task_id = SERVER_NODE
    return run


def copied_run(run: Run) -> Run:
    """The same facts in an object of its own."""
    return Run(**vars(run))


@contextmanager
def identity(run_id: int) -> Iterator[None]:
    """Lets this process make messages of a run: `Message(...)` fails without an identity.

    It is global to the process, so runs in one process must not overlap; what was there before
    is put back.
    """
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id = SERVER_NODE
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def built_message(
    metadata: Metadata, content: RecordDict | None = None, error: Error | None = None
) -> Message:
    """A message with metadata as they are, which the public constructor would make anew."""
    return make_message(metadata, content=content, error=error)


def twin(metadata: Metadata, content: RecordDict) -> Message:
    """A message with a copy of these metadata. Unlike `built_message` it checks nothing."""
    message = Message.__new__(Message)
    message.__dict__.update(_metadata=shallow(metadata), _content=content, _error=None)
    return message


def shallow(value: Any) -> Any:
    """A copy whose attributes are the same objects: `copy.copy`, and much quicker."""
    made = object.__new__(type(value))
    made.__dict__.update(value.__dict__)
    return made


def data_of(record: Any) -> dict[str, Any]:
    """The dictionary inside a record, where values go that have been checked before."""
    data: dict[str, Any] = record.__dict__["_data"]
    return data


def name_message(message: Message, identifier: str) -> None:
    """Gives a message its id, for which there is no setter."""
    message.metadata.__dict__["_message_id"] = identifier


def node_info(node_id: int, since: str) -> NodeInfo:
    """What a grid says of a node that is there. since: when it came, in ISO format."""
    return NodeInfo(node_id=node_id, status="online", registered_at=since, last_activated_at=since)


def console_handlers() -> list[Any]:
    """The handlers that write Flower's log to the terminal."""
    handlers = logging.getLogger("flwr").handlers
    return [handler for handler in handlers if type(handler).__name__ == "ConsoleHandler"]


def log_error(text: str, *values: object) -> None:
    """Writes an error into Flower's log."""
    logging.getLogger("flwr").error(text, *values)
