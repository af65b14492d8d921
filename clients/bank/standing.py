"""What a bank tells its coordinator about itself, and what it hears: is it approved, which jobs
wait for it, how far does the other log go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedsys.clients.bank.connection import clock_difference, post
from fedsys.clients.bank.home import BankHome
from fedsys.errors import FedsysError, NetworkError
from fedsys.federation.enrolment.desk import COORDINATOR, STANDING
from fedsys.federation.enrolment.standing import JOBS, is_head
from fedsys.trust.events import Event
from fedsys.trust.jobs import Job, open_job, version
from fedsys.trust.keyfiles import read_public
from fedsys.trust.signing import sign

Told = Callable[[str], None]
PAUSE = 5.0
"""Seconds between two questions whether the bank is approved."""
RHYTHM = 30.0
"""Seconds between two words of a bank that takes part."""


@dataclass(frozen=True)
class Heard:
    """What the coordinator said. new: jobs that had not come here before. clock: seconds that its
    clock is ahead. version: of its fedsys."""

    approved: bool
    new: tuple[Job, ...]
    clock: float
    version: str


def ask(home: BankHome, with_head: bool = True) -> Heard:
    """Tells the coordinator how this bank stands, and hears how it is.

    with_head: whether both sides write down how far the other's log goes. Raises NetworkError
    where nobody answers, IdentityError where the coordinator does not know this bank.
    """
    head = home.audit.head() if with_head else None
    body = {
        "bank": home.facts.name,
        "approves": home.facts.approve,
        "jobs": _answered(home, "approved"),
        "refused": _answered(home, "refused"),
        "version": version(),
        "head": None if head is None else {"number": head.number, "hash": head.hash},
    }
    signed = sign(home.keys.signing, body, purpose=STANDING, audience=home.facts.federation)
    authority = read_public(home.folder / "authority.crt")
    answer = post(home.facts.server, authority, STANDING, signed.data())
    theirs = answer.get("head")
    if with_head and isinstance(theirs, dict) and is_head(theirs):
        home.audit.record(
            Event.HEAD_SEEN, site=COORDINATOR, number=theirs["number"], hash=theirs["hash"]
        )
    jobs = answer.get("jobs")
    texts = [one for one in jobs if isinstance(one, str)] if isinstance(jobs, list) else []
    new = tuple(job for text in texts if (job := _kept(home, text)) is not None)
    return Heard(
        answer.get("approved") is True,
        new,
        clock_difference(answer),
        str(answer.get("version"))[:40],
    )


def _answered(home: BankHome, ending: str) -> list[str]:
    """The newest of the jobs that were approved here, or refused, by the ending of their files."""
    found = list((home.folder / "jobs").glob(f"*.{ending}"))
    found.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    return sorted(one.stem for one in found[:JOBS])


def _kept(home: BankHome, text: str) -> Job | None:
    """Keeps a signed job; None where it came before. Raises IdentityError for another's."""
    signed = text.encode()
    job, opened = open_job(signed, home.coordinator, home.facts.federation, home.policy.bounds)
    if not home.keep_job(job.digest, signed):
        return None
    home.audit.record(Event.JOB_RECEIVED, job=job.digest, key=opened.key)
    return job


def await_approval(home: BankHome, told: Told) -> None:
    """Waits until the coordinator has approved this bank. A server that is away is waited for.

    Raises IdentityError where the server is another, or does not know this bank.
    """
    said = ""
    while True:
        try:
            if ask(home, with_head=not said).approved:
                return
            line = (
                f"{home.facts.name}: waits for the coordinator: fedsys federation approve "
                f"{home.facts.name}; fingerprint {home.keys.public.spoken}"
            )
        except NetworkError as error:
            line = f"waiting: {error}"
        if line != said:
            told(line)
        said = line
        time.sleep(PAUSE)


class Telling:
    """Says every half a minute that the bank is there, in a thread. Use it in a `with`.

    told: hears of jobs that wait for somebody to look at them, and of trouble, once.
    """

    def __init__(self, home: BankHome, told: Told) -> None:
        self._home, self._told = home, told
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="standing", daemon=True)

    def __enter__(self) -> Telling:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(timeout=1.0)  # it may be amid a request, and is no loss

    def _tell(self) -> None:
        trouble, noted = "", 0
        asked = self._home.statistics
        if not self._home.answered(asked.digest):
            self._told(
                f"statistics {asked.id} of its rows: wait here for: "
                f"fedsys bank jobs approve {asked.id}"
            )
        while True:
            try:
                # The other log's head counts as news only where this log has some of its own:
                # else both would grow for ever by noting each other.
                news = self._home.audit.head().number > noted
                heard = ask(self._home, with_head=news)
                noted = self._home.audit.head().number if news else noted
                for job in heard.new:
                    if not self._home.answered(job.digest):
                        self._told(
                            f"job {job.id} {job.terms.name!r}: waits here for: "
                            f"fedsys bank jobs approve {job.id}"
                        )
                trouble = ""
            except FedsysError as error:
                if str(error) != trouble:
                    self._told(str(error))
                trouble = str(error)
            if self._done.wait(RHYTHM):
                return
