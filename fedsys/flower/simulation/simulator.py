"""The process of Flower's simulation, with FOLDER CHANNEL CLIENTS WORKERS as arguments.

    this process: Flower's ServerApp, which is our GridEngine; asked over CHANNEL for one round
    its children: Ray, whose actors run our ClientApp

It ends, with all that it started, when the other side lets go of it or is gone.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsys.child import end_with_parent
from fedsys.errors import EngineError, FedsysError
from fedsys.flower.rounds.engine import GridEngine
from fedsys.flower.rounds.mail import Lost
from fedsys.flower.simulation.actor import TROUBLE, virtual_app
from fedsys.sessions import end_session

LAST_SECONDS = 5.0
"""How long Ray may take to end by itself."""

PARENT = os.getppid()


def main() -> None:
    """Runs Flower's simulation, whose ServerApp does as it is told, until it is ended."""
    # Flower would take seconds to import it, to look for a GPU; this process needs none.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    from flwr.simulation import run_simulation

    folder, channel = sys.argv[1], Connection(int(sys.argv[2]))
    clients, workers = int(sys.argv[3]), int(sys.argv[4])
    end_with_parent(partial(_end, folder))
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, context: Context) -> None:
        try:
            _serve(grid, channel, folder, clients)
        except (EOFError, OSError):
            threading.Event().wait()  # the other side has ended, and so does this

    try:
        run_simulation(
            server_app=app,
            client_app=virtual_app(folder),
            num_supernodes=clients,
            backend_config={
                "init_args": {"num_cpus": workers, "_temp_dir": f"{folder}/ray"},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )
    except BaseException as error:
        cause = error
        while cause.__cause__ is not None:  # Flower's own say no more than that there was one
            cause = cause.__cause__
        _say(channel, "error", f"{type(cause).__name__}: {cause}")
        traceback.print_exception(error)
        _end(folder)


def _serve(grid: Grid, channel: Connection, folder: str, clients: int) -> None:
    """Does what it is told: ("open", what `GridEngine` needs) or ("run", experiment, work)."""
    while len(nodes := sorted(grid.get_node_ids())) < clients:
        time.sleep(0.05)  # Flower registers them beside this

    def lost(client: int, lost: Lost) -> None:
        kind = lost.text.partition("'>")[0].rpartition(".")[2] or lost.detail
        raise EngineError(
            f"the Ray actor that trained client {client} is gone ({kind}): it was killed, or "
            "memory ran out: lower --workers"
        )

    def told(client: int, what: str) -> None:
        with suppress(FileNotFoundError):
            said = Path(folder, TROUBLE).read_text()
            raise EngineError(f"client {client} failed: {said}")

    _say(channel, "done", None)
    engines: dict[str, GridEngine] = {}
    while True:
        order, *asked = pickle.loads(channel.recv_bytes())  # from the process that started this
        try:
            answer = None
            if order == "open":
                engine = GridEngine(
                    grid, node_of=nodes.__getitem__, own_stays=False, lost=lost, told=told,
                    **asked[0],
                )  # fmt: skip
                engines[asked[0]["experiment"]] = engine
            else:
                answer = engines[asked[0]].run(asked[1])
        except Exception as error:
            said = "" if isinstance(error, FedsysError) else f"{type(error).__name__}: "
            _say(channel, "error", f"{said}{error}")
        else:
            _say(channel, "done", answer)


def _say(channel: Connection, kind: str, value: Any) -> None:
    with suppress(OSError):
        channel.send_bytes(pickle.dumps((kind, value)))


def _end(folder: str) -> None:
    """Ends Ray and this process, whatever its threads do."""
    threading.Timer(LAST_SECONDS, os._exit, [1]).start()
    with suppress(Exception):
        import ray

        ray.shutdown()
    end_session(os.getpid())
    if os.getppid() != PARENT:  # it was killed: nobody else is left to clear up
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
