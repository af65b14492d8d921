"""Which banks let a job run, and waiting for them: a bank may want to see each job first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fedsys.errors import QuorumError
from fedsys.federation.banks import Bank
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.home import Home
from fedsys.trust.jobs import Job

LOOK_SECONDS = 0.5
DAYS = 7.0
"""How long a job waits for people."""


def open_at(home: Home, banks: Sequence[Bank], job: str) -> list[str]:
    """The banks that want to see a job, and have not approved it yet. job: its SHA-256.

    A bank that never said how it approves is none of them: it answers for itself.
    """
    standings = Standings(home.folder / "standing")
    said = {bank.name: standings.get(bank.name) for bank in banks}
    return [name for name, one in said.items() if one is not None and not one.approved(job)]


def await_approvals(
    home: Home,
    job: Job,
    banks: Sequence[Bank],
    told: Callable[[str], None],
    seconds: float = DAYS * 86400,
) -> None:
    """Waits until the banks have approved a job. Raises QuorumError where fewer than its quorum
    have after so many seconds; banks that approve later take part from then on."""
    end, said = time.monotonic() + seconds, ""
    while waiting := open_at(home, banks, job.digest):
        line = f"job {job.id}: waits for {', '.join(waiting)}: fedsys bank jobs approve {job.id}"
        if time.monotonic() >= end:
            if len(banks) - len(waiting) >= job.terms.quorum:
                told(f"{line}; going on without")
                return
            raise QuorumError(f"{line}; then: fedsys federation resume {job.terms.name}")
        if line != said:
            told(line)
        said = line
        time.sleep(LOOK_SECONDS)
