"""The bank's end of Flower's runtime: a warm process answers its node's messages.

    serve(node.address, secret, answer, refuse, stopping)       # in the trainer's process

Flower would start a process for each message, from an app that came over the wire. Here it is one
that stays, of the fedsys that is installed: it claims the messages of runs without code alone. The
coordinator's end is `deployed_grid.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict

from fedsys.errors import EngineError
from fedsys.flower import compat_nodes
from fedsys.flower.processes.bundle import bundle_hash

FIRST, GROWTH, LONGEST = 0.005, 1.2, 0.5
"""Seconds between two looks for a task at the bank's own node: longer and longer while idle."""
Answer = Callable[[RecordDict], RecordDict]
"""From a message's content to its reply's. Raises nothing: what goes wrong is a reply, too."""


def serve(
    address: str,
    secret: Path,
    answer: Answer,
    refuse: Answer,
    stopping: threading.Event,
    told: Callable[[str], None] = lambda line: None,
) -> None:
    """Answers the messages of the bank's own node, one after another, until it shall stop.

    address, secret: of the node's interface on this machine. refuse: answers a message of a run
    that is not fedsys'. The node may be away, and come back. Raises EngineError where both have to
    start again.
    """
    tasks = compat_nodes.NodeTasks(address, secret.read_bytes())
    ours, pause = bundle_hash(), FIRST
    while not stopping.wait(pause):
        try:
            if not tasks.claim():
                pause = min(LONGEST, pause * GROWTH)
                continue
            message, held, context = tasks.read()
            with _Beating(tasks.client):
                content = (answer if held == ours else refuse)(message.content)
            _hand_over(tasks, Message(content, reply_to=message), context)
            pause = FIRST
        except compat_nodes.TaskGone:
            pause = FIRST
        except Exception as error:
            if not compat_nodes.is_away(error):
                raise
            pause = LONGEST


def _hand_over(tasks: compat_nodes.NodeTasks, reply: Message, context: Any) -> None:
    """Gives a reply to the node. Raises EngineError where the node may have a part of it: it would
    wait for the rest for ever, so this process has to end, and its agent starts both again."""
    try:
        tasks.finish(reply, context)
    except Exception as error:
        if compat_nodes.is_cut(error):
            raise EngineError(
                f"the node took a part of an answer, perhaps ({type(error).__name__}): both have "
                "to start again"
            ) from error
        raise


class _Beating:
    """Says that a task is being worked on, while it is."""

    def __init__(self, client: Any) -> None:
        self._client, self._done = client, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="task's heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(compat_nodes.BEAT_SECONDS):
            try:
                compat_nodes.beat(self._client)
            except Exception as error:
                if not compat_nodes.is_away(error):
                    raise
