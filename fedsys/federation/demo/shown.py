"""What a demonstration shows: whose rows, of which columns, and what is learned from them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsys.errors import DataError
from fedsys.federation.jobs.request import Request
from fedsys.storage import storing
from fedsys.tables import Schema


@dataclass(frozen=True)
class Table:
    """Rows. columns: name -> [rows] float64, NaN where missing; the label is 0 or 1.

    source: for people.
    """

    columns: Mapping[str, np.ndarray]
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Shared:
    """A table and whose its rows are. owners: name -> numbers of the rows that it trains on.

    test: numbers of the rows on which nobody trains, of all owners or of all their kinds.
    """

    table: Table
    owners: Mapping[str, np.ndarray]
    test: np.ndarray


@dataclass(frozen=True)
class Demo:
    """A federation to be shown.

    name: of the command and its job. owner, person: what people call one who has rows, and one of
    whom a row tells. schema: the columns. request: model, training and rounds. tested: on whom the
    models are compared, for people. places: where the data is looked for, from the working folder.
    read: from a path, or None where there is no data, to the rows. Raises DataError.
    """

    name: str
    owner: str
    person: str
    schema: Schema
    request: Request
    tested: str
    places: tuple[str, ...]
    read: Callable[[str | None], Shared]

    @property
    def at_hand(self) -> str | None:
        """Where the data is, if it is in one of the places."""
        return next((place for place in self.places if Path(place).exists()), None)

    def shared(self, data: str | None) -> Shared:
        """The rows of a path. Raises DataError, also where an owner would have too few."""
        found = self.read(data)
        for name, rows in found.owners.items():
            if len(rows) < self.schema.minimum:
                raise DataError(
                    f"{found.table.source}: {len(rows)} {self.person}s for {name} are too few, "
                    f"{self.schema.minimum} are needed: give more with --data"
                )
        return found


def write_rows(table: Table, rows: np.ndarray, path: Path) -> None:
    """Writes some rows, by number, as a CSV file. A missing value is an empty cell."""
    values = np.column_stack([column[rows] for column in table.columns.values()])
    with storing(path), open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows([_cell(value) for value in row] for row in values)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
