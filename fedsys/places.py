"""Where fedsys keeps what is its own and not a run's: the user's data folder.

    engines             environments that engines need
    federations/NAME    a federation, at its coordinator
    banks/BANK@NAME     a bank of a federation

`--home DIR` names another one, or one federation's or bank's folder itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from fedsys.errors import FedsysError, StorageError, UsageError, nearest

FEDERATION, BANK = "federation", "bank"
Facts = TypeVar("Facts")
_WHAT: Mapping[str, tuple[str, str, str]] = {
    FEDERATION: ("federations", "federation.json", "fedsys federation create makes one"),
    BANK: ("banks", "bank.json", "fedsys bank enrol TOKEN makes one"),
}
"""Kind -> folder of all of them, the file without which a folder is none, what makes one."""


def data_folder() -> Path:
    """FEDSYS_HOME, or where the platform has such things."""
    if home := os.environ.get("FEDSYS_HOME"):
        return Path(home).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "fedsys"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "fedsys"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "fedsys"


def new(kind: str, name: str, home: Path | None = None) -> Path:
    """The folder in which a federation or bank of this name is to be made."""
    return _base(home) / _WHAT[kind][0] / name


def all_of(kind: str, home: Path | None = None) -> dict[str, Path]:
    """Name -> folder of every federation or bank that lies there.

    Raises StorageError where this user may not look.
    """
    base, (plural, file, _) = _base(home), _WHAT[kind]
    try:
        if (base / file).exists():
            return {base.name: base}
        found = sorted((base / plural).glob(f"*/{file}"))
    except OSError as error:
        raise StorageError(
            f"{base}: cannot be read: {error.strerror}: is it another user's? --home names yours"
        ) from None
    return {one.parent.name: one.parent for one in found}


def read_facts(kind: str, folder: Path, facts: Callable[..., Facts]) -> Facts:
    """What the federation or bank in a folder is. facts: makes it of what its file says.

    Raises UsageError where none lies there, StorageError where its file is damaged.
    """
    _, file, made_by = _WHAT[kind]
    path = folder / file
    try:
        return facts(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: no {kind} lies here: {made_by}, --home names another folder"
        ) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, FedsysError):
        raise StorageError(f"{path}: damaged: put it back from a backup") from None


def find(kind: str, name: str | None = None, home: Path | None = None) -> Path:
    """The folder of a federation or bank; the only one, where no name is given.

    name: of a bank 'bank-a' or, where it is in several federations, 'bank-a@eu-credit'.
    Raises UsageError where there is none, or it is not clear which.
    """
    known, made_by = all_of(kind, home), _WHAT[kind][2]
    if not known:
        raise UsageError(
            f"{_base(home)}: no {kind} lies here: {made_by}, --home names another folder"
        )
    wanted = {
        one: folder
        for one, folder in known.items()
        if name is None or one == name or one.partition("@")[0] == name
    }
    if not wanted:
        raise UsageError(
            f"{kind} {name!r}: does not lie in {_base(home)}; {nearest(name or '', known)}"
        )
    if len(wanted) > 1:
        raise UsageError(
            f"{_base(home)}: holds {len(wanted)} of them: say which, --{kind} NAME: "
            f"{', '.join(wanted)}"
        )
    return next(iter(wanted.values()))


def _base(home: Path | None) -> Path:
    return data_folder() if home is None else home.expanduser().absolute()
