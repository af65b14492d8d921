"""Where fedsys keeps what is its own and not a run's: the user's data folder.

    engines             environments that engines need
    federations/NAME    a federation, at its coordinator
    banks/BANK@NAME     a bank of a federation

`--home DIR` names another one, or one federation's or bank's folder itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fedsys.errors import UsageError, nearest

FEDERATION, BANK = "federation", "bank"
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
    """Name -> folder of every federation or bank that lies there."""
    base, (plural, file, _) = _base(home), _WHAT[kind]
    if (base / file).exists():
        return {base.name: base}
    found = sorted((base / plural).glob(f"*/{file}"))
    return {one.parent.name: one.parent for one in found}


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
