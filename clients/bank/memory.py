"""What a bank keeps between rounds where the strategy remembers (SCAFFOLD): on its own disk.

    memory/JOB.bin      round -> the bank's own vector after it; see trust.wire

It is written before the answer is sent: a coordinator never counts on a vector that a kill could
take away.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedsys.errors import DataError
from fedsys.flower.rounds.client import MEMORY
from fedsys.storage import storing, write_atomic
from fedsys.trust import wire
from fedsys.trust.keyfiles import make_private

JOBS = 8
"""Jobs whose vectors are kept; the oldest are deleted."""
_JOB = re.compile(r"[0-9a-f]{64}")


class Memory:
    """The vectors of a bank in its folder. `kept` is what `flower.client.answer` works on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept = RecordDict()

    def load(self, job: str) -> None:
        """Makes a job's vectors ready, if they are not. Only one job's are held at a time.

        A file that is damaged counts as none: the bank then says that it has lost its vector.
        """
        name, path = f"{MEMORY}.{job}", self._path(job)
        if name in self.kept:
            return
        self.kept.clear()
        try:
            found = wire.decode(path.read_bytes())
        except (FileNotFoundError, DataError):
            return
        self.kept[name] = ArrayRecord({round: Array(vector) for round, vector in found.items()})

    def save(self, job: str, before: object) -> None:
        """Writes a job's vectors, if they are not those that `held` gave before the answer."""
        record = self.held(job)
        if record is before or not isinstance(record, ArrayRecord):
            return
        make_private(self._folder)
        vectors = {round: np.asarray(array.numpy()) for round, array in record.items()}
        write_atomic(self._path(job), wire.parts(vectors))
        with storing(self._folder):
            files = sorted(self._folder.glob("*.bin"), key=lambda one: one.stat().st_mtime_ns)
            for old in files[:-JOBS]:
                old.unlink(missing_ok=True)

    def held(self, job: str) -> object:
        """A job's vectors as they are now."""
        return self.kept.get(f"{MEMORY}.{job}")

    def _path(self, job: str) -> Path:
        if not _JOB.fullmatch(job):
            raise DataError("memory: not a job's SHA-256")
        return self._folder / f"{job}.bin"
