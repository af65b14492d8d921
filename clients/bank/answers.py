"""What a bank answers its coordinator, and nobody else: its rows' statistics, its part of a round.

Only values come in, and only sums, weights and codes go out. The job that comes with an instruction
is opened, checked and approved before anything is built from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import RecordDict

from fedsys.clients.bank.home import ALWAYS, BankHome
from fedsys.clients.bank.memory import Memory
from fedsys.clients.trainer import Trainer
from fedsys.errors import DataError, FedsysError, IdentityError, PolicyError, StorageError
from fedsys.federation.jobs.messages import (
    ASK,
    STATISTICS,
    read_ask,
    read_job_record,
    read_preparation,
    summary_content,
)
from fedsys.flower.rounds.client import Member, answer
from fedsys.flower.rounds.messages import ANSWER, UPDATE, Code, failed, update_digest
from fedsys.objectives import objective
from fedsys.storage import write_atomic
from fedsys.tables import Summary, prepare, summarise
from fedsys.tables.summary import summary_of
from fedsys.task import Examples
from fedsys.trust import canonical
from fedsys.trust.audit import message_id
from fedsys.trust.events import Event, code_of
from fedsys.trust.jobs import Job, open_job
from fedsys.trust.signing import open_signed

Told = Callable[[str], None]


@dataclass(frozen=True)
class _Ready:
    """A job that is ready to be trained. source: SHA-256 of what it was read from."""

    source: str
    client: int
    job: Job
    trainer: Trainer


class Answers:
    """Answers a bank's messages, one after another. told: hears, at the bank, what was done."""

    def __init__(self, home: BankHome, told: Told = lambda line: None) -> None:
        self._home, self._told = home, told
        self._memory = Memory(home.folder / "memory")
        self._ready: _Ready | None = None
        self._rows: tuple[str, Examples] | None = None

    def __call__(self, content: RecordDict) -> RecordDict:
        """The answer to a message. Raises nothing that a message can bring about."""
        if ASK in content:
            return self._statistics(content)

        before: dict[str, object] = {}

        def member(experiment: str, client: int) -> Member:
            found = self._member(content, experiment, client)
            self._memory.load(experiment)
            before[experiment] = self._memory.held(experiment)
            return found

        reply = answer(content, self._memory.kept, member, self._failed)
        try:
            for job, held in before.items():
                self._memory.save(job, held)
        except StorageError as error:  # what is not on the disk must not be counted on
            self._failed(Code.MEMORY, error)
            return failed(None, Code.MEMORY)
        self._log_update(reply)
        return reply

    def _log_update(self, reply: RecordDict) -> None:
        """Writes down the update in a reply, as the coordinator does when it comes."""
        if UPDATE not in reply:
            return
        said: Any = reply[ANSWER]
        digest, size = update_digest(reply)
        run, bank = said["experiment"][:16], self._home.facts.name
        self._home.audit.record(
            Event.UPDATE_SENT,
            message_id(run, said["round"], bank),
            run=run,
            round=said["round"],
            bank=bank,
            sha256=digest,
            bytes=size,
        )

    def refuse(self, content: RecordDict) -> RecordDict:
        """The answer to a message of a run with code in it."""
        error = PolicyError("a run with another's code was refused")
        self._failed(Code.POLICY, error)
        return failed(None, Code.POLICY)

    def _statistics(self, content: RecordDict) -> RecordDict:
        home = self._home
        try:
            signed = open_signed(
                read_ask(content),
                home.coordinator,
                purpose=STATISTICS,
                audience=home.facts.federation,
            )
            if signed.body.get("schema") != home.schema.hash:
                raise PolicyError("statistics: of another schema than this bank's rows have")
            asked = home.statistics
            home.check_approved(asked.digest, f"statistics {asked.id}")
            if home.facts.approve == ALWAYS:  # written down as it comes, as with jobs
                home.audit.record(
                    Event.STATISTICS_APPROVED, bank=home.facts.name, request=asked.digest
                )
            reply = summary_content(self._summary())
        except Exception as error:  # a driver of a database may raise anything
            code = Code.DATA if isinstance(error, DataError) else Code.POLICY
            self._failed(code, error)
            return failed(None, code)
        data = next(iter(reply.config_records.values()))["summary"]
        assert isinstance(data, bytes)
        digest = hashlib.sha256(data).hexdigest()
        home.audit.record(
            Event.STATISTICS_SENT,
            message_id(home.facts.name, digest),
            bank=home.facts.name,
            sha256=digest,
            bytes=len(data),
        )
        self._told("sent the statistics of its rows")
        return reply

    def _summary(self) -> Summary:
        """The statistics of this bank's rows: worked out once, and kept.

        Whoever asks again hears the same: the difference between two answers would tell of the few
        rows that changed in between.
        """
        home = self._home
        path = home.folder / "statistics.json"
        if path.exists():
            said = canonical.decode_table(path.read_bytes(), str(path))
            return summary_of(said, home.schema, home.facts.name)
        summary = summarise(home.source(), home.schema)
        write_atomic(path, [canonical.encode(summary.table())])
        return summary

    def _member(self, content: RecordDict, experiment: str, client: int) -> Member:
        """The member that this bank is in the job of a message."""
        try:
            signed, preparation = read_job_record(content)
            source = hashlib.sha256(signed + preparation).hexdigest()
            ready = self._ready
            if ready is None or (ready.source, ready.client) != (source, client):
                self._ready = None  # not two models at once
                ready = self._made(source, client, signed, preparation)
                self._ready = ready
            else:  # somebody may have said no since
                with self._refusing(ready.job):
                    self._home.check_approved(ready.job.digest, f"job {ready.job.id}")
        except IdentityError as error:
            raise PolicyError(str(error)) from error
        if experiment != ready.job.digest:
            raise PolicyError(f"job {ready.job.id}: came with an instruction for another")
        strategy = ready.job.terms.strategy
        return Member(client, experiment, ready.trainer.layout, strategy, ready.trainer.train)

    def _made(self, source: str, client: int, signed: bytes, preparation: bytes) -> _Ready:
        home = self._home
        job, opened = open_job(signed, home.coordinator, home.facts.federation, home.policy.bounds)
        if home.keep_job(job.digest, signed):
            home.audit.record(Event.JOB_RECEIVED, job=job.digest, key=opened.key)
        made = read_preparation(preparation, home.schema)
        with self._refusing(job):
            home.policy.check(job, schema=home.schema.hash, preparation=made.hash)
            home.check_approved(job.digest, f"job {job.id}")
        if home.facts.approve == ALWAYS:  # what was approved beforehand is written down as it comes
            home.audit.record(Event.JOB_APPROVED, job=job.digest)
        terms = job.terms
        if self._rows is None or self._rows[0] != made.hash:
            self._rows = None
            self._rows = made.hash, prepare(home.source(), home.schema, made).examples
        examples = self._rows[1]
        weight = float(len(examples)) if terms.weighting == "examples" else 1.0
        trainer = Trainer(
            job.model(home.policy.bounds),
            objective(terms.objective),
            terms.local,
            terms.strategy,
            examples,
            client=client,
            weight=weight,
            seed=terms.seed,
        )
        self._told(f"job {job.id} {terms.name!r}: trains on {len(examples)} rows")
        return _Ready(source, client, job, trainer)

    @contextmanager
    def _refusing(self, job: Job) -> Iterator[None]:
        """Writes down that this bank takes no part in a job, where the block finds that."""
        try:
            yield
        except PolicyError as error:
            self._home.audit.record(Event.JOB_REFUSED, job=job.digest, code=str(code_of(error)))
            raise

    def _failed(self, code: Code, error: Exception) -> None:
        """Writes down what went wrong, here alone."""
        known = isinstance(error, FedsysError)
        said = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._told(f"{code}: {said}")
        home = self._home
        home.audit.record(Event.REQUEST_REFUSED, bank=home.facts.name, code=str(code_of(error)))
