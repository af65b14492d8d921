"""One job, from the banks' statistics to the model: the same round loop as in the simulation."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedsys.admission import Reason
from fedsys.checkpoint import Checkpoints
from fedsys.errors import QuorumError, StorageError
from fedsys.federation.enrolment.approvals import await_approvals
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, RUNNING, JobFolder
from fedsys.federation.jobs.members import Current, Members, Roster
from fedsys.federation.jobs.messages import JOB, job_record
from fedsys.federation.jobs.proposal import proposed
from fedsys.federation.jobs.quarantine import LIMIT, Quarantine, quarantine, round_lines
from fedsys.federation.jobs.received import Received
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.statistics import Statistics, preparation
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.flower.rounds.engine import ADMITTED, GridEngine
from fedsys.flower.rounds.mail import Waiting
from fedsys.layout import Layout, read_weights
from fedsys.randomness import seeded_globals
from fedsys.records import told as record_of
from fedsys.rounds import PATIENCE, Round, State, begin, run_rounds
from fedsys.storage import append_line, write_atomic
from fedsys.tables import Preparation, Summary
from fedsys.trust import wire
from fedsys.trust.events import Event
from fedsys.trust.jobs import Job, open_job, sign_job
from fedsys.trust.signing import ring

Told = Callable[[str], None]


class Abandoned(QuorumError):
    """A round that no bank at all had a part in, time and again."""


@dataclass(frozen=True)
class Assembled:
    """A job and what is needed to run it.

    signed: the job as banks get it. weights: [layout length], before the first round.
    """

    job: Job
    signed: bytes
    preparation: Preparation
    weights: np.ndarray


def run_job(
    home: Home,
    folder: JobFolder,
    current: Current,
    grid: DeployedGrid,
    told: Told,
) -> State:
    """Runs a job, or goes on with it, and returns the last state.

    current: see `Current`; is asked before every round. Raises FedsysError; what was done until
    then is on the disk, and running the job again goes on from there.
    """
    request = folder.request
    folder.raise_if_stopped()
    folder.say(status=RUNNING, error="", code=0)
    banks, nodes = current()
    statistics = Statistics(home, told)
    summaries = statistics.gather(
        banks,
        grid,
        grid.node_of(nodes),
        needed=max(home.facts.banks, request.quorum or 0),
        waiting=Waiting(deadline=request.deadline, grace=request.grace),
        look=folder.raise_if_stopped,
    )
    assembled = assemble(home, folder, request, summaries)
    job = assembled.job
    folder.say(job=job.digest)
    roster = Roster(home, folder, job, statistics, grid, current, told)
    taking_part = roster.begin()
    await_approvals(home, job, taking_part, told, look=folder.raise_if_stopped)
    state, checkpoints = _found(folder, assembled, told)
    run_id = job.digest[:16]
    received = Received(home.audit, run_id, roster.names)
    kept_out = quarantine(round_lines(folder.metrics), folder.status.forgiven)
    if state.round:
        home.audit.record(Event.RESUMED, run=run_id, round=state.round)
    else:
        home.audit.record(Event.RUN_BEGUN, run=run_id, job=job.digest, banks=len(taking_part))
    hear = _hearing(roster.names, told)
    abandoned, away = 0, frozenset[int]()
    while state.round < job.terms.rounds:
        folder.raise_if_stopped()
        members = roster.look(state.round + 1, kept_out.banks)
        engine = _engine(assembled, request, members, grid, away, hear, received)
        after, happened = _round(job, members, state, engine)
        away = frozenset(
            one.client
            for one in happened.aggregate.refused
            if one.reason in (Reason.LOST, Reason.LATE)
        )
        told(_line(job, happened))
        received.record(happened)
        if not happened.moved:  # the round is done again, and nothing of it is kept
            abandoned += 1
            _abandon(home, job, run_id, roster.names, happened, abandoned)
            continue
        state, abandoned = after, 0
        kept_out = _keep(home, folder, run_id, roster.names, state, happened, kept_out, told)
        checkpoints.save(state)  # last: a round without it is done again
        folder.say(round=state.round)
    digest = _leave(folder, assembled, state)
    home.audit.record(Event.RUN_ENDED, run=run_id, rounds=state.round, sha256=digest)
    folder.say(status=DONE)
    return state


def _round(job: Job, members: Members, state: State, engine: GridEngine) -> tuple[State, Round]:
    """The round after a state, and what it came to."""
    cohort = members.cohort
    return next(
        run_rounds(
            state,
            job.terms.strategy,
            engine,
            job.layout,
            cohorts=lambda round: cohort,
            population=members.population,
            rounds=state.round + 1,
            quorum=_part(job, members),
        )
    )


def _part(job: Job, members: Members) -> float:
    """The quorum as a part of those that take part, which no rounding exceeds."""
    return (job.terms.quorum - 0.5) / len(members.cohort)


def _abandon(
    home: Home, job: Job, run_id: str, names: Mapping[int, str], happened: Round, tries: int
) -> None:
    """Writes down that a round had too few banks. Raises QuorumError after PATIENCE tries,
    Abandoned where no bank was there."""
    aggregate, needed = happened.aggregate, job.terms.quorum
    admitted = len(aggregate.admitted)
    home.audit.record(
        Event.ROUND_ABANDONED,
        run=run_id,
        round=happened.number,
        admitted=admitted,
        needed=needed,
    )
    if tries >= PATIENCE:
        missing = ", ".join(f"{names[one.client]} ({one.reason})" for one in aggregate.refused)
        kind = QuorumError if admitted else Abandoned
        raise kind(
            f"round {happened.number}: {admitted} of {needed} banks that are needed, {tries} times "
            f"in a row; missing: {missing}; when they are back: fedsys federation resume "
            f"{job.terms.name}"
        )


def assemble(
    home: Home,
    folder: JobFolder,
    request: Request,
    summaries: Mapping[str, Summary],
) -> Assembled:
    """The job that a request comes to; made once, and the same afterwards. summaries: bank -> its
    statistics, of which the preparation is made where there is none yet."""
    made = preparation(home, summaries)
    path = folder.folder / "job.json"
    if path.exists():
        keys = ring(home.keys.signing.public_key())
        signed = path.read_bytes()
        job, _ = open_job(signed, keys, home.facts.name)
    else:
        job = proposed(home, request, made.hash)
        signed = sign_job(home.keys.signing, job)
        write_atomic(path, [signed])
        home.audit.record(Event.JOB_SIGNED, job=job.digest, key=_key(home))
    with seeded_globals(job.terms.seed):
        model = request.build(home.schema)
    if Layout.of(model) != job.layout:
        raise StorageError(f"{folder.folder}: its model is not the job's any more: ask for it anew")
    weights = read_weights(model)
    return Assembled(job, signed, made, weights)


def _engine(
    assembled: Assembled,
    request: Request,
    members: Members,
    grid: DeployedGrid,
    away: Collection[int],
    hear: Callable[[int, str], None],
    received: Received,
) -> GridEngine:
    """For the next round. away: banks that were not heard in the last."""
    job = assembled.job
    record = job_record(assembled.signed, assembled.preparation)

    def dress(client: int, content: RecordDict) -> RecordDict:
        content[JOB] = record
        return content

    return GridEngine(
        grid,
        job.layout,
        job.terms.strategy,
        members.enrolled,
        experiment=job.digest,
        node_of=members.node_of,
        aggregator=job.terms.aggregator,
        waiting=Waiting(
            deadline=job.terms.deadline, enough=_part(job, members), grace=request.grace
        ),
        away=away,
        told=hear,
        check=received.note,
        dress=dress,
    )


def _hearing(names: Mapping[int, str], told: Told) -> Callable[[int, str], None]:
    """Tells why an update was refused each time, and what was odd about a good one once."""
    said = {ADMITTED}

    def hear(client: int, what: str) -> None:
        line = f"{names[client]}: {what}"
        if what not in said and line not in said:
            told(line)
        if what.startswith(ADMITTED):
            said.add(line)

    return hear


def _found(folder: JobFolder, assembled: Assembled, told: Told) -> tuple[State, Checkpoints]:
    """The state that the job was left in."""
    job = assembled.job
    checkpoints = Checkpoints(folder.folder / "checkpoints", job.digest)
    state = begin(job.terms.strategy, job.layout, assembled.weights)
    if checkpoints.exist():
        state, warnings = checkpoints.load(state)
        for warning in warnings:
            told(f"{warning}; going on from the checkpoint before it")
    _rewind(folder.metrics, state.round)
    return state, checkpoints


def _rewind(path: Path, round: int) -> None:
    """Drops the lines of rounds that have no checkpoint: they are done again."""
    if not path.exists():
        return
    kept = [line for line in round_lines(path) if line["round"] <= round]
    write_atomic(path, [json.dumps(line).encode() + b"\n" for line in kept])


def _keep(
    home: Home,
    folder: JobFolder,
    run_id: str,
    names: Mapping[int, str],
    state: State,
    happened: Round,
    kept_out: Quarantine,
    told: Told,
) -> Quarantine:
    """Writes down what a round came to, and gives what it comes to for banks that misbehave."""
    aggregate = happened.aggregate
    line: dict[str, Any] = record_of(happened)
    if math.isnan(happened.loss):  # nobody said it; NaN is no JSON
        line["train_loss"] = None
    line["banks"] = [names[int(client)] for client in aggregate.admitted]
    line["missing"] = {names[one.client]: str(one.reason) for one in aggregate.refused}
    after = kept_out.after(line)
    if after.banks:
        line["quarantined"] = after.banks
    append_line(folder.metrics, json.dumps(line))
    for bank, reason in after.banks.items():
        if bank not in kept_out.banks:
            told(
                f"{bank}: {LIMIT} updates in a row were refused (the last: {reason}): it is not "
                "asked any more in this job; mend it there: the next job asks it again"
            )
            home.audit.record(
                Event.QUARANTINED, run=run_id, round=state.round, bank=bank, reason=reason
            )
    home.audit.record(
        Event.ROUND_ENDED,
        run=run_id,
        round=state.round,
        admitted=len(aggregate.admitted),
        weight=float(aggregate.weight),
        sha256=_digest(state.weights),
    )
    return after


def _leave(folder: JobFolder, assembled: Assembled, state: State) -> str:
    """Writes the model, and gives its hash."""
    tensors = assembled.job.layout.named(state.weights)
    write_atomic(folder.weights, wire.parts(tensors))
    return _digest(state.weights)


def read_result(folder: JobFolder) -> dict[str, np.ndarray]:
    """The model of a job that is done, tensor by tensor. Raises StorageError where it is not."""
    try:
        return wire.decode(folder.weights.read_bytes())
    except OSError:
        raise StorageError(f"{folder.weights}: is not there: is the job done?") from None


def _line(job: Job, happened: Round) -> str:
    aggregate = happened.aggregate
    sent = len(aggregate.admitted) + len(aggregate.refused)
    moved = "" if happened.moved else ", too few: nothing moved"
    loss = "no loss" if math.isnan(happened.loss) else f"loss {happened.loss:.4f}"
    return (
        f"round {happened.number}/{job.terms.rounds}: {len(aggregate.admitted)} of {sent} banks, "
        f"{loss}, {happened.seconds:.1f} s{moved}"
    )


def _digest(weights: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()


def _key(home: Home) -> str:
    return next(iter(ring(home.keys.signing.public_key())))
