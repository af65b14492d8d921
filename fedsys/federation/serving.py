"""`fedsys federation serve`: one at a time of each federation, until it is ended."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedsys.errors import UsageError
from fedsys.storage import storing

LOCK = "serve.lock"


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Holds the folder's lock, which goes with the process. Raises UsageError where another does.

    what: of which the folder is, for people.
    """
    with storing(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{folder}: {what} runs already (process {_holder(folder) or 'unknown'}): end that "
                "first, or leave it running"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def holder(folder: Path) -> int | None:
    """The process that holds the folder's lock; None where none does."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _holder(folder) or 0
    finally:
        os.close(descriptor)
    return None


def _holder(folder: Path) -> int | None:
    try:
        return int((folder / LOCK).read_text("ascii"))
    except (OSError, ValueError):
        return None


def until_ended(run: Callable[[], object]) -> int:
    """Runs what goes on until somebody ends it, and gives the exit code: 0 after SIGTERM, as a
    service's manager sends it, and 130 after Ctrl-C."""
    asked = False

    def end(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        run()
    except KeyboardInterrupt:
        return 0 if asked else 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def warm() -> None:
    """Loads TensorFlow, which takes seconds, before the first job."""
    from fedsys.flower.app.loading import quiet_imports

    with quiet_imports():
        import keras

        keras.ops.zeros(1)
