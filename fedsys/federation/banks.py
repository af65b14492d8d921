"""The banks of a federation: who they are, and which may take part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedsys.errors import StorageError, UsageError, nearest
from fedsys.storage import write_atomic
from fedsys.trust.keys import PublicKeys, read_node_public, read_signing_public
from fedsys.trust.locks import locked


@dataclass(frozen=True)
class Bank:
    """A bank as its coordinator knows it.

    number: which client it is, from 0; kept for ever. node, signing: its public keys, as lines.
    approved: whether it may take part.
    """

    name: str
    number: int
    node: str
    signing: str
    approved: bool = False

    @property
    def keys(self) -> PublicKeys:
        return PublicKeys(self.node, self.signing)

    @property
    def node_public(self) -> bytes:
        """The node's public key as Flower's server stores it, a PEM."""
        from cryptography.hazmat.primitives import serialization

        return read_node_public(self.node).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class Banks:
    """The list of banks in a file. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Bank]:
        """Every bank, by number."""
        with locked(self._path):
            return sorted(self._read().values(), key=lambda bank: bank.number)

    def approved(self) -> list[Bank]:
        """Those that may take part, by number."""
        return [bank for bank in self.all() if bank.approved]

    def get(self, name: str) -> Bank:
        """A bank by its name, or UsageError."""
        with locked(self._path):
            return self._get(self._read(), name)

    def add(self, name: str, keys: PublicKeys) -> Bank:
        """A bank that enrolled. Enrolled anew, it keeps its number and is to be approved anew."""
        read_node_public(keys.node)
        read_signing_public(keys.signing)
        with locked(self._path):
            banks = self._read()
            number = banks[name].number if name in banks else len(banks)
            banks[name] = Bank(name, number, keys.node, keys.signing)
            self._write(banks)
            return banks[name]

    def approve(self, name: str, approved: bool = True) -> Bank:
        """Lets a bank take part, or no longer."""
        with locked(self._path):
            banks = self._read()
            banks[name] = replace(self._get(banks, name), approved=approved)
            self._write(banks)
            return banks[name]

    def _get(self, banks: Mapping[str, Bank], name: str) -> Bank:
        if name not in banks:
            raise UsageError(
                f"bank {name!r}: has not enrolled here; {nearest(name, banks)}"
                if banks
                else f"bank {name!r}: no bank has enrolled here yet"
            )
        return banks[name]

    def _read(self) -> dict[str, Bank]:
        try:
            table: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            return {name: Bank(**one) for name, one in table.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, AttributeError):
            raise StorageError(f"{self._path}: damaged: put it back from a backup") from None

    def _write(self, banks: Mapping[str, Bank]) -> None:
        table = {name: asdict(bank) for name, bank in banks.items()}
        write_atomic(self._path, [json.dumps(table, indent=1).encode()])
