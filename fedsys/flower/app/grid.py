"""A grid of nodes inside this process: Flower's ServerApp on one side, its ClientApp on the other.

No Ray, no SuperLink, no serialisation. What an app can see is as Flower's own simulation has it:
messages are nobody else's, a node's state stays with the node, a client that fails changes
nothing and becomes an error reply. Unlike there, all nodes are present from the start, and replies
come in the order of the messages, so that a seed decides everything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid

from fedsys.errors import UsageError
from fedsys.flower import compat
from fedsys.flower.app.copies import copied
from fedsys.flower.app.generators import Kept, seed_globals
from fedsys.flower.app.nodes import ClientAppCall, Clients, Failed, Node, Task, now
from fedsys.randomness import hashed

NODES, SERVER, CLIENT = 101, 102, 103
"""What a random number is for, apart from the purposes of `fedsys.randomness`."""

PULL_SECONDS = 1.0
"""How long `pull_messages` waits for replies that are on their way. A loop of push and pull then
gets the replies of quick clients all at once, in every run the same."""

LOOKS, LOOK_SECONDS = 10, 10.0
"""An app that looks for nodes so often, over so long, without sending a message, waits for more
nodes than there are. None will come here, so it is told."""

GONE = (
    "Error: Message Unavailable - The requested message could not be found. It may have expired "
    "due to its TTL, been pulled before, or never existed."
)


@dataclass(eq=False)
class _Waiter:
    """Someone who waits until replies to all of these messages are there."""

    missing: set[str]
    done: threading.Event = field(default_factory=threading.Event)


class InProcessGrid(Grid):
    """Runs a ClientApp for `nodes` virtual nodes. Use it in a `with`, or close it.

    client_app: a ClientApp, or any function from a message and a context to a reply.
    seed: of the nodes' ids and, with one worker, of the global generators that clients draw from.
    workers: threads. One is repeatable, and best for small models in NumPy, which hold the
      interpreter's lock. More help clients that let go of it for long (TensorFlow, PyTorch,
      large arrays); a client that draws from a global generator then differs from run to run.
    run_config: what each client finds in `context.run_config`.
    failed: is told of each exception in a client, with the position of its node.
    """

    def __init__(
        self,
        client_app: ClientAppCall,
        nodes: int,
        *,
        seed: int = 0,
        workers: int = 1,
        run_config: dict[str, Any] | None = None,
        failed: Failed | None = None,
    ) -> None:
        self._seed, self._workers = seed, workers
        self._run_config = dict(run_config or {})
        self._clients = Clients(client_app, self._run_config, failed)
        drawn = hashed(seed, NODES, np.arange(nodes + 1)) >> np.uint64(1)  # fit a signed integer
        run_id, *ids = (int(number) for number in drawn)
        self._run = compat.new_run(run_id)
        self._since = now()
        self._nodes = {
            node_id: Node(position, self._context(node_id, position, nodes))
            for position, node_id in enumerate(ids)
        }
        self._tasks: dict[str, Task] = {}
        self._ready: deque[Node] = deque()
        self._waiters: list[_Waiter] = []
        self._lock = threading.Lock()
        self._work_there = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._busy = 0  # messages that are not answered yet
        self._running: dict[str, threading.Thread] = {}  # ids of those at a client, and where
        self._stuck: set[str] = set()  # and of those that outlasted a timeout
        self._pushes = 0
        self._looks: tuple[float, ...] = ()  # when the app looked for nodes since its last push
        self._home = threading.get_ident()  # other threads may look: Flower's older apps do
        self._numbers = count(1)  # of messages, so that each has an id
        self._defect: BaseException | None = None
        self._server: Kept | None = None  # its generators, while clients run
        self._exit = ExitStack()
        self._exit.enter_context(compat.identity(run_id))

    def _context(self, node_id: int, position: int, nodes: int) -> Context:
        return Context(
            run_id=self._run.run_id,
            node_id=node_id,
            node_config={"partition-id": position, "num-partitions": nodes},
            state=RecordDict(),
            run_config=dict(self._run_config),
        )

    def close(self) -> None:
        """Ends the threads; a client that is at work is not waited for."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._work_there.notify_all()
            idle = not self._busy  # what hangs has no thread in the list any more
        if idle:
            for thread in self._threads:
                thread.join()
        self._exit.close()

    def __enter__(self) -> InProcessGrid:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- what a ServerApp sees -------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        if getattr(run, "run_id", None) != self._run.run_id:
            raise RuntimeError(f"Cannot find the run with ID: {getattr(run, 'run_id', run)}")
        self._run = run

    @property
    def run(self) -> Any:
        return compat.copied_run(self._run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes, in the order of their partitions. Raises UsageError where an app waits for
        more of them, which would never end."""
        if not self._busy and threading.get_ident() == self._home:
            self._looks = (*self._looks[: LOOKS - 1], time.monotonic())
        if len(self._looks) == LOOKS and self._looks[-1] - self._looks[0] > LOOK_SECONDS:
            raise UsageError(
                f"the app waits for more nodes than the {len(self._nodes)} there are: --nodes N"
            )
        return list(self._nodes)

    def get_nodes(self) -> list[Any]:
        return [compat.node_info(node_id, self._since) for node_id in self._nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages and returns their ids. One that cannot be sent is logged and has none.

        Raises ValueError for a message that is a reply, or has no time to live.
        """
        tasks, copies, self._looks = [], _Copies(), ()
        for message in messages:
            if message.metadata.reply_to_message_id or message.metadata.ttl <= 0:
                raise ValueError(f"Invalid message: {message}")
            node = self._nodes.get(message.metadata.dst_node_id)
            if node is None or not message.has_content():
                compat.log_error(
                    "Invalid destination node ID for Message: %s"
                    if node is None
                    else "Message without content for node %s",
                    message.metadata.dst_node_id,
                )
                continue
            name = str(UUID(int=(self._seed % 2**32 << 64) + next(self._numbers)))
            compat.name_message(message, name)
            tasks.append(Task(compat.shallow(message.metadata), copies.of(message.content), node))
        self._enqueue(tasks)
        return [task.metadata.message_id for task in tasks]

    def _enqueue(self, tasks: list[Task]) -> None:
        with self._lock:
            for task in tasks:
                task.seed = task.node.asked
                task.node.asked += 1
            _seed(tasks, self._seed)
            if tasks and not self._busy:
                self._begin_clients()
            self._pushes += 1
            self._busy += len(tasks)
            for task in tasks:
                self._tasks[task.metadata.message_id] = task
                task.node.waiting.append(task)
                if len(task.node.waiting) == 1:
                    self._ready.append(task.node)
            self._man()
            self._work_there.notify(len(tasks))

    def _man(self) -> None:
        """Sees to it that there are threads for the work. The lock is held."""
        while len(self._threads) < min(self._workers, self._busy):
            thread = threading.Thread(target=self._work, daemon=True, name="fedsys-node")
            self._threads.append(thread)
            thread.start()

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, each once; an error for ids that are unknown or too old."""
        ids = list(dict.fromkeys(message_ids))
        self._wait(ids, PULL_SECONDS)
        return list(self._pulled(ids).values())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Pushes messages and returns their replies, in the order of the messages.

        timeout: seconds; what comes later can still be pulled until the message expires.
        """
        ids = self.push_messages(messages)
        end = None if timeout is None else time.monotonic() + timeout
        found: dict[str, Message] = {}
        while len(found) < len(ids) and (end is None or time.monotonic() < end):
            missing = [identifier for identifier in ids if identifier not in found]
            self._wait(missing, None if end is None else end - time.monotonic())
            found.update(self._pulled(missing))
        if len(found) < len(ids):
            self._give_up()
        return [found[identifier] for identifier in ids if identifier in found]

    def _give_up(self) -> None:
        """After a timeout: clients that are still at work get no successor's turn any longer.

        Their threads end with them, and others take over, so that one client that hangs does not
        keep the rest from working, as with Flower.
        """
        with self._lock:
            late = self._running.keys() - self._stuck
            self._stuck |= late
            self._busy -= len(late)
            for identifier in late:
                self._threads.remove(self._running[identifier])
            self._man()
            if not self._busy:
                self._end_clients()

    def _wait(self, ids: list[str], seconds: float | None) -> None:
        """Waits for replies to all of these, until the first of them expires, or so long."""
        with self._lock:
            self._check()
            known = [self._tasks[name] for name in ids if name in self._tasks]
            open_ = [task for task in known if task.reply is None]
            if not open_ or len(known) < len(ids):
                return
            waiter = _Waiter({task.metadata.message_id for task in open_})
            self._waiters.append(waiter)
        limits = [task.left for task in open_] + ([] if seconds is None else [seconds])
        waiter.done.wait(max(min(*limits, threading.TIMEOUT_MAX), 0))
        with self._lock:
            self._waiters.remove(waiter)
            self._check()

    def _check(self) -> None:
        if self._defect is not None:
            raise self._defect

    def _pulled(self, ids: Iterable[str]) -> dict[str, Message]:
        found: dict[str, Message] = {}
        with self._lock:
            for identifier in ids:
                task = self._tasks.get(identifier)
                if task is None or task.expired:
                    self._tasks.pop(identifier, None)
                    found[identifier] = self._gone(identifier)
                elif task.reply is not None:
                    found[identifier] = self._tasks.pop(identifier).reply  # type: ignore[assignment]
        return found

    def _gone(self, identifier: str) -> Message:
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id=f"gone-{identifier}",
            src_node_id=compat.SERVER_NODE,
            dst_node_id=compat.SERVER_NODE,
            reply_to_message_id=identifier,
            group_id="",
            message_type=compat.SYSTEM_MESSAGE,
            created_at=time.time(),
            ttl=0,
        )
        return compat.built_message(metadata, error=Error(compat.MESSAGE_GONE, GONE))

    # --- what the nodes do -----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (task := self._next()) is not None:
                if self._workers == 1:
                    seed_globals(task.seed)
                reply = None if task.expired else self._clients.reply(task)
                with self._lock:
                    if self._answered(task, reply):
                        return
        except BaseException as error:  # a defect of ours: whoever waits must hear of it
            with self._lock:
                self._defect = error
                for waiter in self._waiters:
                    waiter.done.set()

    def _next(self) -> Task | None:
        with self._lock:
            while not self._ready and not self._closed:
                self._work_there.wait()
            if self._closed:
                return None
            task = self._ready.popleft().waiting[0]
            self._running[task.metadata.message_id] = threading.current_thread()
            return task

    def _answered(self, task: Task, reply: Message | None) -> bool:
        """Notes a reply and lets the node's next message go. The lock is held.

        Returns whether another thread took over in the meantime.
        """
        identifier = task.metadata.message_id
        late = identifier in self._stuck
        self._running.pop(identifier, None)
        self._stuck.discard(identifier)
        task.reply = reply
        task.node.waiting.popleft()
        if task.node.waiting:  # one message at a time touches a node's state
            self._ready.append(task.node)
            self._work_there.notify()
        self._busy -= not late
        if not self._busy and not late and not self._closed:
            self._end_clients()
        if reply is None or task.expired:
            self._tasks.pop(identifier, None)
        for waiter in self._waiters:
            waiter.missing.discard(identifier)
            if not waiter.missing:
                waiter.done.set()
        return late

    def _begin_clients(self) -> None:
        """Puts the server's generators aside."""
        self._server = Kept.now()
        if self._workers > 1:
            seed_globals(_drawn(self._seed, CLIENT, self._pushes))

    def _end_clients(self) -> None:
        """Lets the server draw on as if no client had drawn."""
        if self._server is not None:
            self._server.put_back(_drawn(self._seed, SERVER, self._pushes))
            self._server = None


class _Copies:
    """One copy of each content, however many messages share it."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[RecordDict, RecordDict]] = {}

    def of(self, content: RecordDict) -> RecordDict:
        if id(content) not in self._made:  # holds the content too, so that its id stays its own
            self._made[id(content)] = (content, copied(content))
        return self._made[id(content)][1]


def _seed(tasks: list[Task], seed: int) -> None:
    """Gives each task its seed, from its node and how many messages the node had before."""
    nodes = np.array([task.node.position for task in tasks], np.int64)
    asked = np.array([task.seed for task in tasks], np.int64)
    for task, drawn in zip(tasks, hashed(seed, CLIENT, nodes, asked), strict=True):
        task.seed = int(drawn) % 2**32


def _drawn(*parts: int) -> int:
    return int(hashed(*parts)) % 2**32


def server_seed(seed: int) -> int:
    """What a ServerApp's global generators are seeded with."""
    return _drawn(seed, SERVER)
