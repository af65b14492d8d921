"""The model of a job that is done, for people: a Keras file, and beside it how rows are prepared.

    first.keras   what `fedsys export` and `keras.models.load_model` read
    first.json    which job made it; every input's column, mean and scale; the schema

The weights have to be those that the coordinator's log says the run ended with.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.errors import DataError, StorageError, UsageError
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, QUEUED, RUNNING, JobFolder
from fedsys.federation.jobs.run import read_result
from fedsys.federation.jobs.statistics import preparation
from fedsys.layout import write_weights
from fedsys.storage import storing, write_atomic
from fedsys.tables.recipe import recipe
from fedsys.trust.events import Event
from fedsys.trust.jobs import Job, open_job
from fedsys.trust.signing import ring
from fedsys.trust.verification import entries_of

SUFFIX = ".keras"


@dataclass(frozen=True)
class Trained:
    """A model that was written. sha256: of its weights, as the log says it at the run's end."""

    model: Path
    preparation: Path
    sha256: str
    parameters: int


def check_done(job: JobFolder) -> None:
    """Raises UsageError where a job has no model yet."""
    said = job.status
    if said.status == DONE:
        return
    where = f"is {said.status}, at round {said.round} of {said.rounds}"
    if said.status in (QUEUED, RUNNING):
        remedy = f"its model is there when it is done: fedsys federation watch {job.name}"
    else:
        remedy = f"go on with it: fedsys federation resume {job.name}"
    raise UsageError(f"job {job.name!r}: {where}: {remedy}")


def check_place(out: Path) -> None:
    """Raises UsageError where a model cannot be written: nothing is replaced."""
    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out}: a Keras file ends in {SUFFIX}: --out {out.stem}{SUFFIX}")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}: make it first")
    for path in (out, out.with_suffix(".json")):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path}: is there already: move it away, or choose another --out")


def write_model(home: Home, folder: JobFolder, out: Path) -> Trained:
    """Writes a done job's model. Raises UsageError as the checks above do, DataError and
    StorageError where what the job left is damaged, or there is no room."""
    check_done(folder)
    check_place(out)
    job, weights = _result(home, folder)
    digest = hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()
    ended = _ended(home, job)
    if ended not in (None, digest):
        raise StorageError(
            f"{folder.weights}: is not what the log says that the run ended with: put it back "
            "from a backup"
        )
    model = job.model()
    write_weights(model, weights)
    beside = out.with_suffix(".json")
    part = out.with_name(f".{out.stem}.part{SUFFIX}")  # Keras looks at the suffix
    said = {"model": out.name, "sha256": digest, **_facts(home, folder, job)}
    try:
        with storing(out):
            model.save(part)
        write_atomic(beside, [(json.dumps(said, indent=1) + "\n").encode()])
        with storing(out):
            os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return Trained(out, beside, digest, len(weights))


def _result(home: Home, folder: JobFolder) -> tuple[Job, np.ndarray]:
    """The job, and the weights that it came to: [layout length]."""
    path = folder.folder / "job.json"
    try:
        signed = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
    job, _ = open_job(signed, ring(home.keys.signing.public_key()), home.facts.name)
    tensors = read_result(folder)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != dict(zip(job.layout.names, job.layout.shapes, strict=True)):
        raise DataError(f"{folder.weights}: holds another model than the job's")
    return job, job.layout.gather(tensors)


def _ended(home: Home, job: Job) -> str | None:
    """The SHA-256 of the weights at the end of the job's run, by the log; None where it is not
    there."""
    found = [
        str(entry.details["sha256"])
        for entry in entries_of(home.audit.path)
        if entry.event is Event.RUN_ENDED and job.digest.startswith(entry.details["run"])
    ]
    return found[-1] if found else None


def _facts(home: Home, folder: JobFolder, job: Job) -> dict[str, Any]:
    """Which job it was, and how a row becomes the model's inputs."""
    made = preparation(home, {})
    if made.hash != job.terms.preparation:
        raise StorageError(
            f"{home.folder / 'preparation.json'}: is not the preparation of job {folder.name!r}: "
            "put it back from a backup"
        )
    return {
        "federation": home.facts.name,
        "job": {"name": folder.name, "sha256": job.digest, "rounds": folder.status.round},
        "fedsys": job.terms.code,
        **recipe(home.schema, made),
    }
