"""The environment of its own that TensorFlow Federated needs, and how it is made.

TFF 0.87 stands on TensorFlow 2.14, Keras 2 and NumPy 1.25, so it cannot share an environment with
fedsys. It gets a virtual one in the user's data folder, from `requirements.txt` beside this file:
pinned, with hashes, and installed without resolving, since TFF's own demands cannot be met any
more (one of them, jaxlib 0.4.14, is gone). Built under another name and renamed when a round has
run in it, so that half of one is never taken for one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedsys.engines.tff.kept import Kept
from fedsys.errors import EngineError
from fedsys.places import data_folder

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
COMMAND = "fedsys engines install tff"
PYTHON = "3.11"
NEEDED = 3 * 2**30
"""Bytes of free room without which there is no use in beginning."""
LOG = "tff-install.log"
WATCH = 0.2
"""Seconds between two looks at what the installer says."""
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
UNREACHED = (
    "No matching distribution found",
    "ConnectionError",
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Max retries exceeded",
)
"""Words of pip's where it has not found a package, or its index."""


@dataclass(frozen=True)
class Installed:
    """An environment that works."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter that has TFF."""
        return _python(self.folder)


def place() -> Path:
    """Where the environment is, or would be: named after what is in it."""
    digest = hashlib.sha256("\n".join(_pins()).encode()).hexdigest()
    return data_folder() / f"tff-{pinned('tensorflow-federated')}-{digest[:12]}"


def pinned(package: str) -> str:
    """The version of a package that the requirements name."""
    versions = dict(line.rstrip(" \\").split("==") for line in _pins() if "==" in line)
    return versions[package]


def _pins() -> list[str]:
    """The lines of the requirements, without what is said about them."""
    lines = REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def installed() -> Installed | None:
    """The environment, or None where there is none. One that stands on a Python that was removed
    is none."""
    found = Installed(place())
    return found if found.python.exists() else None


def install(say: Callable[[str], None]) -> None:
    """Makes the environment, unless it is there. say: told in short lines how it goes.

    Raises EngineError, in one line, for whatever stands in the way.
    """
    if found := installed():
        say(f"already installed: {found.folder}")
        return
    base = interpreter()
    folder = place()
    with _alone(folder.parent):
        if installed():
            return
        started = time.perf_counter()
        _room(folder.parent)
        part = folder.with_name(f"{folder.name}.part")
        for left in (part, folder):  # of an install that was killed, or one that lost its Python
            shutil.rmtree(left, ignore_errors=True)
        log = folder.parent / LOG
        try:
            log.write_bytes(b"")
            say(f"making {folder}")
            _run([base, "-m", "venv", str(part)], log, part)
            _install_packages(part, log, say)
            say("running a first round")
            _run([str(_python(part)), "-s", "-P", "-m", "child.check"], log, part)
            part.rename(folder)
        except OSError as error:
            raise _not_written(folder.parent, error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        log.unlink(missing_ok=True)
        seconds = time.perf_counter() - started
        size = sum(path.lstat().st_size for path in folder.rglob("*"))
        say(f"installed in {seconds:.0f} s, {size / 1e9:.1f} GB: {folder}")


def interpreter() -> str:
    """A Python for which TFF is published. EngineError where there is none."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise EngineError(
            f"engine 'tff': TensorFlow Federated {pinned('tensorflow-federated')} is published for "
            f"Linux on x86-64 alone, not for {platform.system()} on {platform.machine()}: use "
            "another engine here"
        )
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON:
        return sys.executable
    found = shutil.which(f"python{PYTHON}")
    if found is None:
        raise EngineError(
            f"engine 'tff': TensorFlow Federated needs Python {PYTHON}, and there is no "
            f"python{PYTHON} on the PATH: install one and run {COMMAND} again"
        )
    return found


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _install_packages(part: Path, log: Path, say: Callable[[str], None]) -> None:
    count = sum("==" in line for line in _pins())
    begun = 0

    def heard(line: str) -> None:
        nonlocal begun
        if line.startswith(("Collecting ", "Processing ")):  # from the index, from a folder
            begun += 1
            say(f"{begun} of {count}: {line.split()[1].rpartition('/')[2]}")
        elif line.startswith("Installing collected packages"):
            say("unpacking, which takes the longest")

    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    pip = [str(_python(part)), "-m", "pip", "install", *options, *quiet, "-r", str(REQUIREMENTS)]
    _run(pip, log, part, heard, network=True)


def _run(
    command: list[str],
    log: Path,
    part: Path,
    heard: Callable[[str], None] = lambda line: None,
    *,
    network: bool = False,
) -> None:
    """Runs a command with its output in the log, and tells each line of it."""
    ended = log.with_suffix(".ended")
    ended.unlink(missing_ok=True)
    with open(log) as lines:
        lines.seek(0, os.SEEK_END)
        kept = Kept(command, log=log, ended=ended, removed=part, network=network, variables=QUIET)
        try:
            said, running = "", True
            while running:
                running = kept.running(WATCH)
                said += lines.read()
                *whole, said = said.split("\n")
                for line in whole:
                    heard(line)
            code = kept.code()
        finally:
            kept.end()
            ended.unlink(missing_ok=True)
    if code:
        raise _failed(log.read_text(errors="replace"), code, log)


def _failed(said: str, code: int, log: Path) -> EngineError:
    """What to raise for what a command said before it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "Error:"))]
    last = (errors or lines or [f"exit code {code}"])[-1].removeprefix("ERROR: ")
    if any(sign in said for sign in ("No space left", "Disk quota", "[Errno 28]", "[Errno 122]")):
        last, remedy = "the disk is full", f"make room in {log.parent}, or name another FEDSYS_HOME"
    elif "ensurepip" in said:
        last, remedy = f"{last}", f"install python{PYTHON}-venv, and run {COMMAND} again"
    elif any(sign in said for sign in ("DO NOT MATCH THE HASHES", "HASHES ARE MISSING")):
        last = "a package is not the one that was pinned"
        remedy = "look at pip's index settings, and do not install it"
    elif any(sign in said for sign in UNREACHED):
        last = "the package index was not reached"
        remedy = f"look at the network and at pip's settings, and run {COMMAND} again"
    elif code == -signal.SIGKILL:
        last, remedy = "the installer was killed", f"run {COMMAND} again"
    else:
        remedy = f"mend that and run {COMMAND} again"
    return EngineError(f"engine 'tff': not installed: {last}: {remedy} (the whole log: {log})")


def _room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        raise EngineError(
            f"engine 'tff': {folder}: {free / 1e9:.1f} GB are free, and {NEEDED / 1e9:.0f} GB are "
            "needed: make room there, or name another FEDSYS_HOME"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets only one install go on in a folder. The lock is gone with its process."""
    import fcntl  # which Windows does not have

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "tff-install.lock", "wb")  # noqa: SIM115
    except OSError as error:
        raise _not_written(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"engine 'tff': {folder}: another {COMMAND} is at work: wait for it to end"
            ) from None
        yield


def _not_written(folder: Path, error: OSError) -> EngineError:
    return EngineError(
        f"engine 'tff': {folder}: cannot be written: {error.strerror or error}: make room there, "
        "or name another place in FEDSYS_HOME"
    )
