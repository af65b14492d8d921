"""What an engine is before it is opened: a name and some options."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fedsys.engine import Engine
    from fedsys.setting import Setting


@dataclass(frozen=True)
class Status:
    """Whether an engine can be used on this machine.

    version: of what it stands on, such as 'ray 2.55.1'; empty where that is not there.
    missing: one phrase, such as 'ray is not installed'; empty where nothing is missing.
    """

    version: str
    missing: str = ""


class EngineChoice(Protocol):
    """An engine and its options: a frozen dataclass of plain values.

    Says where an experiment is run, not what comes of it, so it is no part of the experiment.
    """

    def status(self) -> Status: ...

    def open(self, setting: Setting, workers: int | None) -> AbstractContextManager[Engine]:
        """The engine, ready for the rounds of an experiment, and ended with the context.

        workers: how many work side by side; the engine's default if None. Raises UsageError for
        what the engine cannot do, and EngineError where what it needs is missing.
        """
        ...


def package_status(package: str) -> Status:
    """The status of an engine that needs a package in this environment."""
    try:
        return Status(f"{package} {version(package)}")
    except PackageNotFoundError:
        return Status("", f"{package} is not installed")
