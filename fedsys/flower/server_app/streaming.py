"""A grid of Flower's that hands replies on as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedsys.flower.rounds.mail import FIRST, GROWTH, PULLED

LONGEST = 0.25
"""Seconds between two looks for replies, at most."""


class StreamingGrid(Grid):
    """Another grid, but `send_and_receive` yields replies as they come, and holds none.

    Flower's own keeps all replies of a round in a list, and sleeps for seconds between two looks.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Sends the messages when the first reply is asked for, and yields replies as they come.

        timeout: seconds after which no more is waited for.
        """
        messages = list(messages)
        size = max((_bytes(message.content) for message in messages), default=0)
        waiting = dict.fromkeys(name for name in self._grid.push_messages(messages) if name)
        del messages
        window, pause = max(1, PULLED // max(1, size)), FIRST
        end = None if timeout is None else time.monotonic() + timeout
        while waiting:
            names, heard = list(waiting), 0
            for start in range(0, len(names), window):
                for reply in self._grid.pull_messages(names[start : start + window]):
                    if reply.metadata.reply_to_message_id in waiting:
                        del waiting[reply.metadata.reply_to_message_id]
                        heard += 1
                        yield reply
            left = None if end is None else end - time.monotonic()
            if not waiting or (left is not None and left <= 0):
                return
            pause = FIRST if heard else min(pause * GROWTH, LONGEST)
            time.sleep(pause if left is None else min(pause, left))


def _bytes(content: RecordDict) -> int:
    """The size of the arrays in a message, which a reply has about as many of."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    return sum(len(array.data) for array in arrays)
