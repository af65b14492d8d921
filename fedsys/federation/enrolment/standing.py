"""How banks stand, as they said it last: a signed table each, kept as it came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsys.errors import DataError
from fedsys.storage import write_atomic
from fedsys.trust import canonical
from fedsys.trust.keyfiles import make_private
from fedsys.trust.names import check_name

ASK, ALWAYS = "ask", "always"
JOBS = 256
"""Approved jobs in a bank's standing, and refused ones."""
HASH = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9a-z.+]{1,40}")
_FIELDS = {"bank", "approves", "jobs", "version", "head"}
_REFUSED = "refused"
"""The one field that a bank may leave out."""


@dataclass(frozen=True)
class Standing:
    """What a bank said last. seen: seconds since 1970. approves: 'ask' where somebody sees each
    job before it runs, or 'always'. jobs, refused: the SHA-256 of the jobs, and of the request for
    statistics, that were approved there, and of those that were refused."""

    seen: int
    approves: str
    jobs: tuple[str, ...]
    version: str
    refused: tuple[str, ...] = ()

    def approved(self, job: str) -> bool:
        """Whether a job may run there."""
        return job not in self.refused and (self.approves == ALWAYS or job in self.jobs)


class Standings:
    """A folder of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def check(body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body of a request, or DataError."""
        head = body.get("head")
        good = (
            set(body) - {_REFUSED} == _FIELDS
            and isinstance(body["bank"], str)
            and body["approves"] in (ASK, ALWAYS)
            and _are_jobs(body["jobs"])
            and _are_jobs(body.get(_REFUSED, []))
            and isinstance(body["version"], str)
            and _VERSION.fullmatch(body["version"])
            and (head is None or is_head(head))
        )
        if not good:
            raise DataError("standing: has other fields than are known here: update fedsys")
        return body

    def keep(self, bank: str, data: bytes) -> None:
        """Keeps a request that was checked."""
        make_private(self._folder)
        write_atomic(self._folder / f"{check_name(bank, 'bank')}.json", [data])

    def get(self, bank: str) -> Standing | None:
        """How a bank stands; None where it never said."""
        try:
            data = (self._folder / f"{check_name(bank, 'bank')}.json").read_bytes()
            table = canonical.decode_table(data, "standing")
            return standing_of(table["time"], self.check(table["body"]))
        except (OSError, DataError, KeyError, AttributeError):
            return None


def standing_of(seen: int, body: Mapping[str, Any]) -> Standing:
    """What a body that was checked says."""
    jobs, refused = tuple(body["jobs"]), tuple(body.get(_REFUSED, ()))
    return Standing(seen, body["approves"], jobs, body["version"], refused)


def _are_jobs(value: Any) -> bool:
    """Whether a value is a list of SHA-256."""
    return (
        isinstance(value, list)
        and len(value) <= JOBS
        and all(isinstance(one, str) and HASH.fullmatch(one) for one in value)
    )


def is_head(head: Any) -> bool:
    """Whether a table says how far a log goes."""
    return (
        isinstance(head, Mapping)
        and set(head) == {"number", "hash"}
        and type(head["number"]) is int
        and 0 <= head["number"] < 2**63
        and isinstance(head["hash"], str)
        and HASH.fullmatch(head["hash"]) is not None
    )
