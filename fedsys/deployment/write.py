"""Writing generated files so that nothing that somebody edited is lost."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from fedsys.errors import UsageError
from fedsys.storage import storing, write_atomic

WRITTEN, UNCHANGED = "written", "unchanged"
_HEAD = re.compile(r"# made by fedsys, sha256 of the rest: ([0-9a-f]{64})\n")


def write_files(folder: Path, files: Mapping[str, str], *, force: bool = False) -> dict[Path, str]:
    """Writes name -> text, each whole or not at all. Path -> 'written' or 'unchanged'.

    A file's first line holds the SHA-256 of the others, by which one that was edited, or that
    somebody else wrote, is known: UsageError then, before anything is written. force: replaces it.
    """
    marked = {folder / name: mark(text) for name, text in files.items()}
    found = {path: _there(path) for path in marked}
    for path, text in found.items():
        if text is not None and text != marked[path] and not is_ours(text) and not force:
            raise UsageError(f"{path}: was edited: move it away, or replace it with --force")
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for path, text in marked.items():
        same = found[path] == text
        if not same:
            write_atomic(path, [text.encode()])
        done[path] = UNCHANGED if same else WRITTEN
    return done


def mark(text: str) -> str:
    """The text below a line with its SHA-256."""
    return f"# made by fedsys, sha256 of the rest: {_sha256(text)}\n{text}"


def is_ours(text: str) -> bool:
    """Whether a text is as we wrote it."""
    head = _HEAD.match(text)
    return head is not None and _sha256(text[head.end() :]) == head[1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _there(path: Path) -> str | None:
    """What a file holds; None where there is none. UsageError where it is no file."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError):
        raise UsageError(f"{path}: something else lies there: choose another folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
