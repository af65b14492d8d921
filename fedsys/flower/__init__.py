"""Flower: its apps on our grid, and our algorithms in its apps. Nothing is loaded before use."""

import os
from typing import TYPE_CHECKING, Any

# Flower reads these when any part of it is imported: nothing is reported to anybody.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

if TYPE_CHECKING:
    from fedsys.flower.app.grid import InProcessGrid
    from fedsys.flower.app.run import AppRun, run_app
    from fedsys.flower.rounds.engine import GridEngine
    from fedsys.flower.server_app.strategy import Strategy

__all__ = ["AppRun", "GridEngine", "InProcessGrid", "Strategy", "run_app"]

_PLACES = {
    "AppRun": "app.run",
    "GridEngine": "rounds.engine",
    "InProcessGrid": "app.grid",
    "Strategy": "server_app.strategy",
    "run_app": "app.run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
