"""What a run folder holds: read as far as it can be, however the run ended.

Everything else in a report is a function of these values, so that the same folder always gives
the same text.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.errors import FedsysError

if TYPE_CHECKING:
    from fedsys.runs import Run

Records = Sequence[Mapping[str, Any]]
"""The metrics of each round, as `Run.records` gives them."""
_BEGUN = "it is written when a run begins, which this one did not, or it was removed"


@dataclass(frozen=True, eq=False)
class Scores:
    """The clients at the end of a run.

    clients, rows: [clients]; metrics: name -> [clients], NaN for a client without rows.
    owners: their names, or nothing.
    """

    clients: np.ndarray
    rows: np.ndarray
    metrics: Mapping[str, np.ndarray]
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Contents:
    """What could be read of a run folder.

    facts: `run.json`. records: `metrics.jsonl`. table: `experiment.toml`, whose text is `toml`.
    scores: `clients.csv`. partition: `partition.svg`. missing: what could not be read, and why.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    records: Records = ()
    table: Mapping[str, Any] = field(default_factory=dict)
    toml: str = ""
    scores: Scores | None = None
    partition: str = ""
    missing: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """How it ended, as far as is known."""
        return str(self.facts.get("status", "unknown"))

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return int(self.records[-1]["round"]) if self.records else 0


def read(run: Run) -> Contents:
    """What the run's folder holds. What is missing or damaged is told, and never raised."""
    found = outline(run)
    missing = list(found.missing)
    ended = (
        "the run is done, so it was removed"
        if found.status == "done"
        else "it is written at the end of a run, which this one has not reached"
    )
    return replace(
        found,
        scores=_read_scores(run.folder / "clients.csv", missing, ended),
        partition=_read_text(run.folder / "partition.svg", missing, _BEGUN),
        missing=tuple(missing),
    )


def outline(run: Run) -> Contents:
    """Like `read`, but of the experiment, the facts and the metrics alone, for a list of runs."""
    missing: list[str] = []
    facts: Any = {}
    try:
        facts = run.facts
    except FedsysError as error:
        there = (run.folder / "run.json").exists()
        missing.append(_reason(run.folder, error) if there else f"run.json: is missing: {_BEGUN}")
    if not isinstance(facts, dict):
        missing.append("run.json: is not a table")
        facts = {}
    toml = _read_text(run.folder / "experiment.toml", missing, "there is none")
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        missing.append(f"experiment.toml: not TOML: {error}")
    records = _read_records(run.folder / "metrics.jsonl", missing)
    return Contents(run.name, facts, records, table, toml, missing=tuple(missing))


def _reason(folder: Path, error: Exception) -> str:
    """A message about a file in the folder, without the folder, in one line."""
    return " ".join(str(error).replace(f"{folder}/", "").split())


def _read_text(path: Path, missing: list[str], why: str) -> str:
    """The text of a file; nothing where it cannot be read, and then `missing` has a line more."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing.append(f"{path.name}: is missing: {why}")
        return ""
    except (OSError, ValueError) as error:
        missing.append(f"{path.name}: cannot be read: {error}")
        return ""
    if not text:
        missing.append(f"{path.name}: is empty")
    return text


def _read_records(path: Path, missing: list[str]) -> Records:
    """The rounds up to the first damaged line; the last line may have been cut by a kill."""
    why = "not one round was finished"
    records: list[Mapping[str, Any]] = []
    text = _read_text(path, missing, why)
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("round"), int):
            missing.append(f"metrics.jsonl: line {number} is damaged: the rounds end before it")
            break
        records.append(record)
    if text and "\n" not in text:
        missing.append(f"metrics.jsonl: holds no whole line: {why}")
    return records


def _read_scores(path: Path, missing: list[str], why: str) -> Scores | None:
    text = _read_text(path, missing, why)
    if not text:
        return None
    try:
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        names = [name for name in lines[0] if name not in ("client", "rows", "owner")]
        return Scores(
            np.array([int(line["client"]) for line in lines]),
            np.array([int(line["rows"]) for line in lines]),
            {name: np.array([float(line[name]) for line in lines]) for name in names},
            tuple(str(line["owner"]) for line in lines) if "owner" in lines[0] else (),
        )
    except (IndexError, KeyError, TypeError, ValueError, csv.Error) as error:
        missing.append(f"{path.name}: is damaged: {error}")
        return None


# --- metrics by round ----------------------------------------------------------------------------


def series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The rounds that have a number under `key`, and those numbers."""
    held = [
        (record["round"], float(record[key]))
        for record in records
        if isinstance(record.get(key), int | float)
    ]
    rounds, values = zip(*held, strict=True) if held else ((), ())
    return np.array(rounds, np.int64), np.array(values, np.float64)


def metric_names(records: Records, prefix: str = "test_") -> list[str]:
    """The metrics that were taken: accuracy, AUC, those of one's own, and the loss last."""
    keys = {key for record in records for key in record if key.startswith(prefix)}
    names = {key.removeprefix(prefix) for key in keys}
    names -= {name for name in names if name.endswith(("_spread", "_worst"))}
    first = {"accuracy": 0, "auc": 1, "loss": 3}
    return sorted(names, key=lambda name: (first.get(name, 2), name))


def falls(name: str) -> bool:
    """Whether less of the metric is better."""
    return name == "loss"


def best(records: Records, key: str) -> tuple[int, float] | None:
    """The first round with the best value of a metric, such as 'test_loss', and the value."""
    rounds, values = series(records, key)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    rounds, values = rounds[finite], values[finite]
    place = int(values.argmin() if falls(key.removeprefix("test_")) else values.argmax())
    return int(rounds[place]), float(values[place])


def final(records: Records, key: str) -> float | None:
    """The last value of a metric, or None where it was never taken."""
    values = series(records, key)[1]
    return float(values[-1]) if len(values) else None
