"""The folder that an engine shares with its child: what the child is given, and its log."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from fedsys.errors import EngineError

LOG = "log.txt"
"""In the folder: what the child says."""

SHORT = 36
"""Letters of a folder that leave room for the names of Ray's sockets in it."""


def made(engine: str, *, sockets: bool = False) -> Path:
    """A new folder for temporary files of an engine. Raises EngineError where there is no room.

    sockets: whether Ray's will lie in it, whose names may not be long.
    """
    place, prefix = tempfile.gettempdir(), f"fedsys-{engine}-"
    if sockets and len(f"{place}/{prefix}12345678") > SHORT and os.path.isdir("/tmp"):
        place = "/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        raise not_written(engine, Path(place), error) from error


def cleared(folder: Path, *, failed: bool) -> None:
    """Removes a folder; of a child that failed, its log stays there."""
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != LOG:
            shutil.rmtree(path, True) if path.is_dir() else path.unlink(missing_ok=True)


def not_written(engine: str, place: Path, error: OSError) -> EngineError:
    """What to raise where a place does not take what belongs there."""
    return EngineError(
        f"engine {engine!r}: {place}: cannot be written: {error.strerror or error}: make room "
        "there, or name another place in TMPDIR"
    )
