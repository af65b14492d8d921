"""A bank as it lies in its own folder.

bank.json            which federation, where its server is, where the rows are
authority.crt        the federation's certificate, pinned when the bank enrolled
schema.toml          the columns that banks agreed on
keys/                the bank's own keys, which never leave; see trust.keys
secrets/             what the trainer shows to the node beside it
jobs/                the jobs that came: DIGEST.json; and what was said to them: DIGEST.approved,
                     DIGEST.refused with the reason; the request for statistics has a digest, too
statistics.json      what was said of the rows, once
flower/              the state and log of Flower's node; trainer.log
audit.jsonl          what ran, what was sent, what was refused and why
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedsys import places
from fedsys.errors import PolicyError, UsageError, nearest
from fedsys.flower.processes.supernode import SuperNode
from fedsys.storage import storing, write_atomic
from fedsys.tables import (
    Schema,
    Source,
    StatisticsRequest,
    open_source,
    read_schema,
    write_schema,
)
from fedsys.trust.audit import Audit
from fedsys.trust.events import Event
from fedsys.trust.jobs import Job, open_job, version
from fedsys.trust.keyfiles import make_private, place
from fedsys.trust.keys import SiteKeys, make_keys, read_keys, read_signing_public
from fedsys.trust.names import check_address, check_name
from fedsys.trust.policy import Policy
from fedsys.trust.signing import ring

ASK, ALWAYS = "ask", "always"
EXECUTOR = "executor"
LONGEST_REASON = 1000
"""Letters of a reason to refuse a job."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Facts:
    """What a bank is.

    name: as the federation knows it. server: address of its server. coordinator: the key that signs
    its jobs, as a line. source, query: where the rows are; see `tables.open_source`.
    approve: 'ask', so that somebody sees each job before it runs, or 'always'.
    """

    name: str
    federation: str
    server: str
    coordinator: str
    source: str = ""
    query: str | None = None
    approve: str = ASK

    def __post_init__(self) -> None:
        check_name(self.name, "bank")
        check_name(self.federation, "federation")
        check_address(self.server)
        read_signing_public(self.coordinator)
        if self.approve not in (ASK, ALWAYS):
            raise UsageError(
                f"approve: unknown {self.approve!r}; {nearest(self.approve, (ASK, ALWAYS))}"
            )


