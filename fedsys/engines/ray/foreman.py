"""The process that owns Ray, so that nothing of Ray is in the user's.

Ray ends the process that uses it when its control process is lost, prints as it likes, and takes
signals for itself. Here all of that hits the foreman alone. When the process that started it lets
go of it or is gone, it ends whatever it started, and itself.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from fedsys.child import end_with_parent
from fedsys.engine import merged
from fedsys.engines.ray import cluster
from fedsys.engines.ray.messages import (
    Connected,
    Failed,
    Job,
    Opening,
    Ready,
    Recruits,
    Said,
    Summed,
)
from fedsys.errors import EngineError, FedsysError
from fedsys.sessions import end_session, listed, look

FAREWELL = 3.0
"""Seconds that leaving a cluster may take."""


def main(pipe: int) -> None:
    """Serves whoever is at the other end of the pipe, a file descriptor."""
    wire: Connection[Any, Any] = Connection(pipe)
    opening: Opening = wire.recv()
    end_with_parent(partial(_end, opening))
    orders: queue.Queue[Any] = queue.Queue(maxsize=4)
    threading.Thread(target=_listen, args=(wire, orders), daemon=True).start()
    say = partial(_say, wire)
    try:
        _serve(wire, orders, opening, say)
    except FedsysError as error:
        wire.send(Failed(type(error).__name__, str(error)))
    except MemoryError as error:
        wire.send(Failed("MemoryError", str(error)))
    except OSError:
        pass  # nobody listens any more
    except Exception as error:
        wire.send(Failed("EngineError", f"Ray failed: {type(error).__name__}: {_line(error)}"))
    threading.Event().wait()  # for the other side to have read it


def _serve(wire: Any, orders: queue.Queue[Any], opening: Opening, say: Any) -> None:
    import ray

    workers = opening.workers
    if opening.address is None:
        cluster.start(opening)
        alive: Callable[[], None] = partial(_alive, _children())
    else:
        room = cluster.join(opening.address, opening.threads)
        if workers is not None and workers > room:
            raise EngineError(
                f"the Ray at {opening.address} has free cores for {room} workers of "
                f"{opening.threads} thread{'s' * (opening.threads > 1)}, not {workers}: "
                f"lower --workers to {room}"
            )
        workers = workers or room
        cluster.check_nodes(opening.address, opening.version)
        alive = _nothing
    assert workers is not None
    wire.send(Connected(workers, ray.__version__))
    recruits: Recruits = orders.get()
    team = _team(recruits, orders, workers, opening.threads, alive, say)
    wire.send(Ready(team.open()))
    while True:
        job: Job = orders.get()
        partials = team.run(job)
        wire.send(Summed(merged(partials, recruits.layout, remembers=recruits.remembers)))


def _team(
    recruits: Recruits,
    orders: queue.Queue[Any],
    workers: int,
    threads: int,
    alive: Any,
    say: Any,
) -> Any:
    """The workers-to-be, with the rows that follow."""
    import ray

    from fedsys.engines.ray.team import Team

    recipe = ray.put(np.frombuffer(recruits.recipe, np.uint8))
    rows = [_array(orders, shape, dtype) for shape, dtype in recruits.arrays]
    if not recruits.homes:
        arguments = [(recipe, None, *rows)] * workers
    else:
        parts = [rows[low : low + 2] for low in range(0, len(rows), 2)] or [[]] * workers
        arguments = [
            (recipe, home, *part) for home, part in zip(recruits.homes, parts, strict=True)
        ]
    return Team(arguments, threads, bound=bool(recruits.homes), alive=alive, say=say)


def _array(orders: queue.Queue[Any], shape: tuple[int, ...], dtype: str) -> Any:
    """An array that comes piece by piece, in Ray's store."""
    import ray

    array = np.empty(shape, dtype)
    place, flat = 0, array.reshape(-1).view(np.uint8)
    while place < len(flat):
        piece = np.frombuffer(orders.get(), np.uint8)
        flat[place : place + len(piece)] = piece
        place += len(piece)
    return ray.put(array)


# --- the end -----------------------------------------------------------------------------------


def _listen(wire: Any, orders: queue.Queue[Any]) -> None:
    """Passes on what comes. It waits where orders pile up, so it cannot hear of the end as well."""
    with suppress(EOFError, OSError):
        while True:
            orders.put(wire.recv())


def _end(opening: Opening) -> None:
    """Ends whatever was started here, takes its files away, and ends."""
    if opening.address is not None:
        leaving = threading.Thread(target=_leave, daemon=True)
        leaving.start()
        leaving.join(FAREWELL)
    end_session(os.getpid())
    shutil.rmtree(opening.folder, ignore_errors=True)
    os._exit(0)


def _leave() -> None:
    import ray

    ray.shutdown()


def _children() -> dict[int, str]:
    """Ray's processes that it cannot do without: number -> name."""
    return {
        pid: one.name
        for pid, one in listed().items()
        if one.parent == os.getpid() and one.name in ("raylet", "gcs_server")
    }


def _alive(children: dict[int, str]) -> None:
    """Raises EngineError where a process of Ray's is dead."""
    for pid, name in children.items():
        one = look(pid)
        if one is None or one.ended or one.parent != os.getpid():
            raise EngineError(
                f"Ray's process {name!r} ({pid}) died: go on from the last checkpoint with --resume"
            )


def _nothing() -> None: ...


def _say(wire: Any, line: str) -> None:
    wire.send(Said(line))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    main(int(sys.argv[1]))
