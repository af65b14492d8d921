"""What happens at a node: a client gets a message, and a reply or an error comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flwr.app import Context, Error, Message, Metadata, RecordDict

from fedsys.flower import compat
from fedsys.flower.app.copies import copied, copied_context

ClientAppCall = Callable[[Message, Context], Message]
Failed = Callable[[int, BaseException], None]


@dataclass(eq=False)
class Node:
    """A node, and what waits for it."""

    position: int
    context: Context
    waiting: deque[Task] = field(default_factory=deque)
    asked: int = 0  # messages so far


@dataclass(eq=False)
class Task:
    """A message on its way to a node, or its reply on the way back."""

    metadata: Metadata
    content: RecordDict
    node: Node
    seed: int = 0
    reply: Message | None = None

    @property
    def expired(self) -> bool:
        return self.left <= 0

    @property
    def left(self) -> float:
        """Seconds until nobody waits for the reply any more."""
        return float(self.metadata.created_at + self.metadata.ttl - time.time())


class ConfigChanged(ValueError):
    """A client wrote into its run config."""


@dataclass(frozen=True)
class Clients:
    """The clients of all nodes: one app, which finds its node in its context.

    failed: is told of each exception, with the position of its node.
    """

    app: ClientAppCall
    run_config: Mapping[str, Any]
    failed: Failed | None = None

    def reply(self, task: Task) -> Message:
        """Runs the client. Whatever it does to its message and its context is its own affair.

        The node's context becomes the client's only if all went well.
        """
        message = compat.twin(task.metadata, copied(task.content))
        message.metadata.delivered_at = now()
        context = copied_context(task.node.context)
        try:
            reply = self._answer(message, context)
        except (Exception, SystemExit) as error:
            if self.failed is not None:
                self.failed(task.node.position, error)
            asked = compat.built_message(task.metadata, RecordDict())
            reason = f"{type(error)}:<'{text_of(error)}'>"
            reply = Message(Error(code=_code(error), reason=reason), reply_to=asked)
        else:
            task.node.context = context
            if reply.has_content():
                reply = compat.twin(reply.metadata, copied(reply.content))
        compat.name_message(reply, f"reply-{task.metadata.message_id}")
        return reply

    def _answer(self, message: Message, context: Context) -> Message:
        reply = self.app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(
                f"a ClientApp returns a Message, and this returned {type(reply).__name__}"
            )
        if context.run_config != self.run_config:
            raise ConfigChanged(
                "The `run_config` field of the `Context` object cannot be modified "
                f"(run_id: {context.run_id})."
            )
        return reply


def text_of(error: BaseException) -> str:
    """What an exception says, if it can."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be made)"


def now() -> str:
    """The time, as Flower writes it."""
    return datetime.now(UTC).isoformat()


def _code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return int(compat.APP_CRASHED)
    return int(compat.UNKNOWN if isinstance(error, ConfigChanged) else compat.APP_RAISED)
