"""How the coordinator reaches its own server, and which nodes it lets join."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fedsys.flower import compat_grid
from fedsys.flower.processes.guard import HEADER
from fedsys.flower.processes.superlink import SuperLink


@dataclass(frozen=True)
class Access:
    """How the coordinator reaches its own server. authority: the CA's certificate as a PEM."""

    address: str
    authority: bytes
    secret: str
    executor: bytes

    @classmethod
    def of(cls, server: SuperLink) -> Access:
        """Read from the server's files."""
        return cls(
            server.address,
            server.authority.read_bytes(),
            server.secret.read_text("ascii").strip(),
            server.executor.read_bytes(),
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every request of the coordinator carries."""
        return {HEADER: self.secret}

    def control(self) -> Any:
        """A client of the Control API; use it in a `with`."""
        return compat_grid.control(self.address, self.authority, self.headers)


def admit_nodes(access: Access, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Lets exactly these nodes join, by their public keys (PEM). Gives their ids."""
    wanted = list(keys)
    with access.control() as control:
        known = compat_grid.registered(control)
        for key, node in known.items():
            if key not in wanted:
                compat_grid.unregister(control, node)
        return {key: known.get(key) or compat_grid.register(control, key) for key in wanted}
