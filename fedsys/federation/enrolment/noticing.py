"""Tells whoever serves a federation that banks have enrolled, which happens in another process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fedsys.federation.banks import Banks
from fedsys.federation.home import Home

LOOK_SECONDS = 1.0


class Noticing:
    """Looks for banks that wait for approval, in a thread. Use it in a `with`."""

    def __init__(self, home: Home, told: Callable[[str], None]) -> None:
        self._path, self._told = home.folder / "banks.json", told
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="noticing", daemon=True)

    def __enter__(self) -> Noticing:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        known: set[str] = set()
        changed = None
        while not self._done.wait(LOOK_SECONDS if changed is not None else 0):
            now = self._path.stat().st_mtime_ns if self._path.exists() else 0
            if now == changed:
                continue
            changed = now
            waiting = {
                f"{bank.name}: has enrolled and reads {bank.keys.spoken}: compare it, then "
                f"fedsys federation approve {bank.name}"
                for bank in Banks(self._path).all()
                if not bank.approved
            }
            for line in sorted(waiting - known):
                self._told(line)
            known = waiting
