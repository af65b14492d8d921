"""Bytes of a user's file, folder or address, and one line when they cannot be had."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from fedsys.errors import DataError

_PATIENCE = 30.0  # seconds without a byte after which an address counts as unreachable


def is_address(source: str) -> bool:
    """Whether `source` is a web address and no path."""
    return source.startswith(("http://", "https://"))


def join(folder: str, name: str) -> str:
    """The file `name` of a folder, which is a path or a web address."""
    if is_address(folder):
        return f"{folder.rstrip('/')}/{name}"
    return str(Path(folder).expanduser() / name)


def given(data: str | None, task: str, what: str, place: str = "task.data") -> str:
    """`data` where it is set. Raises DataError: task `task` needs `what` and has no default."""
    if data is None:
        raise DataError(f"{place}: {task!r} cannot be downloaded; pass --data {what}")
    return data


def is_folder(source: str, place: str, remedy: str) -> bool:
    """Whether a path is a folder. Raises DataError where nothing is there or it is out of reach."""
    path = Path(source).expanduser()
    try:
        if not path.exists():
            raise DataError(f"{place}: {source!r} does not exist{_looked(path)}; {remedy}")
        return path.is_dir()
    except OSError as error:
        raise DataError(f"{place}: cannot look at {source!r}: {_reason(error)}; {remedy}") from None


def check_folder(source: str, place: str, remedy: str) -> None:
    """Raises DataError unless `source` is a folder (an address is believed until it is read)."""
    if not is_address(source) and not is_folder(source, place, remedy):
        raise DataError(f"{place}: {source!r} is a file, not a folder; {remedy}")


def holds(folder: str, name: str, place: str, remedy: str) -> bool:
    """Whether a folder (no address) holds the file `name`. Raises DataError when out of reach."""
    try:
        return Path(join(folder, name)).is_file()
    except OSError as error:
        raise DataError(f"{place}: cannot look at {folder!r}: {_reason(error)}; {remedy}") from None


def read(source: str, place: str, remedy: str) -> bytes:
    """All bytes of a file or of what an address gives.

    place: what the user set, such as 'task.data'. remedy: the end of the message of a DataError.
    """
    return (_download if is_address(source) else read_file)(source, place, remedy)


def read_file(source: str, place: str, remedy: str) -> bytes:
    """All bytes of a file. Raises DataError as `read` does."""
    path = Path(source).expanduser()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{place}: {source!r} does not exist{_looked(path)}; {remedy}") from None
    except IsADirectoryError:
        raise DataError(f"{place}: {source!r} is a folder, not a file; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in a path
        raise DataError(f"{place}: cannot read {source!r}: {_reason(error)}; {remedy}") from None


def _download(address: str, place: str, remedy: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            body: bytes = answer.read()  # raises IncompleteRead when the line breaks
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(
            f"{place}: could not download {address}: {_reason(error)}; {remedy}"
        ) from None
    return body


def _looked(path: Path) -> str:
    """Where a relative path was looked for: the working directory surprises people."""
    return "" if path.is_absolute() else f" (looked in {Path.cwd()})"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return _reason(inner) if isinstance(inner, OSError) else str(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
