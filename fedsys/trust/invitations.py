"""The coordinator's list of invitations: which bank may still enrol, and which has."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedsys.errors import DataError, StorageError
from fedsys.storage import write_atomic
from fedsys.trust import canonical
from fedsys.trust.locks import locked
from fedsys.trust.names import is_name
from fedsys.trust.tokens import Invitation, redeem

_HASH = re.compile(r"[0-9a-f]{64}")


class Invitations:
    """Invitations in a file, the newest of each bank. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, invitation: Invitation) -> None:
        """Keeps an invitation; an older one of the bank counts no longer."""
        with locked(self._path):
            self._write({**self._read(), invitation.bank: invitation})

    def withdraw(self, bank: str) -> bool:
        """Forgets a bank's invitation; whether there was one."""
        with locked(self._path):
            kept = self._read()
            found = kept.pop(bank, None)
            self._write(kept)
            return found is not None

    def redeem(self, bank: str, code: bytes, now: float | None = None) -> Invitation:
        """Uses an invitation up, on the disk before it returns. Raises IdentityError as
        `tokens.redeem` does."""
        with locked(self._path):
            kept = self._read()
            used = redeem(kept.get(bank), code, now)
            self._write({**kept, bank: used})
            return used

    def all(self) -> list[Invitation]:
        """Every invitation, by bank."""
        with locked(self._path):
            return [invitation for _, invitation in sorted(self._read().items())]

    def _read(self) -> dict[str, Invitation]:
        try:
            table = canonical.decode_table(self._path.read_bytes(), str(self._path))
            return {bank: _invitation(bank, one) for bank, one in table.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be read: {error.strerror}") from None
        except DataError as error:
            raise StorageError(f"{error}: put it back from a backup, or invite anew") from None

    def _write(self, kept: dict[str, Invitation]) -> None:
        table = {bank: asdict(invitation) for bank, invitation in kept.items()}
        write_atomic(self._path, [canonical.encode(table)])
        os.chmod(self._path, 0o600)


def _invitation(bank: str, table: Any) -> Invitation:
    good = (
        isinstance(table, dict)
        and set(table) == {"bank", "hash", "expires", "used"}
        and table["bank"] == bank
        and is_name(bank)
        and isinstance(table["hash"], str)
        and _HASH.fullmatch(table["hash"])
        and type(table["expires"]) is int
        and (table["used"] is None or type(table["used"]) is int)
    )
    if not good:
        raise DataError(f"invitation of {bank[:40]!r} is none")
    return Invitation(**table)
