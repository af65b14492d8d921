"""The coordinator's desk: banks enrol here, and say how they stand.

Requests come over the server's own port (see `door.py`) and are signed tables (see
`trust.signing`). A bank enrols once, with the code of its token and both of its public keys; then
it waits until somebody approves it. Later it says now and then that it is there and which jobs it
approved, and hears whether it is approved, which jobs wait for it, and how far the coordinator's
log goes. Every refusal is a code and a line, and an entry in the log, as far as a stranger may fill
it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsys.errors import DataError, FedsysError, IdentityError, NetworkError
from fedsys.federation.banks import Bank, Banks
from fedsys.federation.enrolment.approvals import statistics_request
from fedsys.federation.enrolment.standing import Standing, Standings, standing_of
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, FAILED, all_jobs
from fedsys.tables import schema_toml
from fedsys.trust import canonical
from fedsys.trust.events import Code, Event, code_of
from fedsys.trust.invitations import Invitations
from fedsys.trust.jobs import version
from fedsys.trust.keys import PublicKeys, read_node_public, read_signing_public
from fedsys.trust.locks import locked
from fedsys.trust.names import check_name, is_name
from fedsys.trust.signing import WINDOW, Replays, Signed, key_id, open_signed, ring
from fedsys.trust.tokens import CODE, Throttle, redeem

ENROL, STANDING = "enrol", "standing"
"""What a request is for: the purpose that it is signed for, and the end of its address."""
PATH = "/fedsys/v1/"
AUTHORITY = "authority"
"""PATH and this: the federation's certificate, for whoever knows its fingerprint."""
LONGEST = 1 << 16
"""Bytes of a request."""
ANSWER = 4 << 20
"""Bytes of an answer."""
JOBS = 8
"""Jobs in an answer."""
COORDINATOR = "coordinator"
"""The site's name in logs."""


