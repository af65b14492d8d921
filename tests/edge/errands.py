"""What the tests of the worker have done in another process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from fedsys.errors import DataError


def echo(value: Any) -> Any:
    return value


def refuse() -> None:
    raise DataError("mend the data")


def stumble() -> None:
    raise KeyError("lost it")


def crash(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    print("out of ideas", file=sys.stderr, flush=True)
    os._exit(3)


def shout() -> str:
    print("aloud")
    os.write(2, b"from below Python\n")
    return "done"


def sleep(mark: Path) -> None:
    mark.write_text(str(os.getpid()))
    time.sleep(1000)
