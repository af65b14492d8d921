"""A small disk for one folder: memory that is mounted there, for chosen processes alone."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MEGABYTES = 192
_MOUNT = 'mount -t tmpfs -o size="$1"m,mode=700 tmpfs "$2" && echo mounted && exec cat'
WAYS: Sequence[tuple[list[str], list[str]]] = (
    (["unshare", "-m"], ["nsenter", "-m"]),
    (["unshare", "-Urm"], ["nsenter", "-U", "-m", "--preserve-credentials"]),
)
"""To make a mount namespace, and to enter it: for root, and for others where they may."""


class SmallDisk:
    """Use it in a `with`: a process holds the mount meanwhile, and ends with this one. folder: is
    empty, and seen as a disk by processes that are started with `within` before their command."""

    def __init__(self, folder: Path, way: tuple[list[str], list[str]]) -> None:
        self._folder, self._way = folder, way
        self._holder: subprocess.Popen[str] | None = None

    @property
    def within(self) -> list[str]:
        assert self._holder is not None
        return [*self._way[1], "-t", str(self._holder.pid)]

    @property
    def seen(self) -> Path:
        """The folder with what is on the disk, as seen from outside."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def __enter__(self) -> "SmallDisk":
        self._folder.mkdir(mode=0o700, exist_ok=True)
        command = [*self._way[0], "sh", "-c", _MOUNT, "sh", str(MEGABYTES), str(self._folder)]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            self.__exit__()
            raise OSError("cannot mount")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._holder is not None and self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()

    def fill(self) -> None:
        """Leaves no room."""
        descriptor = os.open(self.seen / "ballast", os.O_CREAT | os.O_WRONLY)
        with suppress(OSError):
            while True:
                os.write(descriptor, bytes(1 << 16))
        os.close(descriptor)

    def clear(self) -> None:
        """Makes room again."""
        (self.seen / "ballast").unlink(missing_ok=True)


def small_disk_of(folder: Path) -> SmallDisk | None:
    """A disk for a folder, or None where this machine lets nobody mount one."""
    for way in WAYS:
        disk = SmallDisk(folder, way)
        with suppress(OSError), disk:
            return disk
    return None
