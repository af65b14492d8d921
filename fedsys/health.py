"""What `fedsys doctor` says: a line a check, and the command that mends what is wrong."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsys.errors import FedsysError, IdentityError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

GOOD, WARNING, BAD = "good", "warning", "bad"
MARKS = {GOOD: "✔", WARNING: "⚠", BAD: "✘"}


@dataclass(frozen=True)
class Check:
    """What a check found. of: whose. said: a line. remedy: what to do. code: exit code of it."""

    of: str
    state: str
    said: str
    remedy: str = ""
    code: int = 0

    def text(self) -> str:
        """For people."""
        remedy = f"  → {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.state]} {self.said}{remedy}"


@dataclass(frozen=True)
class Subject:
    """What is looked at: a machine, a federation, a bank."""

    name: str

    def good(self, said: str) -> Check:
        """All is as it should be."""
        return Check(self.name, GOOD, said)

    def warning(self, said: str, remedy: str) -> Check:
        """It works, and somebody should do something."""
        return Check(self.name, WARNING, said, remedy)

    def bad(self, said: str, remedy: str, kind: type[FedsysError] = IdentityError) -> Check:
        """It does not work."""
        return Check(self.name, BAD, said, remedy, kind.code)

    def failed(self, error: FedsysError) -> Check:
        """An error's line names the remedy itself."""
        return Check(self.name, BAD, str(error), code=error.code)

    def tried(self, good: str, check: Callable[[], object]) -> Check:
        """Good, unless the check raises."""
        try:
            check()
        except FedsysError as error:
            return self.failed(error)
        return self.good(good)

    # --- what federations and banks have in common -----------------------------------------------

    def secret(self, path: Path) -> Check:
        """Nobody else may read a file."""
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return self.bad(f"{path}: others may read it", f"chmod 600 {path}")
        return self.good(f"{path.name} is for its owner alone")

    def secrets(self, folder: Path) -> Check:
        """Nobody else may read the files of a folder of secrets."""
        from fedsys.trust.keyfiles import read_secret

        def check() -> None:
            for path in sorted(folder.iterdir()):
                read_secret(path)

        return self.tried(f"secrets in {folder} are whole, and for their owner alone", check)

    def days(self, what: str, certificate: Certificate, remedy: str) -> Check:
        """How long a certificate is good for."""
        from fedsys.trust.identity import URGENT_DAYS, WARN_DAYS, days_left

        left = days_left(certificate)
        said = f"{what} is good for {left:.0f} days"
        if left <= URGENT_DAYS:
            return self.bad(said, remedy)
        return self.warning(said, remedy) if left <= WARN_DAYS else self.good(said)

    def log(self, path: Path) -> Check:
        """Whether a log holds."""
        from fedsys.trust.verification import verify

        verdict = verify(path)
        if verdict.fault is not None:
            said = f"{path}: {verdict.fault.text}"
            return self.bad(said, "hold it against a backup and the other sites' logs")
        return self.good(f"its log holds: {verdict.entries} entries")
