"""Run folders: everything that a run leaves behind, and how to read it again.

experiment.toml     what was asked for
run.json            what it came to: sizes, versions, status
metrics.jsonl       one line a round
checkpoints/        the last two states
model.keras         the global model at the end
clients.csv         each client's rows and scores at the end
events/             the metrics for TensorBoard
report.html         all of it for a reader, in one file
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fedsys.errors import StorageError, nearest
from fedsys.experiment import Experiment
from fedsys.storage import append_line, storing, write_atomic

if TYPE_CHECKING:
    import keras
    import pandas as pd

LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A run by its folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def experiment(self) -> Experiment:
        return Experiment.read(self.folder / "experiment.toml")

    @property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says; the status of a run that was killed, which it cannot say of
        itself, is 'killed'."""
        facts: dict[str, Any] = _json(self.folder / "run.json")
        if isinstance(facts, dict) and facts.get("status") == "running" and self._left():
            return {**facts, "status": "killed"}
        return facts

    @property
    def known(self) -> dict[str, Any]:
        """The facts, or none where a run was killed before it wrote some."""
        return self.facts if (self.folder / "run.json").exists() else {}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The metrics of each round, as they were written, but for a line cut short by a kill."""
        path = self.folder / "metrics.jsonl"
        with _reading(path):
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        return [_record(path, number, line) for number, line in enumerate(lines[:-1], 1)]

    @property
    def history(self) -> pd.DataFrame:
        """The metrics as a table, one row a round."""
        import pandas as pd

        return pd.DataFrame(self._some_records).set_index("round")

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the last round."""
        return self._some_records[-1]

    @property
    def _some_records(self) -> list[dict[str, Any]]:
        records = self.records
        if not records:
            raise StorageError(
                f"{self.folder}: no round is done yet: go on with --resume {self.folder}"
            )
        return records

    @property
    def model(self) -> keras.Model:
        """The global model at the end of the run."""
        import keras

        path = self.folder / "model.keras"
        if not path.exists():
            raise StorageError(
                f"{self.folder}: has no model yet: finish it with --resume {self.folder}"
            )
        return keras.models.load_model(path, compile=False)

    def report(self) -> Path:
        """Writes `report.html` from what the folder holds, and returns its path."""
        from fedsys.report import render

        path = self.folder / "report.html"
        write_atomic(path, [render(self).encode()])
        return path

    # --- writing ---------------------------------------------------------------------------------

    def say(self, facts: Mapping[str, Any]) -> None:
        """Writes facts into `run.json`, over those of the same name."""
        text = json.dumps({**self.known, **facts}, indent=2)
        write_atomic(self.folder / "run.json", [text.encode() + b"\n"])

    def record(self, metrics: Mapping[str, Any]) -> None:
        """Adds a round's metrics. JSON has no word for NaN and infinity: they become null."""
        append_line(
            self.folder / "metrics.jsonl",
            json.dumps(
                {
                    name: None if isinstance(value, float) and not isfinite(value) else value
                    for name, value in metrics.items()
                }
            ),
        )

    def rewind(self, round: int) -> None:
        """Forgets the metrics of rounds after `round`."""
        kept = [record for record in self.records if record["round"] <= round]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomic(self.folder / "metrics.jsonl", [text.encode()])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from writing into the folder at the same time.

        The system lets go of the lock when the process ends, however it ends.
        """
        path = self.folder / LOCK
        with storing(path):
            file = open(path, "a")  # noqa: SIM115
        with file:
            if not _lock(file):
                raise StorageError(
                    f"{self.folder}: another process is running it: wait for its end"
                )
            yield

    def _left(self) -> bool:
        """Whether no process runs it, as far as can be told."""
        try:
            with open(self.folder / LOCK) as file:
                return _lock(file)
        except OSError:
            return False

    @classmethod
    def create(cls, folder: Path, experiment: Experiment) -> Run:
        """A new run in a folder that is made for it."""
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise StorageError(
                    f"{folder}: is not empty: choose another folder, or --resume {folder}"
                )
        write_atomic(folder / "experiment.toml", [experiment.toml().encode()])
        return cls(folder)

    @classmethod
    def open(cls, folder: Path | str, out: Path | str = "runs") -> Run:
        """An existing run, by its folder, or by its name or the start of it within `out`."""
        folder, out = Path(folder), Path(out)
        if (folder / "experiment.toml").exists():
            return cls(folder)
        names = [run.name for run in all_runs(out)]
        found = [name for name in names if name.startswith(str(folder))]
        if str(folder) in names:
            found = [str(folder)]
        if len(found) == 1:
            return cls(out / found[0])
        if found:
            raise StorageError(f"run {str(folder)!r} is one of {', '.join(found)}: say which")
        known = nearest(str(folder), names) if names else f"there are no runs in {out}"
        raise StorageError(f"no run {str(folder)!r}; {known}")


def all_runs(out: Path) -> list[Run]:
    """The runs in a folder of runs, oldest first."""
    found = [path.parent for path in out.glob("*/experiment.toml")]
    return [Run(folder) for folder in sorted(found, key=lambda f: f.stat().st_mtime)]


def new_folder(out: Path, name: str) -> Path:
    """Makes a folder of that name in `out`, or with the first number behind it that is not taken.

    It is made here, so that two processes that start at once get two.
    """
    folder, number = out / name, 2
    with storing(folder):
        out.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
            except FileExistsError:
                folder, number = out / f"{name}-{number}", number + 1
            else:
                return folder


def _lock(file: IO[str]) -> bool:
    """Whether the file is locked for this process now. Always, on systems without flock."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("round"), int):
        raise StorageError(f"{path}: line {number} is damaged: mend it or start the run anew")
    return record


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
