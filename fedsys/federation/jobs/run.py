"""One job, from the banks' statistics to the model: the same round loop as in the simulation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedsys.checkpoint import Checkpoints
from fedsys.errors import QuorumError, StorageError
from fedsys.federation.banks import Bank
from fedsys.federation.enrolment.approvals import await_approvals
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, RUNNING, JobFolder
from fedsys.federation.jobs.messages import JOB, job_record
from fedsys.federation.jobs.received import Received
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.statistics import gather, preparation
from fedsys.flower.processes.runtime import DeployedGrid
from fedsys.flower.rounds.engine import GridEngine
from fedsys.flower.rounds.mail import Waiting
from fedsys.layout import read_weights
from fedsys.randomness import seeded_globals
from fedsys.records import told as record_of
from fedsys.rounds import PATIENCE, Round, State, begin, run_rounds
from fedsys.storage import append_line, storing, write_atomic
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

    signed: the job as banks get it. enrolled: [clients], the weight of each; 0 for those that do
    not take part. weights: [layout length], before the first round.
    """

    job: Job
    signed: bytes
    preparation: Preparation
    enrolled: np.ndarray
    weights: np.ndarray

    @property
    def cohort(self) -> np.ndarray:
        """The clients that take part."""
        return np.flatnonzero(self.enrolled)


def run_job(
    home: Home,
    folder: JobFolder,
    banks: Sequence[Bank],
    nodes: Mapping[int, int],
    grid: DeployedGrid,
    told: Told,
) -> State:
    """Runs a job, or goes on with it, and returns the last state.

    banks: those that may take part. nodes: client -> its node. Raises FedsysError; what was done
    until then is on the disk, and running the job again goes on from there.
    """
    node_of = grid.node_of(nodes)
    request = folder.request
    folder.say(status=RUNNING, error="", code=0)
    summaries = gather(home, banks, grid, node_of, request.deadline, told)
    assembled = assemble(home, folder, request, banks, summaries)
    job = assembled.job
    folder.say(job=job.digest)
    if job.terms.quorum > len(assembled.cohort):
        raise QuorumError(
            f"job {job.terms.name!r} needs {job.terms.quorum} banks and {len(assembled.cohort)} "
            "take part: approve more, or ask for one with a lower quorum"
        )
    taking_part = {int(client) for client in assembled.cohort}
    await_approvals(home, job, [bank for bank in banks if bank.number in taking_part], told)
    names = {bank.number: bank.name for bank in banks}
    state, checkpoints = _found(folder, assembled, told)
    run_id = job.digest[:16]
    received = Received(home.audit, run_id, names)
    engine = _engine(assembled, grid, nodes, names, told, received)
    if state.round:
        home.audit.record(Event.RESUMED, run=run_id, round=state.round)
    else:
        home.audit.record(Event.RUN_BEGUN, run=run_id, job=job.digest, banks=len(taking_part))
    abandoned = 0
    while state.round < job.terms.rounds:
        for after, happened in _rounds(assembled, state, engine):
            told(_line(job, happened))
            received.record(happened)
            if not happened.moved:  # the round is done again, and nothing of it is kept
                abandoned += 1
                _abandon(home, job, run_id, names, happened, abandoned)
                break
            state, abandoned = after, 0
            _keep(home, folder, run_id, names, state, happened)
            checkpoints.save(state)  # last: a round without it is done again
            folder.say(round=state.round)
    digest = _leave(folder, assembled, state)
    home.audit.record(Event.RUN_ENDED, run=run_id, rounds=state.round, sha256=digest)
    folder.say(status=DONE)
    return state


def _rounds(
    assembled: Assembled, state: State, engine: GridEngine
) -> Iterator[tuple[State, Round]]:
    """The rounds from a state on."""
    job, cohort = assembled.job, assembled.cohort
    return run_rounds(
        state,
        job.terms.strategy,
        engine,
        job.layout,
        cohorts=lambda round: cohort,
        population=float(assembled.enrolled.sum()),
        rounds=job.terms.rounds,
        quorum=(job.terms.quorum - 0.5) / len(cohort),  # a part that no rounding exceeds
    )


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
    banks: Sequence[Bank],
    summaries: Mapping[str, Summary],
) -> Assembled:
    """The job that a request comes to with these banks; made once, and the same afterwards."""
    made = preparation(home, summaries)
    path = folder.folder / "job.json"
    if path.exists():
        keys = ring(home.keys.signing.public_key())
        signed = path.read_bytes()
        job, _ = open_job(signed, keys, home.facts.name)
    else:
        job = Job.propose(
            request.experiment,
            request.build(home.schema),
            federation=home.facts.name,
            name=request.name,
            objective=home.schema.objective,
            quorum=request.quorum or home.facts.banks,
            deadline=request.deadline,
            schema=home.schema.hash,
            preparation=made.hash,
        )
        signed = sign_job(home.keys.signing, job)
        write_atomic(path, [signed])
        home.audit.record(Event.JOB_SIGNED, job=job.digest, key=_key(home))
    rows = np.zeros(max(bank.number for bank in banks) + 1)
    for bank in banks:
        if bank.name in summaries:
            rows[bank.number] = summaries[bank.name].rows
    enrolled = rows if job.terms.weighting == "examples" else (rows > 0) * 1.0
    with seeded_globals(job.terms.seed):
        weights = read_weights(job.model())
    return Assembled(job, signed, made, enrolled, weights)


def _engine(
    assembled: Assembled,
    grid: DeployedGrid,
    nodes: Mapping[int, int],
    names: Mapping[int, str],
    told: Told,
    received: Received,
) -> GridEngine:
    terms = assembled.job.terms
    record = job_record(assembled.signed, assembled.preparation)

    def dress(client: int, content: RecordDict) -> RecordDict:
        content[JOB] = record
        return content

    def hear(client: int, what: str) -> None:
        if what != "admitted":
            told(f"{names[client]}: {what}")

    return GridEngine(
        grid,
        assembled.job.layout,
        terms.strategy,
        assembled.enrolled,
        experiment=assembled.job.digest,
        node_of=grid.node_of(nodes),
        waiting=Waiting(deadline=terms.deadline),
        told=hear,
        check=received.note,
        dress=dress,
    )


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
    with storing(path):
        lines = path.read_bytes().split(b"\n")[:-1]
    kept = [line for line in lines if json.loads(line)["round"] <= round]
    write_atomic(path, [line + b"\n" for line in kept])


def _keep(
    home: Home,
    folder: JobFolder,
    run_id: str,
    names: Mapping[int, str],
    state: State,
    happened: Round,
) -> None:
    """Writes down what a round came to."""
    aggregate = happened.aggregate
    line: dict[str, Any] = record_of(happened)
    line["banks"] = [names[int(client)] for client in aggregate.admitted]
    line["missing"] = {names[one.client]: str(one.reason) for one in aggregate.refused}
    append_line(folder.metrics, json.dumps(line))
    home.audit.record(
        Event.ROUND_ENDED,
        run=run_id,
        round=state.round,
        admitted=len(aggregate.admitted),
        weight=float(aggregate.weight),
        sha256=_digest(state.weights),
    )


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
    return (
        f"round {happened.number}/{job.terms.rounds}: {len(aggregate.admitted)} of {sent} banks, "
        f"loss {happened.loss:.4f}, {happened.seconds:.1f} s{moved}"
    )


def _digest(weights: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()


def _key(home: Home) -> str:
    return next(iter(ring(home.keys.signing.public_key())))
