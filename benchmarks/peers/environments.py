"""An environment of its own for each peer: where it lies, whether it is there, and how it is made.

Environments lie outside the repository, in `$FEDSYS_HOME/peers` or the user's cache folder. Each is
made from a file of pins with hashes, without the resolver: the pins are the whole of it, and one
peer names a package that is gone from the index and that it does not need.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fedsys.errors import EngineError, UsageError

REQUIREMENTS = Path(__file__).parent / "requirements"
PYTHON = (3, 11)
"""The Python that every pinned version has wheels for."""
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
"""Peers that have an environment of their own."""


def home() -> Path:
    """The folder of all environments."""
    given = os.environ.get("FEDSYS_HOME")
    if given:
        return Path(given) / "peers"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fedsys" / "peers"


def interpreter(name: str) -> Path:
    """The Python of an environment, whether it is there or not."""
    return home() / name / "bin" / "python"


def installed(name: str) -> bool:
    """Whether the environment was made to its end, from the pins of today."""
    mark = home() / name / "installed"
    return mark.exists() and mark.read_text() == _digest(name)


def command(name: str) -> str:
    """What makes an environment."""
    return f"python -m benchmarks.peers --install {name}"


def install(name: str) -> Path:
    """Makes an environment anew; returns its Python.

    Raises UsageError for a peer that has none, and EngineError where it cannot be made.
    """
    if name not in NAMES:
        raise UsageError(f"peer {name!r} has no environment: use one of {', '.join(NAMES)}")
    folder = home() / name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"{folder}: {error.strerror}: set FEDSYS_HOME to another folder"
        ) from None
    python, pins = str(interpreter(name)), str(REQUIREMENTS / f"{name}.txt")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    _run(name, [_python(), "-m", "venv", str(folder)])
    _run(name, [python, "-m", "pip", "install", *options, "-r", pins])
    (folder / "installed").write_text(_digest(name))
    return interpreter(name)


def _python() -> str:
    """A Python of the version that the pins are for."""
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    wanted = f"python{PYTHON[0]}.{PYTHON[1]}"
    found = shutil.which(wanted)
    if found is None:
        raise EngineError(f"{wanted} is not on the PATH: the peers' pinned versions need it")
    return found


def _run(name: str, command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise EngineError(f"environment {name!r} cannot be made in {home() / name}: {errors[0]}")


def _digest(name: str) -> str:
    return hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()
