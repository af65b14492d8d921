"""Child processes that are started, watched, started again and ended, and never outlive us.

    child = Supervised("SuperLink", command, log, is_ready=answers, explain=why)
    with child:              # ready when the block begins, gone when it has ended
        ...

    process = start(command, log)                   # one that is not started again
    code = exit_code(process, seconds=10)
    end(process)

A child holds one end of a pipe as its standard input. However the parent ends, kill -9 included,
the other end closes, and `end_with_parent` in the child sees it. A child is a session of its own,
so Ctrl-C in a terminal reaches the parent alone, which then ends its children in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fedsys.errors import EngineError, FedsysError
from fedsys.sessions import end_session
from fedsys.storage import storing

TERM_SECONDS = 3.0
"""What a child gets to end by itself, after it was asked to and before it is killed."""
READY_SECONDS = 90.0
LOOK_SECONDS = 0.05
WAIT_SECONDS = 0.02
QUICK_SECONDS = 20.0
"""A child that lived shorter than this has not recovered from what killed the one before."""
LONGEST_PAUSE = 10.0
QUICK_DEATHS = 5
"""So many quick deaths in a row, and it is given up."""
TAIL = 20_000
"""Bytes of a log's end in which a reason is looked for."""

Explain = Callable[[str], FedsysError | None]
"""From the end of a child's log to what a user should know of its death, or None."""


