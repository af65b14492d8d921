"""Jobs in a federation's folder: asked for, run, resumed, and what became of them.

jobs/NAME/request.toml   what was asked for
          model.keras  a model of the coordinator's own, as it was then
          job.json       the signed job, made when it first runs
          stop         is there from when somebody stopped it until it is resumed
          banks.json     the banks that it began with, where it keeps to them; see members.py
          status.json    how far it is; metrics.jsonl: a line a round
          checkpoints/   the state after each round
          weights.bin    the model at the end; see trust.wire
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedsys.errors import FedsysError, Stopped, StorageError, UsageError, nearest
from fedsys.federation.home import Home
from fedsys.federation.jobs.request import Request
from fedsys.storage import storing, write_atomic
from fedsys.tasks.own_model import SUFFIX, OwnModel

QUEUED, RUNNING, DONE, PAUSED, FAILED = "queued", "running", "done", "paused", "failed"
MODEL = f"model{SUFFIX}"
TO_RUN = (QUEUED, RUNNING)
"""A job that is running when the server starts was interrupted, and goes on."""


@dataclass(frozen=True)
class Status:
    """How far a job is. code: exit code of its error, 0 where there is none. forgiven: refusals of
    updates until this round no longer count against a bank; see `quarantine.py`."""

    status: str = QUEUED
    round: int = 0
    rounds: int = 0
    job: str = ""
    error: str = ""
    code: int = 0
    forgiven: int = 0


@dataclass(frozen=True)
class JobFolder:
    """A job as it lies on the disk."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.bin"

    @property
    def request(self) -> Request:
        return Request.read(self.folder / "request.toml")

    @property
    def status(self) -> Status:
        """Raises StorageError where the file is damaged."""
        path = self.folder / "status.json"
        try:
            return Status(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return Status()
        except (OSError, ValueError, TypeError):
            raise StorageError(f"{path}: damaged: delete it to run the job again") from None

    def say(self, **changes: Any) -> None:
        """Writes down how far the job is."""
        table = {**asdict(self.status), **changes}
        write_atomic(self.folder / "status.json", [json.dumps(table).encode()])

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def stopped(self) -> Stopped:
        """What is said of a job that somebody stopped."""
        return Stopped(f"stopped: fedsys federation resume {self.name} goes on with it")

    def raise_if_stopped(self) -> None:
        """Raises Stopped where somebody stopped the job."""
        if self.stop_file.exists():
            raise self.stopped

    def failed(self, error: FedsysError, status: str = FAILED) -> None:
        """Writes down why the job ended."""
        self.say(status=status, error=str(error), code=error.code)


def submit(home: Home, request: Request) -> JobFolder:
    """Asks for a job; the server runs it when its turn comes. Raises UsageError for a name that
    was there before, and as `OwnModel` does."""
    job = JobFolder(home.folder / "jobs" / request.name)
    model = OwnModel.read(Path(request.model)) if request.own_model else None
    with storing(job.folder):
        job.folder.parent.mkdir(exist_ok=True)
        try:
            job.folder.mkdir()
        except FileExistsError:
            raise UsageError(
                f"job {request.name!r}: was asked for before: give it another name, or "
                f"go on with it: fedsys federation resume {request.name}"
            ) from None
    if model is not None:  # as it is now: the job may run later, and again
        write_atomic(job.folder / MODEL, [model.data])
        request = replace(request, model=MODEL)
    write_atomic(job.folder / "request.toml", [request.toml().encode()])
    job.say(rounds=request.rounds)
    return job


def resume_job(job: JobFolder) -> None:
    """Lets a job that was paused or failed go on, with all banks. Raises UsageError where it needs
    none."""
    known = job.status
    if known.status not in (PAUSED, FAILED):
        raise UsageError(f"job {job.name!r}: is {known.status}: there is nothing to resume")
    with storing(job.stop_file):
        job.stop_file.unlink(missing_ok=True)
    job.say(status=QUEUED, error="", code=0, forgiven=known.round)


def stop_job(job: JobFolder, served: bool) -> None:
    """Stops a job that waits or runs, so that it can be resumed. Raises UsageError where it does
    neither.

    served: whether a server runs. It looks for the file now and then, and says when the job has
    stopped; without one, and of a job whose turn has not come, that is said here.
    """
    known = job.status
    if known.status not in TO_RUN:
        raise UsageError(f"job {job.name!r}: is {known.status}: there is nothing to stop")
    write_atomic(job.stop_file, [])
    if not served or known.status == QUEUED:
        job.failed(job.stopped, PAUSED)


def all_jobs(home: Home) -> list[JobFolder]:
    """Every job, the oldest first."""
    folder = home.folder / "jobs"
    found = [one.parent for one in folder.glob("*/status.json")]
    when = {one: (one / "request.toml").stat().st_mtime_ns for one in found}
    return [JobFolder(one) for one in sorted(found, key=lambda one: (when[one], one.name))]


def find_job(home: Home, name: str) -> JobFolder:
    """A job by its name, or UsageError."""
    names = [job.name for job in all_jobs(home)]
    if not names:
        raise UsageError(f"job {name!r}: none was asked for yet: fedsys federation run job.toml")
    if name not in names:
        raise UsageError(f"job {name!r}: is not there; {nearest(name, names)}")
    return JobFolder(home.folder / "jobs" / name)


def next_job(home: Home) -> JobFolder | None:
    """The job whose turn it is; one that was interrupted comes first."""
    waiting = [job for job in all_jobs(home) if job.status.status in TO_RUN]
    return min(waiting, key=lambda job: job.status.status != RUNNING, default=None)
