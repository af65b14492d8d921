"""Secret files: made whole or not at all, never overwritten, never readable by others.

Files of mode 0600 lie in a folder of mode 0700 that appears at once, under its name, with all of
them in it. A kill in between leaves a hidden folder that nobody reads.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from fedsys.errors import IdentityError
from fedsys.storage import storing

SIZE = 1 << 16
"""Bytes that a file of keys has at most."""


def place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes a folder with the files in it. Raises IdentityError where it is there already."""
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    with storing(folder):
        make_private(folder.parent)
        part.mkdir(mode=0o700)
        try:
            for name, data in files.items():
                _write(part / name, data)
            _sync(part)
            _rename(part, folder)
            _sync(folder.parent)
        except BaseException:
            for name in files:
                (part / name).unlink(missing_ok=True)
            if part.exists():
                part.rmdir()
            raise


def make_private(folder: Path) -> None:
    """Makes the folder, and those above it, for its owner alone; leaves one that is there."""
    with storing(folder):
        for one in [*reversed(folder.parents), folder]:
            if not one.exists():
                one.mkdir(mode=0o700, exist_ok=True)


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file. Raises IdentityError where it is missing or others can read it.

    A link is followed, as Kubernetes mounts secrets through links; what counts is the file.
    """
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise IdentityError(f"{path}: not a file")
            if found.st_mode & 0o077:
                raise IdentityError(
                    f"{path}: others may read or change it (mode {stat.S_IMODE(found.st_mode):04o})"
                    f": chmod 600 {path}"
                )
            if os.geteuid() not in (0, found.st_uid) and found.st_uid:
                raise IdentityError(
                    f"{path}: belongs to another user: make keys as the user that uses them"
                )
            folder = path.parent.stat()
            if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
                raise IdentityError(
                    f"{path}: others may replace it (its folder has mode "
                    f"{stat.S_IMODE(folder.st_mode):04o}): chmod 700 {path.parent}"
                )
            return _whole(file.read(SIZE + 1), path)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_public(path: Path) -> bytes:
    """The bytes of a certificate or a public key."""
    try:
        with open(path, "rb") as file:
            return _whole(file.read(SIZE + 1), path)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}") from None


def _whole(data: bytes, path: Path) -> bytes:
    if len(data) > SIZE:
        raise IdentityError(f"{path}: larger than any key: not the file that was meant")
    return data


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _rename(part: Path, folder: Path) -> None:
    """A folder replaces no folder but an empty one, and no file: the system sees to it."""
    try:
        os.rename(part, folder)
    except (FileExistsError, NotADirectoryError):
        _there(folder)
    except OSError as error:
        if folder.exists():
            _there(folder)
        raise error


def _there(folder: Path) -> None:
    raise IdentityError(
        f"{folder}: is there already and keys are never overwritten: "
        "use it, or move it away if it is really to be replaced"
    ) from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