class Desk:
    """Answers banks. Not locked: for one thread at a time."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.time) -> None:
        self._home, self._clock = home, clock
        self._banks = Banks(home.folder / "banks.json")
        self._invitations = Invitations(home.folder / "invitations.json")
        self._standings = Standings(home.folder / "standing")
        self._replays = Replays(home.folder / "requests.seen")
        self._enrolling = Throttle(tries=10)
        self._asking = Throttle(tries=240)
        self._refusing, self._refusing_all = Throttle(tries=10), Throttle(tries=60)

    def authority(self) -> bytes:
        """The federation's certificate, a PEM."""
        return self._home.authority_path.read_bytes()

    def answer(self, purpose: str, data: bytes, source: str) -> dict[str, Any]:
        """The answer to a request, a table. source: the address that it came from.

        Raises nothing: {"error": ..., "code": ...} says what was wrong.
        """
        now = self._clock()
        try:
            if not self._asking.allow(source):
                raise _too_often()
            if purpose == ENROL:
                said = self._enrol(data, source, now)
            elif purpose == STANDING:
                said = self._standing(data, now)
            else:
                raise DataError("request: unknown: update fedsys on the older side")
        except FedsysError as error:
            self._refused(error, data, source)
            said = {"error": str(error), "code": str(code_of(error))}
        except Exception as error:  # nothing that comes from outside may end the server
            self._refused(error, data, source)
            said = {"error": "the coordinator could not answer", "code": str(Code.INTERNAL)}
        return {**said, "time": int(now), "version": version()}

    # --- enrolling -------------------------------------------------------------------------------

    def _enrol(self, data: bytes, source: str, now: float) -> dict[str, Any]:
        if not self._enrolling.allow(source):
            raise _too_often()
        signed, name, code, keys = self._opened(data)
        _check_time(signed, now)
        home = self._home
        with locked(home.folder / "enrolment"):
            self._take(name, code, keys, now)
        # Only now: strangers do not fill the memory. A bank whose answer was lost signs anew.
        self._replays.admit(signed, now)
        return {
            "federation": home.facts.name,
            "bank": name,
            "coordinator": home.keys.public.signing,
            "schema": schema_toml(home.schema),
            "fingerprint": keys.spoken,
        }

    def _opened(self, data: bytes) -> tuple[Signed, str, bytes, PublicKeys]:
        """What a stranger asks: the request, the bank's name, its code, its keys."""
        body = canonical.decode_table(data, ENROL, LONGEST).get("body")
        wanted = {"bank", "code", "node", "signing", "version"}
        if not isinstance(body, dict) or set(body) != wanted:
            raise DataError("enrol: has other fields than are known here: update fedsys")
        if not all(isinstance(one, str) for one in body.values()):
            raise DataError("enrol: has a field that is no text")
        keys = PublicKeys(body["node"], body["signing"])
        read_node_public(keys.node)
        own = ring(read_signing_public(keys.signing))
        signed = open_signed(
            data, own, purpose=ENROL, audience=self._home.facts.name, limit=LONGEST
        )
        try:
            code = bytes.fromhex(body["code"])
        except ValueError:
            code = b""
        if len(code) != CODE:
            raise DataError("enrol: its code is none")
        return signed, check_name(body["bank"], "bank"), code, keys

    def _take(self, name: str, code: bytes, keys: PublicKeys, now: float) -> None:
        """Writes a bank down, if its code is right."""
        known = {bank.name: bank.keys for bank in self._banks.all()}
        for other, held in known.items():
            if other != name and {held.node, held.signing} & {keys.node, keys.signing}:
                raise IdentityError(
                    f"bank {name!r}: has the keys of another bank: enrol in a folder of its own"
                )
        try:
            self._invitations.redeem(name, code, now)
        except IdentityError:
            # Sent again since the answer was lost, or this server was killed in between.
            if known.get(name, keys) != keys or not self._again(name, code):
                raise
            if name in known:
                return
        self._banks.add(name, keys)
        self._home.audit.record(Event.JOINED, bank=name, fingerprint=keys.spoken)

    def _again(self, name: str, code: bytes) -> bool:
        """Whether the code is the right one of an invitation that was used."""
        kept = {one.bank: one for one in self._invitations.all()}.get(name)
        if kept is None or kept.used is None:
            return False
        try:
            redeem(replace(kept, used=None), code, kept.used - 1)
        except IdentityError:
            return False
        return True

    # --- standing --------------------------------------------------------------------------------

    def _standing(self, data: bytes, now: float) -> dict[str, Any]:
        bank, signed = self._known(data, now)
        body = Standings.check(signed.body)
        if body["bank"] != bank.name:
            raise IdentityError(f"standing: signed by {bank.name}, in another bank's name")
        before = self._standings.get(bank.name)
        self._standings.keep(bank.name, data)
        self._note_answers(bank.name, before, standing_of(signed.time, body))
        head, audit = body["head"], self._home.audit
        if head is not None:
            number, hash = head["number"], head["hash"]
            audit.record(Event.HEAD_SEEN, site=bank.name, number=number, hash=hash)
        ours = None if head is None else audit.head()
        return {
            "bank": bank.name,
            "approved": bank.approved,
            "head": None if ours is None else {"number": ours.number, "hash": ours.hash},
            "jobs": self._jobs() if bank.approved else [],
        }

    def _known(self, data: bytes, now: float) -> tuple[Bank, Signed]:
        """The bank that signed a request, which is of now and was not here before."""
        keys = {bank.name: read_signing_public(bank.signing) for bank in self._banks.all()}
        signed = open_signed(
            data,
            ring(*keys.values()),
            purpose=STANDING,
            audience=self._home.facts.name,
            limit=LONGEST,
        )
        self._replays.admit(signed, now)
        name = next(name for name, key in keys.items() if key_id(key) == signed.key)
        return self._banks.get(name), signed

    def _note_answers(self, bank: str, before: Standing | None, now: Standing) -> None:
        """Writes down what a bank has answered since it said last: to open jobs, and to the request
        for statistics; of others it may say what it likes."""
        new = set(now.refused) - set(before.refused if before else ())
        agreed = set(now.jobs) - set(before.jobs if before else ()) - set(now.refused)
        if not new | agreed:
            return
        asked, audit = statistics_request(self._home).digest, self._home.audit
        for digest in [asked, *(_digest(path) for path in self._open_jobs())]:
            if digest in new and digest == asked:
                audit.record(Event.STATISTICS_DECLINED, bank=bank, request=digest)
            elif digest in new:
                audit.record(Event.JOB_DECLINED, bank=bank, job=digest)
            elif digest in agreed and digest == asked:
                audit.record(Event.STATISTICS_APPROVED, bank=bank, request=digest)
            elif digest in agreed:
                audit.record(Event.JOB_AGREED, bank=bank, job=digest)

    def _jobs(self) -> list[str]:
        """The signed jobs that are not over, the newest first."""
        jobs: list[str] = []
        room = ANSWER // 2
        for path in self._open_jobs():
            text = path.read_text("utf-8")
            room -= len(text.encode())
            if room < 0 or len(jobs) == JOBS:
                break
            jobs.append(text)
        return jobs

    def _open_jobs(self) -> Iterator[Path]:
        """Where the signed jobs lie that are not over, the newest first."""
        for job in reversed(all_jobs(self._home)):
            path = job.folder / "job.json"
            if job.status.status not in (DONE, FAILED) and path.exists():
                yield path

    def _refused(self, error: Exception, data: bytes, source: str) -> None:
        """Writes a refusal down: so many a minute, and nothing of what a stranger wrote."""
        if not (self._refusing.allow(source) and self._refusing_all.allow("everybody")):
            return
        name = None
        try:
            said = canonical.decode_table(data, "request", LONGEST).get("body")
            name = said.get("bank") if isinstance(said, dict) else None
        except DataError:
            pass
        bank = name if isinstance(name, str) and is_name(name) else "unknown"
        self._home.audit.record(Event.REQUEST_REFUSED, bank=bank, code=str(code_of(error)))


def _check_time(signed: Signed, now: float) -> None:
    off = signed.time - now
    if abs(off) > WINDOW:
        raise IdentityError(
            f"clock: the bank's is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the "
            f"coordinator's, of at most {WINDOW:.0f}: set the clock of either side (timedatectl)"
        )


def _too_often() -> NetworkError:
    return NetworkError("too many requests from this address: wait a minute and try again")


def _digest(path: Path) -> str:
    """The SHA-256 of a signed job of ours; see `trust.jobs.Job.digest`."""
    body = canonical.decode_table(path.read_bytes(), "job")["body"]
    return hashlib.sha256(canonical.encode(body)).hexdigest()
