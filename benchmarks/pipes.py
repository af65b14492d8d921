"""Worker processes that are asked one thing at a time: a line of JSON in, a line of JSON out.

TensorFlow's threads are set once in a process, so whoever wants other threads is another process.
A worker that is not asked sleeps, so that nobody is measured beside somebody else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Worker:
    """A process that runs `python -m module arguments` and calls `serve`.

    python: the command for Python, this one if not given. alone: in a session of its own, where a
    Ctrl-C of the terminal does not reach it.
    """

    def __init__(
        self, module: str, *arguments: str, python: Sequence[str] = (), alone: bool = False
    ) -> None:
        self._what = " ".join([module, *arguments])
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*(python or [sys.executable]), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            start_new_session=alone,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
        )

    def ask(self, do: str, **options: Any) -> Any:
        """What the worker's function `do` answers."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"do": do, **options}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")
            raise RuntimeError(f"{self._what}: ended while asked to {do}:\n{said}")
        return json.loads(answer)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        if error is not None:
            self._process.kill()
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.close()


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process, or this one, has had resident (VmHWM), on Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answers until nobody asks any more. What else is printed goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        options = json.loads(line)
        print(json.dumps(functions[options.pop("do")](**options)), file=answers, flush=True)
