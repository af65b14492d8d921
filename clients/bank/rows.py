"""Where a bank's rows are, as it is remembered: from wherever the agent is started."""

from __future__ import annotations

import os
from pathlib import Path


def named(source: str, query: str | None) -> tuple[str, str | None]:
    """(source, query) with the paths of files from the root on."""
    where = source if "://" in source or source.startswith("env:") else _absolute(source)
    if query is None:
        return where, None
    return where, _absolute(query) if _is_file(query) else query


def _absolute(text: str) -> str:
    return os.path.abspath(Path(text).expanduser())


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError):
        return False
