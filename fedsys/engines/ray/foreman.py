"""The process that owns Ray, so that nothing of Ray is in the user's.

Ray ends the process that uses it when its control process is lost, prints as it likes, and takes
signals for itself. Here all of that hits the foreman alone. When the other end of its pipe
closes, however that came about, it ends whatever it started, and itself.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

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

FAREWELL = 3.0
"""Seconds that leaving a cluster may take."""


def main(pipe: int) -> None:
    """Serves whoever is at the other end of the pipe, a file descriptor."""
    wire: Connection[Any, Any] = Connection(pipe)
    opening: Opening = wire.recv()
    orders: queue.Queue[Any] = queue.Queue(maxsize=4)
    threading.Thread(target=_listen, args=(wire, orders, opening), daemon=True).start()
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
    threading.Event().wait()  # for the other end to close


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


def _listen(wire: Any, orders: queue.Queue[Any], opening: Opening) -> None:
    """Passes on what comes, until the pipe closes. Then all ends."""
    with suppress(EOFError, OSError):
        while True:
            orders.put(wire.recv())
    if opening.address is None:
        _end(opening.folder)
    leaving = threading.Thread(target=_leave, daemon=True)
    leaving.start()
    leaving.join(FAREWELL)
    _end(opening.folder)


def _leave() -> None:
    import ray

    ray.shutdown()


def _end(folder: str) -> None:
    """Ends whatever was started here, takes its files away, and ends."""
    group = os.getpgid(0)
    for process in _processes():
        if process != os.getpid():
            with suppress(OSError):
                if os.getpgid(process) == group:
                    os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return []


def _children() -> dict[int, str]:
    """Ray's processes that it cannot do without: number -> name."""
    found = {}
    for process in _processes():
        with suppress(OSError):
            name, parent = _stat(process)
            if parent == os.getpid() and name in ("raylet", "gcs_server"):
                found[process] = name
    return found


def _stat(process: int) -> tuple[str, int]:
    """Name of a process, and the number of its parent; of one that ended, 0."""
    text = Path(f"/proc/{process}/stat").read_text()
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    return name, 0 if state == "Z" else int(parent)


def _alive(children: dict[int, str]) -> None:
    """Raises EngineError where a process of Ray's is dead."""
    for process, name in children.items():
        parent = 0
        with suppress(OSError):
            parent = _stat(process)[1]
        if not parent:
            raise EngineError(
                f"Ray's process {name!r} ({process}) died: go on from the last checkpoint with "
                "--resume"
            )


def _nothing() -> None: ...


def _say(wire: Any, line: str) -> None:
    wire.send(Said(line))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    main(int(sys.argv[1]))