@dataclass(frozen=True)
class BankHome:
    """A bank's folder."""

    folder: Path
    facts: Facts

    @classmethod
    def create(cls, folder: Path, facts: Facts, schema: Schema, authority: bytes) -> BankHome:
        """Makes a bank's folder with keys of its own. authority: the federation's certificate."""
        if (folder / "bank.json").exists():
            raise UsageError(f"{folder}: is a bank's folder already: choose another --home")
        make_private(folder)
        home = cls(folder, facts)
        make_keys(folder / "keys")
        place(folder / "secrets", {EXECUTOR: secrets.token_hex(32).encode()})
        write_schema(schema, folder / "schema.toml")
        write_atomic(folder / "authority.crt", [authority])
        home.audit.record(
            Event.OPENED, site=facts.name, federation=facts.federation, version=version()
        )
        # Last: a folder without it is not a bank's.
        write_atomic(folder / "bank.json", [json.dumps(asdict(facts)).encode()])
        return home

    @classmethod
    def open(cls, folder: Path) -> BankHome:
        """The bank in a folder. Raises UsageError where there is none."""
        return cls(folder, places.read_facts(places.BANK, folder, Facts))

    @cached_property
    def schema(self) -> Schema:
        """The columns that banks agreed on."""
        return read_schema(self.folder / "schema.toml")

    @cached_property
    def keys(self) -> SiteKeys:
        """The bank's own."""
        return read_keys(self.folder / "keys")

    @cached_property
    def policy(self) -> Policy:
        """What the bank lets be done."""
        return Policy()

    @cached_property
    def statistics(self) -> StatisticsRequest:
        """What the federation asks of this bank's rows, before the first job."""
        return StatisticsRequest(self.facts.federation, self.schema)

    @property
    def coordinator(self) -> dict[str, Ed25519PublicKey]:
        """The keys whose jobs and requests are believed."""
        return ring(read_signing_public(self.facts.coordinator))

    @property
    def audit(self) -> Audit:
        """The bank's log."""
        return Audit(self.folder / "audit.jsonl")

    def source(self) -> Source:
        """The bank's rows. Raises DataError where they cannot be read."""
        if not self.facts.source:
            raise UsageError(f"{self.folder}: no rows: name them: fedsys bank check --source ...")
        return open_source(self.facts.source, self.facts.query)

    def node(self, port: int) -> SuperNode:
        """Flower's node, ready to start. port: of its interface on this machine."""
        return SuperNode(
            folder=self.folder / "flower",
            server=self.facts.server,
            authority=self.folder / "authority.crt",
            key=self.keys.node_path,
            executor=self.folder / "secrets" / EXECUTOR,
            port=port,
        )

    # --- jobs, and the request for statistics ----------------------------------------------------

    def keep_job(self, digest: str, signed: bytes) -> bool:
        """Keeps a job so that somebody can look at it. Whether it is new here."""
        path = self._job(digest, "json")
        if path.exists():
            return False
        make_private(path.parent)
        write_atomic(path, [signed])
        return True

    def approved(self, digest: str) -> bool:
        """Whether a job may run here, or the statistics be sent."""
        if self.refused(digest):
            return False
        return self.facts.approve == ALWAYS or self._job(digest, "approved").exists()

    def answered(self, digest: str) -> bool:
        """Whether nobody here has to look at it any more."""
        return self.approved(digest) or self.refused(digest)

    def refused(self, digest: str) -> bool:
        """Whether somebody here said no to it."""
        return self._job(digest, "refused").exists()

    def reason(self, digest: str) -> str:
        """Why it was refused; stays here."""
        try:
            return self._job(digest, "refused").read_text("utf-8", "replace")
        except OSError:
            return ""

    def check_approved(self, digest: str, what: str) -> None:
        """Raises PolicyError unless it was approved."""
        if self.refused(digest):
            raise PolicyError(f"{what}: was refused here")
        if not self.approved(digest):
            raise PolicyError(f"{what}: waits here for: fedsys bank jobs approve {digest[:12]}")

    def approve(self, digest: str) -> None:
        """Lets a job run here, or the statistics be sent; takes a refusal back."""
        self._log(digest, approved=True)  # first: what runs here stands in the log
        make_private(self.folder / "jobs")
        write_atomic(self._job(digest, "approved"), [b""])
        self._forget(digest, "refused")

    def refuse(self, digest: str, reason: str = "") -> None:
        """Says no, for those who are to come as well as for a job that runs here: it gets nothing
        from this bank from its next round on. reason: for people here; nobody else gets it."""
        make_private(self.folder / "jobs")
        write_atomic(self._job(digest, "refused"), [reason.encode()])  # first: it holds from here
        self._forget(digest, "approved")
        self._log(digest, approved=False)

    def jobs(self) -> list[tuple[Job, bool]]:
        """The jobs that came, and whether each may run here."""
        found = sorted((self.folder / "jobs").glob("*.json"), key=lambda one: one.stat().st_mtime)
        opened = [
            open_job(one.read_bytes(), self.coordinator, self.facts.federation, self.policy.bounds)
            for one in found
        ]
        return [(job, self.approved(job.digest)) for job, _ in opened]

    def find_job(self, text: str) -> str:
        """The SHA-256 of a job that came, or of the request for statistics, from its first digits
        or a job's name. Raises UsageError."""
        named = {self.statistics.digest: "statistics"}
        named |= {job.digest: job.terms.name for job, _ in self.jobs()}
        found = [
            digest for digest, name in named.items() if text and digest.startswith(text.lower())
        ] or [digest for digest, name in named.items() if text == name]
        if len(found) != 1:
            several = "may be one of several" if found else "has not come here"
            raise UsageError(f"job {text[:80]!r}: {several}: fedsys bank jobs lists them")
        return found[0]

    def _log(self, digest: str, approved: bool) -> None:
        name, audit = self.facts.name, self.audit
        if digest == self.statistics.digest:
            event = Event.STATISTICS_APPROVED if approved else Event.STATISTICS_DECLINED
            audit.record(event, bank=name, request=digest)
        elif approved:
            audit.record(Event.JOB_APPROVED, job=digest)
        else:
            audit.record(Event.JOB_DECLINED, bank=name, job=digest)

    def _forget(self, digest: str, ending: str) -> None:
        path = self._job(digest, ending)
        with storing(path):
            path.unlink(missing_ok=True)

    def _job(self, digest: str, ending: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise UsageError(f"job {digest[:80]!r}: not a job's SHA-256")
        return self.folder / "jobs" / f"{digest}.{ending}"
