"""Rows of a source by a schema: columns found by name, cells read, rules applied.

`batches` reads and judges nothing; `usable` applies the schema's rules and refuses what they
refuse. The check counts over the first, everything that computes goes through the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.errors import DataError
from fedsys.tables.cells import Cells, read_cells
from fedsys.tables.schema import CATEGORY, Column, Schema
from fedsys.tables.sources import Source

_REMEDY = "run the check for all that is wrong"


@dataclass(frozen=True)
class Batch:
    """Some rows, read. start: rows of the source before them. cells: schema column -> cells.

    lines: [rows] the line of a text file where each row begins, else None.
    """

    start: int
    rows: int
    cells: Mapping[str, Cells]
    lines: Sequence[int] | None


@dataclass(frozen=True)
class Rows:
    """Some rows to compute with, those left out not among them.

    values: column -> [rows]; float64 numbers, clipped where the schema says so, and yes/no as 1 and
    0, NaN where missing; or int64 category numbers, -1 where missing, and the number after the
    last category where it is another. labels: [rows] int64 class numbers.
    numbers: [rows] int64, which row of the source it is, from 0.
    """

    values: Mapping[str, np.ndarray]
    labels: np.ndarray
    numbers: np.ndarray


def batches(source: Source, columns: Sequence[Column], schema: Schema) -> Iterator[Batch]:
    """All rows of the source with those columns of the schema."""
    spellings = frozenset(schema.spellings)
    for chunk in source.chunks([column.name for column in columns]):
        cells = {
            column.name: read_cells(chunk.columns[column.name], column, spellings)
            for column in columns
        }
        batch = Batch(chunk.start, chunk.rows, cells, chunk.lines)
        del chunk, cells  # the raw cells, before others are read
        yield batch


def usable(source: Source, schema: Schema) -> Iterator[Rows]:
    """The rows that the schema lets in. Raises DataError at the first that it refuses."""
    check_names(source, schema)
    for batch in batches(source, schema.every, schema):
        kept = np.ones(batch.rows, dtype=bool)
        for column in schema.every:
            cells = batch.cells[column.name]
            bad = refused(cells, column)
            if bad.any():
                _raise_refused(source, column, batch, int(np.flatnonzero(bad)[0]))
            kept &= ~dropped(cells, column)
        values = {
            column.name: _settled(batch.cells[column.name], column)[kept]
            for column in schema.columns
        }
        labels = batch.cells[schema.label.column].values[kept].astype(np.int64)
        yield Rows(values, labels, batch.start + np.flatnonzero(kept))


def refused(cells: Cells, column: Column) -> np.ndarray:
    """[rows]: cells because of which the rows are refused as a whole."""
    bad = cells.wrong.copy()
    if column.missing.rule == "refuse":
        bad |= cells.missing
    if refuses_strange(column):
        bad |= cells.strange
    return bad


def dropped(cells: Cells, column: Column) -> np.ndarray:
    """[rows]: cells because of which their row is left out."""
    gone = np.zeros(len(cells.missing), dtype=bool)
    if column.missing.rule == "drop":
        gone |= cells.missing
    if column.outside == "drop":
        gone |= cells.strange
    return gone


def refuses_strange(column: Column) -> bool:
    """Whether a value outside the range, or an unknown category, refuses the rows."""
    return not column.other if column.type == CATEGORY else column.outside == "refuse"


def check_names(source: Source, schema: Schema) -> None:
    """Raises DataError unless the source has each column of the schema once."""
    names = Counter(source.columns())
    for column in schema.every:
        if names[column.name] != 1:
            what = "has no" if not names[column.name] else f"has {names[column.name]} times the"
            raise DataError(f"{source.name} {what} column {column.name!r}; {_REMEDY}")
    extra = len(names) - len(schema.every)
    if extra and schema.extra == "refuse":
        raise DataError(
            f"{source.name} has {extra} columns that are not in the schema, which refuses them; "
            f"{_REMEDY}"
        )


def _settled(cells: Cells, column: Column) -> np.ndarray:
    """Values after the rules for strange ones."""
    if column.type == CATEGORY:
        return np.where(cells.strange, len(column.categories), cells.values)
    if column.range is not None:
        return np.clip(cells.values, *column.range)
    return cells.values


def _raise_refused(source: Source, column: Column, batch: Batch, at: int) -> None:
    cells = batch.cells[column.name]
    if cells.wrong[at]:
        what = f"not of type {column.type}"
    elif cells.missing[at]:
        what = "no value"
    else:
        what = "an unknown category" if column.type == CATEGORY else "outside the range"
    line = "" if batch.lines is None else f" (line {batch.lines[at]})"
    row = f"row {batch.start + at + 1}{line}"
    raise DataError(f"{source.name}: column {column.name!r}, {row}: {what}; {_REMEDY}")
