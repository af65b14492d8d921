"""Brings what an engine stands on to this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from importlib.util import find_spec

from fedsys.errors import EngineError

Say = Callable[[str], None]


def requirements(extra: str) -> list[str]:
    """What fedsys asks for with an extra, such as 'ray>=2.55', as its own metadata has it."""
    marker = f'extra == "{extra}"'
    asked = [line.partition(";") for line in requires("fedsys") or []]
    return [what.strip() for what, _, condition in asked if condition.strip() == marker]


def install_packages(extra: str, say: Say) -> None:
    """Installs an extra's packages into this environment, fitted to what is there."""
    wanted = requirements(extra)
    if find_spec("pip") is None:
        raise EngineError(
            f"engine {extra!r}: this environment has no pip: install {' '.join(wanted)} with the "
            "tool that made it"
        )
    say(f"installing {' '.join(wanted)} into {sys.prefix}")
    run = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        faults = [line for line in run.stdout.splitlines() if line.startswith("ERROR")]
        reason = (faults or run.stdout.splitlines() or ["pip says nothing"])[-1]
        raise EngineError(f"engine {extra!r}: {' '.join(wanted)}: not installed: {reason}")
