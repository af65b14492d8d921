"""The child process of the engine: started, asked, and ended with all that it started.

    this process ── keeper ── child (TensorFlow Federated) ── worker_binary

The keeper, the child and TFF's worker are a session of their own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from fedsys.engines import scratch
from fedsys.engines.scratch import LOG
from fedsys.engines.tff.child.wire import Closed, receive, send
from fedsys.engines.tff.kept import Kept
from fedsys.errors import EngineError
from fedsys.supervision import how_it_ended

not_written = partial(scratch.not_written, "tff")
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}


class Child:
    """A child process with a folder of its own. A context: it ends with it.

    The folder is removed at the end; where the child failed, its log stays there.
    """

    def __init__(self, python: Path, timeout: float) -> None:
        self._python = python
        self._timeout = timeout
        self._process: Kept | None = None
        self._channel: socket.socket | None = None
        self._failed = False
        self.folder = scratch.made("tff")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> dict[str, np.ndarray]:
        """Starts the child and waits for its first message."""
        ours, theirs = socket.socketpair()
        ours.settimeout(self._timeout)
        self._channel = ours
        number = theirs.fileno()
        serve = ["-s", "-P", "-m", "child.serve", str(self.folder), str(number)]
        try:
            self._process = Kept(
                [str(self._python), *serve],
                log=self.folder / LOG,
                ended=self.folder / "ended",
                removed=self.folder,
                descriptors=(number,),
                variables={**QUIET, "TMPDIR": str(self.folder)},
            )
        except OSError as error:
            raise not_written(self.folder, error) from error
        finally:
            theirs.close()
        return self._answer("starting")

    def ask(self, doing: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The answer to a message. doing: what an error says was being done."""
        assert self._channel is not None, "the child was started"
        try:
            send(self._channel, arrays)
        except TimeoutError:
            self._late(doing)
        except Closed:
            pass  # what the child had to say may be there still
        return self._answer(doing)

    def end(self) -> None:
        """Ends the child and all that it started, and clears up."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.end()
            self._process = None
        scratch.cleared(self.folder, failed=self._failed)

    def _answer(self, doing: str) -> dict[str, np.ndarray]:
        assert self._channel is not None, "the child was started"
        try:
            answer = receive(self._channel)
        except TimeoutError:
            self._late(doing)
        except Closed:
            assert self._process is not None
            how = how_it_ended(self._process.code(), self.folder / LOG)
            self._fail(f"{doing}: its process {how}")
        if "error" in answer:
            self._fail(f"{doing}: {answer['error']}")
        return answer

    def _late(self, doing: str) -> NoReturn:
        more = f"tff:{2 * self._timeout:g}"
        self._fail(f"{doing}: no answer within {self._timeout:g} s: give it more, as in {more}")

    def _fail(self, reason: str) -> NoReturn:
        self._failed = True
        raise EngineError(f"engine 'tff': {reason}; its log is {self.folder / LOG}")
