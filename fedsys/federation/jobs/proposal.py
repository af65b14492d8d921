"""What can be said against a job before anything is sent, and what banks will be shown of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedsys.errors import FedsysError, PolicyError, QuorumError, UsageError
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.standing import ALWAYS, Standings
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import all_jobs
from fedsys.federation.jobs.request import Request
from fedsys.trust.invitations import Invitations
from fedsys.trust.jobs import Job, version
from fedsys.trust.policy import Policy

NOT_YET = "0" * 64
"""Stands for the hash of the preparation, which is made of the banks' statistics."""


@dataclass(frozen=True)
class Proposal:
    """A job that could be. settled: whether its hash is final; the first job of a federation gets
    its preparation from the banks' statistics. warnings: lines for people. problems: what is to be
    mended before it can be asked for."""

    job: Job
    settled: bool
    warnings: tuple[str, ...]
    problems: tuple[FedsysError, ...] = ()


def proposed(home: Home, request: Request, preparation: str) -> Job:
    """The job that a request comes to, with the preparation of this hash."""
    return Job.propose(
        request.experiment,
        request.build(home.schema),
        federation=home.facts.name,
        name=request.name,
        objective=home.schema.objective,
        quorum=request.quorum or home.facts.banks,
        deadline=request.deadline,
        schema=home.schema.hash,
        preparation=preparation,
    )


def foresee(home: Home, request: Request) -> Proposal:
    """The job that a request comes to. Nothing is written or sent.

    Its problems are a UsageError for a name that was there before, a QuorumError where too few
    banks are approved, and a PolicyError for what a bank refuses unless its owner has set other
    bounds. Raises UsageError for what is no job.
    """
    made = _preparation(home)
    job = proposed(home, request, made or NOT_YET)
    reasons = Policy().refusals(
        job, schema=home.schema.hash, preparation=job.terms.preparation, code=version()
    )
    problems = hindrances(home, request)
    if reasons:
        said = f"job {request.name!r}: banks would refuse it: {'; '.join(reasons)}"
        problems.append(PolicyError(said))
    return Proposal(job, made is not None, tuple(_warnings(home)), tuple(problems))


def hindrances(home: Home, request: Request) -> list[FedsysError]:
    """What is to be mended before a job can be asked for, whatever its model."""
    quorum = request.quorum or home.facts.banks
    return [*_named_before(home, request.name), *_too_few(home, quorum)]


def _named_before(home: Home, name: str) -> Iterator[UsageError]:
    if any(job.name == name for job in all_jobs(home)):
        yield UsageError(
            f"job {name!r}: was asked for before: give it another name, or go on with it: "
            f"fedsys federation resume {name}"
        )


def _too_few(home: Home, quorum: int) -> Iterator[QuorumError]:
    banks = Banks(home.folder / "banks.json").all()
    approved = [bank.name for bank in banks if bank.approved]
    if len(approved) >= max(quorum, home.facts.banks):
        return
    waiting = [bank.name for bank in banks if not bank.approved]
    invited = {one.bank for one in Invitations(home.folder / "invitations.json").all()}
    coming = sorted(invited - {bank.name for bank in banks})
    if waiting:
        remedy = f"fedsys federation approve {' '.join(waiting)}"
    elif coming:
        remedy = f"{', '.join(coming)} enrol first (fedsys bank enrol), then are approved"
    else:
        remedy = "invite more: fedsys federation invite NAME"
    wanted = f"a quorum of {quorum}" if quorum > home.facts.banks else f"{home.facts.banks}"
    yield QuorumError(
        f"{len(approved)} banks are approved ({', '.join(approved) or 'none'}), and the job needs "
        f"{wanted}: {remedy}"
    )


def _preparation(home: Home) -> str | None:
    from fedsys.federation.jobs.statistics import preparation

    if not (home.folder / "preparation.json").exists():
        return None
    return preparation(home, {}).hash


def _warnings(home: Home) -> list[str]:
    standings, warnings = Standings(home.folder / "standing"), []
    for bank in Banks(home.folder / "banks.json").approved():
        said = standings.get(bank.name)
        if said is not None and said.version != version():
            warnings.append(
                f"{bank.name}: runs fedsys {said.version} and will refuse a job for {version()}: "
                "install the same there"
            )
        if said is not None and said.approves != ALWAYS:
            warnings.append(f"{bank.name}: sees the job before it runs (fedsys bank jobs)")
    return warnings
