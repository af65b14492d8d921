"""Which banks let a job run, and waiting for them: a bank may want to see each job first.

The request for statistics of the rows is approved and refused like a job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fedsys.errors import QuorumError
from fedsys.federation.banks import Bank
from fedsys.federation.enrolment.standing import Standing, Standings
from fedsys.federation.home import Home
from fedsys.tables import StatisticsRequest
from fedsys.trust.jobs import Job

Told = Callable[[str], None]
LOOK_SECONDS = 0.5
DAYS = 7.0
"""How long a job waits for people."""
SECONDS = DAYS * 86400


def open_at(home: Home, banks: Sequence[Bank], job: str) -> list[str]:
    """The banks that want to see a job, and have neither approved nor refused it. job: its SHA-256.

    A bank that never said how it approves is none of them: it answers for itself.
    """
    said = _said(home, banks)
    return [name for name, one in said.items() if not one.approved(job) and job not in one.refused]


def refused_at(home: Home, banks: Sequence[Bank], job: str) -> list[str]:
    """The banks that refused a job."""
    return [name for name, one in _said(home, banks).items() if job in one.refused]


def statistics_request(home: Home) -> StatisticsRequest:
    """What this federation asks of its banks' rows."""
    return StatisticsRequest(home.facts.name, home.schema)


def let_themselves_be_asked(home: Home, banks: Sequence[Bank]) -> list[Bank]:
    """The banks that have approved the request for statistics, or do not want to see it first."""
    digest = statistics_request(home).digest
    without = {*open_at(home, banks, digest), *refused_at(home, banks, digest)}
    return [bank for bank in banks if bank.name not in without]


def await_approvals(
    home: Home,
    job: Job,
    banks: Sequence[Bank],
    told: Told,
    seconds: float = SECONDS,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Waits until each of the banks has approved a job or refused it. look: is called meanwhile,
    and may raise to end that.

    Raises QuorumError as soon as so many refuse that its quorum is out of reach, and where fewer
    than that have approved after so many seconds; banks that approve later take part from then on.
    """
    what, quorum, again = f"job {job.id}", job.terms.quorum, f" {job.terms.name}"
    _await(home, job.digest, what, banks, quorum, again, told, seconds, look)


def await_statistics(
    home: Home,
    banks: Sequence[Bank],
    needed: int,
    told: Told,
    seconds: float = SECONDS,
    look: Callable[[], None] = lambda: None,
) -> None:
    """The same for the request for statistics. needed: banks that have to approve it."""
    asked = statistics_request(home)
    what = f"statistics {asked.id}"
    _await(home, asked.digest, what, banks, needed, "", told, seconds, look)


def _await(
    home: Home,
    digest: str,
    what: str,
    banks: Sequence[Bank],
    needed: int,
    again: str,
    told: Told,
    seconds: float,
    look: Callable[[], None],
) -> None:
    end, said = time.monotonic() + seconds, ""
    id = digest[:12]
    then = f"then: fedsys federation resume{again}"
    while True:
        waiting, refused = open_at(home, banks, digest), refused_at(home, banks, digest)
        left = len(banks) - len(refused)
        no = f"{what}: refused by {', '.join(refused)}" if refused else ""
        if refused and left < needed:
            raise QuorumError(
                f"{no}, and {needed} of {len(banks)} banks are needed: ask them why; if they "
                f"change their minds (fedsys bank jobs approve {id}), {then}"
            )
        if not waiting:
            if refused:
                told(f"{no}; going on without")
            return
        line = f"{what}: waits for {', '.join(waiting)}: fedsys bank jobs approve {id}"
        if time.monotonic() >= end:
            if left - len(waiting) >= needed:
                told(f"{line}; going on without")
                return
            raise QuorumError(f"{line}; {then}")
        line = f"{no}; {line.removeprefix(f'{what}: ')}" if refused else line
        if line != said:
            told(line)
        said = line
        time.sleep(LOOK_SECONDS)
        look()


def _said(home: Home, banks: Sequence[Bank]) -> dict[str, Standing]:
    standings = Standings(home.folder / "standing")
    said = {bank.name: standings.get(bank.name) for bank in banks}
    return {name: one for name, one in said.items() if one is not None}
