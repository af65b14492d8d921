"""What one bank computes of its rows so that all can be scaled alike: sums, never rows.

One pass and one message. What it reveals to the server, of the rows that the schema lets in: how
many there are; of each column of numbers, how many have a value, their mean and variance and, where
asked for, counts on the schema's grid rounded to multiples of the minimum; of each category (yes
and no are two), how many rows are in it. No least, greatest or single value.

The minimum protects rows that are few. A bank with fewer rows says nothing at all. A column with
fewer values than the minimum counts as missing altogether. A category of fewer rows is held back,
and with it, so that subtraction does not tell, the next smallest until what is held back is at
least the minimum. What it does not hide: that a few values of a column of numbers are missing (the
means could not be exact), and what a bank's rows became between two summaries, which is why a
federation asks once. Where that is too much, noise has to be added: this module adds none.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fedsys.errors import DataError, UsageError
from fedsys.tables.cells import NONE
from fedsys.tables.histogram import bin_counts, edges, said_below
from fedsys.tables.moments import Moments, moments, together
from fedsys.tables.rows import Rows, usable
from fedsys.tables.schema import YES_NO, Column, Schema
from fedsys.tables.sources import Source
from fedsys.tables.summary import Counts, Numbers, Summary, cell_count


def summarise(
    source: Source,
    schema: Schema,
    *,
    minimum: int | None = None,
    quantiles: Collection[str] | None = None,
) -> Summary:
    """One bank's summary. Raises DataError where the schema refuses the rows, or they are too few.

    minimum: the bank's own, where it is stricter than the schema's.
    quantiles: columns with a range to count on the grid; by default those whose missing values are
    filled by the median, as nothing else needs them.
    """
    least = max(schema.minimum, minimum or 1)
    asked = _asked(schema, quantiles)
    numbers = {column.name: _Numbers(column, column.name in asked) for column in schema.columns
               if column.is_number}  # fmt: skip
    choices = {
        column.name: np.zeros(cell_count(column), dtype=np.int64)
        for column in schema.every
        if not column.is_number
    }
    rows = 0
    for part in usable(source, schema):
        rows += len(part.labels)
        for tally in numbers.values():
            tally.add(part)
        for column in schema.every:
            if column.name in choices:
                choices[column.name] += _cells(part, column, schema)
    if rows < least:
        raise DataError(
            f"{source.name}: {rows} rows are too few to say anything of; the minimum is {least}"
        )
    return Summary(
        schema=schema.hash,
        clients=1,
        rows=rows,
        minimum=least,
        numbers={name: tally.said(rows, least) for name, tally in numbers.items()},
        counts={name: _held_back(cells, least) for name, cells in choices.items()},
    )


class _Numbers:
    """What one column of numbers comes to."""

    def __init__(self, column: Column, on_grid: bool) -> None:
        self._column = column
        self._moments = Moments()
        self._bins = np.zeros(len(edges(column)) - 1 if on_grid else 0, dtype=np.int64)

    def add(self, part: Rows) -> None:
        values = part.values[self._column.name]
        values = values[~np.isnan(values)]
        self._moments = together(self._moments, moments(values))
        if len(self._bins):
            self._bins += bin_counts(values, self._column)

    def said(self, rows: int, minimum: int) -> Numbers:
        found, bins = self._moments, self._bins
        if found.count < minimum:
            found, bins = Moments(), np.zeros_like(bins)
        below = said_below(bins, minimum) if len(bins) else ()
        return Numbers(found, rows - found.count, below, minimum - 1 if found.count else 0)


def _asked(schema: Schema, quantiles: Collection[str] | None) -> Collection[str]:
    if quantiles is None:
        return [column.name for column in schema.columns if column.missing.rule == "median"]
    ranged = {column.name for column in schema.columns if column.range is not None}
    for name in quantiles:
        if name not in ranged:
            raise UsageError(f"quantiles: {name!r} is no column with a range; give it one")
    return quantiles


def _cells(part: Rows, column: Column, schema: Schema) -> np.ndarray:
    """[cells] rows of this part in each cell, the missing ones last."""
    if column.name == schema.label.column:
        codes = part.labels
    else:
        values = part.values[column.name]
        if column.type == YES_NO:
            values = np.where(np.isnan(values), NONE, values)
        codes = values.astype(np.int64)
    cells = cell_count(column)
    return np.bincount(np.where(codes == NONE, cells - 1, codes), minlength=cells)


def _held_back(cells: np.ndarray, minimum: int) -> Counts:
    """The counts without those that are few, nor the one that would tell them by subtraction."""
    hide = (cells > 0) & (cells < minimum)
    while 0 < cells[hide].sum() < minimum:
        rest = np.where(hide | (cells == 0), np.iinfo(np.int64).max, cells)
        hide[int(rest.argmin())] = True
    return Counts(tuple(np.where(hide, 0, cells).tolist()), int(cells[hide].sum()))
