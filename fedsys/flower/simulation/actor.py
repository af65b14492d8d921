"""What runs inside an actor of Flower's simulation: the clients of a parcel, built once."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp

from fedsys.flower.rounds.client import Member, client_app
from fedsys.flower.rounds.messages import Code

TROUBLE = "trouble.txt"
"""In the simulation's folder: what went wrong at a client; its answer holds no more than a code."""

_OPEN = ExitStack()  # until the process ends


def virtual_app(folder: str) -> ClientApp:
    """The ClientApp of a simulation; it is sent to an actor with every message, so it is small.

    folder: of the simulation; the parcel of an experiment lies there under its name.
    """
    return client_app(partial(_member, folder), partial(_failed, folder))


def _member(folder: str, experiment: str, client: int, context: Context) -> Member:
    return _clients(folder, experiment).member(experiment, client)


@cache
def _clients(folder: str, experiment: str) -> Any:
    """All clients of a parcel. The first message that an actor gets builds and compiles."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from fedsys.engines.compiled import use_threads
    from fedsys.flower.simulation.clients import VirtualClients
    from fedsys.flower.simulation.setting_files import unpack

    use_threads(1, 1)
    return _OPEN.enter_context(VirtualClients.of(unpack(Path(folder, experiment)), 1))


def _failed(folder: str, code: Code, error: Exception) -> None:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    Path(folder, TROUBLE).write_text(said)
