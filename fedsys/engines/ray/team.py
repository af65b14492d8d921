"""Workers on Ray, and what happens when one of them dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fedsys.engine import Partial
from fedsys.engines.ray.messages import Held, Job
from fedsys.engines.ray.worker import Worker
from fedsys.errors import EngineError, FedsysError

TICK = 1.0
"""Seconds between two looks at whether Ray itself lives."""

ROOM = 120.0
"""Seconds in which a worker must be ready."""

DEATHS = 3
"""Workers that may die of one shard, or at one place before they are ready."""

SHOWN = 5
"""Clients that are named of a shard."""


@dataclass
class Place:
    """A worker's place, which outlives the worker.

    arguments: for `Worker.open`. actor: who is there. opening: its answer to come, until it is
    ready. shard: what it trains, and running: the answer to come. deaths: of workers that were
    not ready yet, in a row. since: when the worker was hired.
    """

    number: int
    arguments: tuple[Any, ...]
    actor: Any = None
    opening: Any = None
    held: Held | None = None
    shard: int | None = None
    running: Any = None
    deaths: int = 0
    since: float = field(default_factory=time.monotonic)


class Team:
    """Workers, each at its place.

    arguments: of each worker's `open`. bound: whether a shard can only be trained at the place of
    its number, where its rows are. alive: raises EngineError where Ray itself is dead. say: told
    of what the user should know.
    """

    def __init__(
        self,
        arguments: Sequence[tuple[Any, ...]],
        threads: int,
        *,
        bound: bool,
        alive: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._threads, self._bound, self._alive, self._say = threads, bound, alive, say
        self._places = [Place(number, given) for number, given in enumerate(arguments)]

    def open(self) -> list[Held]:
        """Hires everybody and waits until all are ready."""
        for place in self._places:
            self._hire(place, cores=self._threads)
        while any(place.held is None for place in self._places):
            self._look()
        return [place.held for place in self._places if place.held is not None]

    def run(self, job: Job) -> Iterator[Partial]:
        """The partials of a round, in the order of its shards."""
        given = ray.put(np.frombuffer(job.given, np.uint8))
        waiting = deque(number for number, shard in enumerate(job.shards) if len(shard))
        partials: dict[int, Partial] = {}
        deaths: dict[int, int] = {}
        needed = len(waiting)
        first = True
        while len(partials) < needed:
            self._hand_out(job, given, waiting, first)
            first = False
            for place, partial in self._look():
                shard, place.shard, place.running = place.shard, None, None
                assert shard is not None
                if partial is not None:
                    partials[shard] = partial
                    continue
                deaths[shard] = deaths.get(shard, 0) + 1
                clients = _named(job.shards[shard])
                if deaths[shard] == DEATHS:
                    raise EngineError(
                        f"round {job.round}: {DEATHS} workers died one after another of "
                        f"{clients}: look at their data, or give workers more memory "
                        "(lower --workers)"
                    )
                self._say(f"round {job.round}: {clients} will be trained again by another worker")
                waiting.appendleft(shard)
        for number in sorted(partials):
            yield partials.pop(number)

    # --- a look around ---------------------------------------------------------------------------

    def _hand_out(self, job: Job, given: Any, waiting: deque[int], first: bool) -> None:
        """Gives shards to who is ready and idle. Each worker first gets the shard of its own
        number, which it may have planned already."""
        for number in list(waiting):
            own = self._places[number]
            idle = [own, *(self._places if not (first or self._bound) else [])]
            place = next((p for p in idle if p.held is not None and p.shard is None), None)
            if place is None:
                continue
            waiting.remove(number)
            ahead = None
            if place is own and place.number < len(job.ahead) and len(job.ahead[place.number]):
                ahead = job.ahead[place.number]
            place.shard = number
            place.running = place.actor.run.remote(
                job.round, job.shards[number], given, dict(job.memory[number]), ahead
            )

    def _look(self) -> list[tuple[Place, Partial | None]]:
        """Waits a moment, and returns who is done with what, or died of it."""
        waited = {place.running: place for place in self._places if place.running is not None}
        hired = {place.opening: place for place in self._places if place.opening is not None}
        everybody = [*waited, *hired]
        done, _ = ray.wait(everybody, num_returns=1, timeout=TICK)
        if not done:
            self._alive()
            self._in_time()
            return []
        happened: list[tuple[Place, Partial | None]] = []
        for answer in ray.wait(everybody, num_returns=len(everybody), timeout=0)[0]:
            if answer in hired:
                self._opened(hired[answer])
            else:
                place = waited[answer]
                partial = self._got(place, answer)
                if partial is None:
                    self._hire(place)
                happened.append((place, partial))
        return happened

    def _got(self, place: Place, answer: Any) -> Any:
        """A worker's answer, or None where it died."""
        try:
            return ray.get(answer, timeout=ROOM)
        except RayTaskError as error:
            raise _cause(error, place) from error
        except (RayError, GetTimeoutError) as error:
            self._alive()
            who = f"worker {place.number + 1}"
            if place.held is not None:
                who += f" (process {place.held.pid} on {place.held.host})"
            self._say(f"{who} died: {_why(error)}")
            return None

    def _opened(self, place: Place) -> None:
        held = self._got(place, place.opening)
        place.opening = None
        if held is not None:
            place.held, place.deaths = held, 0
            return
        place.deaths += 1
        if place.deaths == DEATHS:
            raise EngineError(
                f"worker {place.number + 1} died {DEATHS} times before it was ready: is there "
                "enough memory? lower --workers"
            )
        self._hire(place)

    def _in_time(self) -> None:
        for place in self._places:
            if place.opening is not None and time.monotonic() - place.since > ROOM:
                raise EngineError(
                    f"worker {place.number + 1} of {len(self._places)} is not ready after "
                    f"{ROOM:.0f} s: the cluster has no room, or is lost: lower --workers"
                )

    def _hire(self, place: Place, cores: int = 0) -> None:
        """Puts a new worker at a place.

        cores: that it asks for. One in the place of another asks for none: its room is there
        already, or it went with a node.
        """
        if place.actor is not None:
            ray.kill(place.actor)
        hiring = ray.remote(Worker).options(
            num_cpus=cores, scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0
        )
        place.actor, place.held = hiring.remote(), None
        place.opening, place.since = place.actor.open.remote(*place.arguments), time.monotonic()


def _cause(error: RayTaskError, place: Place) -> Exception:
    """What went wrong in a worker that lives."""
    cause = error.cause
    if isinstance(cause, FedsysError | MemoryError):
        return cause
    reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    return EngineError(f"worker {place.number + 1} failed: {reason}")


def _why(error: Exception) -> str:
    """Why a worker died, short."""
    text = " ".join(str(error).split())
    if "low on memory" in text:  # Ray's own guard; that of the system only ends the process
        return "its node ran out of memory"
    if "node" in text.lower() and ("dead" in text or "died" in text or "lost" in text):
        return "its node is lost"
    return "its process ended"


def _named(shard: np.ndarray) -> str:
    """`client 3` or `clients 1, 2, 3 and 4 more`."""
    shown = ", ".join(map(str, shard[:SHOWN]))
    more = f" and {len(shard) - SHOWN} more" if len(shard) > SHOWN else ""
    return f"client{'s' * (len(shard) > 1)} {shown}{more}"
