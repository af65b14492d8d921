"""`fedsys doctor`: looks at this machine, and at every federation and bank that lies on it.

Nothing is changed. A check that cannot be made because one before it failed is left out.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from fedsys import places
from fedsys.errors import EngineError, FedsysError, StorageError
from fedsys.health import BAD, Check, Subject

GIB = 1 << 30
LITTLE_ROOM, NO_ROOM = 5 * GIB, GIB // 2
LITTLE_MEMORY = 2 * GIB
PACKAGES = ("flwr", "tensorflow", "keras")
OURS = (
    "fedsys.federation.enrolment.door",
    "fedsys.flower.processes.launch",
    "fedsys.clients.bank.trainer_process",
)
"""Programs that only run below a server's or an agent's process."""
LEAVING = 6.0
"""Seconds in which such a program notices that its parent is gone, and ends."""

Examination = Callable[[Subject, Path], Iterator[Check]]


def examine(home: Path | None = None) -> list[Check]:
    """Everything. home: folder of federations and banks, or of one."""
    from fedsys.clients.bank.examination import examined as bank
    from fedsys.federation.examination import examined as federation

    checks = list(_machine(Subject("this machine"), home))
    found: dict[str, Examination] = {places.FEDERATION: federation, places.BANK: bank}
    for kind, examined in found.items():
        for name, folder in places.all_of(kind, home).items():
            checks += _guarded(Subject(f"{kind} {name}"), folder, examined)
    return checks


def code_of(checks: list[Check]) -> int:
    """The exit code: of the first thing that is bad, or 0."""
    return next((check.code for check in checks if check.state == BAD), 0)


def table(checks: list[Check]) -> dict[str, Any]:
    """As plain values."""
    return {"good": code_of(checks) == 0, "checks": [asdict(check) for check in checks]}


def text(checks: list[Check]) -> str:
    """For people: a block for each thing that was looked at."""
    lines: list[str] = []
    for of in dict.fromkeys(check.of for check in checks):
        lines.append(of)
        lines += [f"  {check.text()}" for check in checks if check.of == of]
    return "\n".join(lines)


def _guarded(subject: Subject, folder: Path, examined: Examination) -> Iterator[Check]:
    """The checks up to one that ends them all, such as a folder that cannot be read."""
    try:
        yield from examined(subject, folder)
    except FedsysError as error:
        yield subject.failed(error)


def _machine(of: Subject, home: Path | None) -> Iterator[Check]:
    found = {name: _version(name) for name in ("fedsys", *PACKAGES)}
    missing = [name for name, version in found.items() if version is None]
    said = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if missing:
        install = "pip install 'fedsys[deploy]'"
        yield of.bad(f"{said}; missing: {', '.join(missing)}", install, EngineError)
    else:
        yield of.good(said)
    yield _room(of, home or places.data_folder())
    free = _free_memory()
    if free is not None:
        said = f"{free / GIB:.1f} GiB of memory free"
        little = free < LITTLE_MEMORY
        remedy = "end other programs: a bank's trainer needs about 1 GiB"
        yield of.warning(said, remedy) if little else of.good(said)
    left = orphans()
    for process, what in left:
        yield of.bad(f"process {process} ({what}) was left behind", f"kill {process}", EngineError)
    if not left:
        yield of.good("no process was left behind")
    if not any(places.all_of(kind, home) for kind in (places.FEDERATION, places.BANK)):
        yield of.warning(
            f"neither a federation nor a bank lies in {home or places.data_folder()}",
            "fedsys federation create, fedsys bank enrol TOKEN, or name another --home",
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _room(of: Subject, folder: Path) -> Check:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / GIB:.1f} GiB free in {there}"
    if free < NO_ROOM:
        return of.bad(said, "make room there", StorageError)
    if free < LITTLE_ROOM:
        return of.warning(said, "make room there: checkpoints and answers need some")
    return of.good(said)


def _free_memory() -> int | None:
    """Bytes; None where the system does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def orphans(seconds: float = LEAVING) -> list[tuple[int, str]]:
    """(process, program) of ours, and of this user, whose parent is gone.

    seconds: how long they get to notice that and to end by themselves.
    """
    if "fedsys" in _command(Path("/proc/1"))[0]:  # a container's first process is a parent, too
        return []
    end = time.monotonic() + seconds
    found = _orphans()
    while found and time.monotonic() < end:
        time.sleep(0.1)
        found = [one for one in _orphans() if one in found]
    return found


def _orphans() -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            what = next((one for one in OURS if one in _command(folder)[1]), None)
            if what is not None and folder.stat().st_uid == os.getuid() and _is_orphan(folder):
                found.append((int(folder.name), what))
    return sorted(found)


def _command(folder: Path) -> tuple[str, list[str]]:
    """A process' command line, as a text and in words; nothing where it cannot be read."""
    with suppress(OSError):
        text = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
        return text, text.split("\0")
    return "", []


def _is_orphan(folder: Path) -> bool:
    """Whether a process lives, and its parent is the system's first."""
    state, parent = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
    return state != "Z" and parent == "1"