class Supervised:
    """A child process that is kept alive.

    name: what people call it. command: as for `subprocess`. log: where its output goes; it is
    appended to. is_ready: whether the running child can be used; is asked with its process id.
    explain: see `Explain`. before: is called before every start, with an event that is set when it
    shall not go on. patient: whether a start that failed so is tried again, for as long as it
    takes. told: hears what happened. died: is called when the child ended by itself. grace:
    seconds that the child gets to end by itself when it is asked to.
    wait: whether the block begins only when the child is ready; see `wait_ready`.
    variables: added to the environment.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        log: Path,
        *,
        is_ready: Callable[[int], bool],
        explain: Explain = lambda log: None,
        before: Callable[[threading.Event], None] = lambda stopping: None,
        patient: Callable[[FedsysError], bool] = lambda error: False,
        told: Callable[[str], None] = lambda line: None,
        died: Callable[[], None] = lambda: None,
        grace: float = TERM_SECONDS,
        wait: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.failure: FedsysError | None = None
        self.starts = 0
        self._command, self._log, self._before = command, log, before
        self._patient, self._died = patient, died
        self._grace, self._wait = grace, wait
        self._is_ready, self._explain, self._told = is_ready, explain, told
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._watcher: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def __enter__(self) -> Self:
        if self._wait:
            try:
                self._bring_up()
            except BaseException:
                self.stop()
                raise
        self._watcher = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raises what ended the child for good, if anything did."""
        if self.failure is not None:
            raise self.failure

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Waits for a child that is being started again."""
        end = time.monotonic() + seconds
        while not self._ready.wait(LOOK_SECONDS):
            self.check()
            if time.monotonic() > end:
                raise EngineError(f"{self.name}: not ready after {seconds:.0f} s: see {self._log}")

    def restart(self) -> None:
        """Ends the child; its watcher starts the next."""
        with self._lock:
            process = self._process
        if process is not None:
            self._ready.clear()
            _stop(process, self._grace)

    def stop(self) -> None:
        """Ends the child and does not start another."""
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                _stop(self._process, self._grace)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _bring_up(self) -> None:
        """Starts the child and waits until it can be used, again and again where that is wanted."""
        tries = 0
        while not self._stopping.is_set():
            try:
                self._before(self._stopping)
                self._start()
                self._await_ready()
                return
            except FedsysError as error:
                if self._process is not None:
                    _stop(self._process, self._grace)
                if not self._patient(error):
                    raise
                if not tries:
                    self._told(f"{error}; trying again until then")
            tries += 1
            self._stopping.wait(min(LONGEST_PAUSE, 0.5 * 2**tries))

    def _start(self) -> None:
        with storing(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._stopping.is_set():
                return
            with storing(self._log), open(self._log, "ab") as log:
                self._process = start(self._command(), log, {**os.environ, **self._variables})
        self.starts += 1

    def _await_ready(self) -> None:
        process, end = self._process, time.monotonic() + READY_SECONDS
        while process is not None and not self._stopping.is_set():
            if process.poll() is not None:
                raise self._death(process)
            if self._is_ready(process.pid):
                self._ready.set()
                return
            if time.monotonic() > end:
                raise EngineError(
                    f"{self.name}: not ready after {READY_SECONDS:.0f} s: see {self._log}"
                )
            time.sleep(LOOK_SECONDS)

    def _watch(self) -> None:
        """Starts the child again whenever it dies, with longer and longer pauses."""
        deaths = 0
        if not self._wait:
            try:
                self._bring_up()
            except FedsysError as error:
                self._give_up(error)
                return
        while not self._stopping.is_set():
            process = self._process
            if process is None:
                return
            begun = time.monotonic()
            process.wait()
            self._ready.clear()
            if self._stopping.is_set():
                return
            deaths = deaths + 1 if time.monotonic() - begun < QUICK_SECONDS else 1
            if deaths > QUICK_DEATHS:
                self._give_up(self._death(process))
                return
            self._told(f"{self.name} ended ({_how(process.returncode)}); starting it again")
            self._died()
            self._stopping.wait(min(LONGEST_PAUSE, 0.1 * 2**deaths) if deaths > 1 else 0)
            try:
                self._bring_up()
            except FedsysError as error:
                self._give_up(error)
                return

    def _give_up(self, error: FedsysError) -> None:
        self.failure = error
        self._told(f"{self.name} was given up: {error}")

    def _death(self, process: subprocess.Popen[bytes]) -> FedsysError:
        log = log_tail(self._log)
        return self._explain(log) or EngineError(
            f"{self.name}: ended by itself ({_how(process.returncode)}): see {self._log}"
        )


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ends a child that is kept alive: asks, waits, kills. Not with its session, as `end` does: the
    watcher waits for it beside this, so its number may be another's by now. What such children
    start themselves are sessions of their own, which end with them."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# --- one child -----------------------------------------------------------------------------------


def start(
    command: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    descriptors: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a child, as said above; nobody but `end` may wait for it.

    log: gets all that it says; a file, since what a child leaves running would hold a pipe open.
    environment: all of it; this process's if not given. descriptors: are handed on.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=descriptors,
        start_new_session=True,
    )


def same_modules() -> dict[str, str]:
    """The variable by which a child finds the modules that this process finds."""
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def exit_code(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code of a child that ends within some seconds, or minus the signal that ended it.

    None for one that goes on. It stays a zombie, so that its number is that of its session.
    """
    until = time.monotonic() + seconds
    while (code := _code(process)) is None and time.monotonic() < until:
        time.sleep(WAIT_SECONDS)
    return code


def end(process: subprocess.Popen[bytes], grace: float = 0.0) -> None:
    """Ends a child and all of its session.

    grace: seconds that it gets to end by itself, once its pipe is closed.
    """
    pipe, process.stdin = process.stdin, None
    if pipe is None:  # ended before, so that its number may be another's by now
        return
    try:
        if grace:
            pipe.close()
            exit_code(process, grace)
    finally:
        end_session(process.pid)
        process.wait()
        pipe.close()


def _code(process: subprocess.Popen[bytes]) -> int | None:
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS has it since 3.13
        return process.poll()
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def how_it_ended(code: int, log: Path) -> str:
    """What to say of a child that ended and should not have."""
    if code == -signal.SIGKILL:
        return "was killed, as happens when memory runs out"
    if code < 0:
        return f"crashed ({_how(code)})"
    lines = log_tail(log).strip().splitlines()
    return f"ended with code {code}" + (f": {lines[-1].strip()}" if lines else "")


def log_tail(path: Path) -> str:
    """The end of a log, as text."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
