"""What the guard asks its coordinator: whose a node's key is, and to write down what it refused."""

from __future__ import annotations

from fedsys.federation.banks import Banks
from fedsys.federation.home import Home
from fedsys.flower.processes.guard import UNKNOWN
from fedsys.trust.events import Code, Event
from fedsys.trust.tokens import Throttle


class Nodes:
    """The banks' nodes. `bank_of` is for the server's loop, `note_refused` for one thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.folder / "banks.json"
        self._read: object = None
        self._names: dict[bytes, str] = {}
        self._strangers, self._all, self._known = Throttle(10), Throttle(60), Throttle(10)

    def bank_of(self, key: bytes) -> str | None:
        """Whose a node's public key is, a PEM; None where it is no bank's.

        A bank that is not approved is one, too: Flower's server lets in those that are.
        """
        try:
            about = self._path.stat()
        except FileNotFoundError:
            return None
        # Every write makes another file: see `write_atomic`.
        now = (about.st_ino, about.st_mtime_ns, about.st_size)
        if now != self._read:
            self._names = {bank.node_public: bank.name for bank in Banks(self._path).all()}
            self._read = now
        return self._names.get(key)

    def note_refused(self, bank: str, source: str) -> None:
        """Writes a refusal down, so many a minute: strangers keep no bank's out of the log."""
        if bank != UNKNOWN:
            allowed = self._known.allow(bank)
        else:
            allowed = self._strangers.allow(source) and self._all.allow("everybody")
        if allowed:
            self._home.audit.record(Event.REQUEST_REFUSED, bank=bank, code=str(Code.IDENTITY))
