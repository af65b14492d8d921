"""What a child process of ours does for its parent, which is `supervision.py`.

be_child(work, ready)       # all of its main program
end_with_parent()           # or this alone, as its first act
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedsys.errors import FedsysError
from fedsys.storage import write_atomic
from fedsys.supervision import TERM_SECONDS


def end_with_parent(then: Callable[[], object] | None = None) -> None:
    """Called by a child as its first act: ends it when its parent is gone.

    Its standard input is a pipe into which nobody writes: reading it ends when the parent does.
    then: what ends it, if not a SIGTERM and, some seconds later, a SIGKILL.
    """

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 1):
                pass
        (then or _end_soon)()

    threading.Thread(target=watch, name="parent's pipe", daemon=True).start()


def be_child(work: Callable[[Callable[[], None]], None], ready: Path) -> None:
    """Is all of a child's main program: ends with its parent, and a mistake is a line in its log
    and an exit code.

    work: is given what says that the child is ready, which a file tells its parent.
    """
    end_with_parent()
    interrupted_by_term()
    try:
        work(lambda: write_atomic(ready, [str(os.getpid()).encode()]))
    except KeyboardInterrupt:
        sys.exit(130)
    except FedsysError as error:
        say(f"fedsys: {error}")
        sys.exit(error.code)


def interrupted_by_term() -> None:
    """A SIGTERM is a Ctrl-C from now on, so that what is left behind is the same: nothing."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _end_soon() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(TERM_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def say(line: str) -> None:
    """Prints a line with the time, for a child's log. A full disk is no reason to end."""
    with suppress(OSError):
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), line, flush=True)


def said(log: str) -> list[str]:
    """What `say` printed, without the times, out of a log in which libraries print, too."""
    return [line[21:] for line in log.split("\n")[:-1] if _SAID.match(line)]


_SAID = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
