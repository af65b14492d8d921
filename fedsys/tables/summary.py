"""What a bank says of all its rows, and what all banks' rows come to: one value, which adds up.

A `Summary` of one bank and one of all banks have the same form. It arrives at the server from
outside, so reading one trusts nothing: names, lengths, counts and bounds that any honest bank keeps
are checked against the schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from fedsys.errors import DataError, UsageError
from fedsys.tables.histogram import edges, quantile
from fedsys.tables.moments import Moments, together
from fedsys.tables.schema import Column, Schema

_MOST = 2**53  # rows; exact in float64
_SLIGHT = 1e-9  # what rounding may add to a bound


@dataclass(frozen=True)
class Numbers:
    """A column of numbers. missing: cells without one, and those held back as too few.

    below: [bins - 1] rounded counts on the grid (see histogram), or none where nobody asked.
    slack: sum of (minimum - 1) over the banks that count in it.
    """

    moments: Moments
    missing: int
    below: tuple[int, ...] = ()
    slack: int = 0


@dataclass(frozen=True)
class Counts:
    """A column of categories. cells: rows a category, then of others where let in, then missing.

    hidden: rows of cells that were held back, which count 0 there.
    """

    cells: tuple[int, ...]
    hidden: int


@dataclass(frozen=True)
class Summary:
    """schema: its hash. clients: how many are in it. rows: that they would train on.

    minimum: rows behind every number, the least of all banks'. numbers, counts: by column, the
    label among the counts.
    """

    schema: str
    clients: int
    rows: int
    minimum: int
    numbers: Mapping[str, Numbers]
    counts: Mapping[str, Counts]

    def mean(self, column: str) -> float:
        """The mean of a column of numbers."""
        return self._present(column).mean

    def deviation(self, column: str) -> float:
        """The population's standard deviation of a column of numbers."""
        return self._present(column).deviation

    def quantile(self, column: Column, part: float) -> float:
        """A quantile of a column of numbers with a range, within the bound of `histogram`."""
        found = self.numbers.get(column.name)
        if not 0 <= part <= 1:
            raise UsageError(f"quantile: the part must be between 0 and 1, not {part}")
        if found is None or not found.below:
            raise DataError(f"column {column.name!r}: no bank was asked for its quantiles")
        count = self._present(column.name).count
        return quantile(found.below, count, found.slack, column, part)

    def _present(self, column: str) -> Moments:
        found = self.numbers.get(column)
        if found is None:
            raise DataError(f"column {column!r} is no column of numbers in this summary")
        if not found.moments.count:
            raise DataError(
                f"column {column!r}: no bank has values enough; give the schema a constant for its "
                "missing values, or leave the column out"
            )
        return found.moments

    def table(self) -> dict[str, Any]:
        """The summary as JSON-like values, which `summary_of` reads back the same."""
        return {
            "schema": self.schema,
            "clients": self.clients,
            "rows": self.rows,
            "minimum": self.minimum,
            "numbers": {
                name: {
                    "count": one.moments.count,
                    "mean": one.moments.mean,
                    "rest": one.moments.rest,
                    "squares": one.moments.squares,
                    "missing": one.missing,
                    "below": list(one.below),
                    "slack": one.slack,
                }
                for name, one in self.numbers.items()
            },
            "counts": {
                name: {"cells": list(one.cells), "hidden": one.hidden}
                for name, one in self.counts.items()
            },
        }


def merge(summaries: Sequence[Summary]) -> Summary:
    """The summary of the rows of all, in the order given.

    Raises DataError where they are of different schemas or were asked for different quantiles.
    """
    if not summaries:
        raise DataError("no bank has sent a summary")
    return reduce(_both, summaries)


def _both(one: Summary, other: Summary) -> Summary:
    if one.schema != other.schema:
        raise DataError(
            f"summaries of two schemas, {one.schema[:12]} and {other.schema[:12]}; give every bank "
            "the same file"
        )
    return Summary(
        schema=one.schema,
        clients=one.clients + other.clients,
        rows=one.rows + other.rows,
        minimum=min(one.minimum, other.minimum),
        numbers={
            name: _both_numbers(name, numbers, other.numbers[name])
            for name, numbers in one.numbers.items()
        },
        counts={
            name: Counts(
                tuple(map(sum, zip(counts.cells, other.counts[name].cells, strict=True))),
                counts.hidden + other.counts[name].hidden,
            )
            for name, counts in one.counts.items()
        },
    )


def _both_numbers(name: str, one: Numbers, other: Numbers) -> Numbers:
    if len(one.below) != len(other.below):
        raise DataError(f"column {name!r}: not all banks were asked for its quantiles")
    below = tuple(map(sum, zip(one.below, other.below, strict=True)))
    found = together(one.moments, other.moments)
    return Numbers(found, one.missing + other.missing, below, one.slack + other.slack)


def summary_of(table: Any, schema: Schema, whose: str) -> Summary:
    """One bank's summary, from what it sent. Raises DataError that names the bank and the key."""
    try:
        return _summary(table, schema)
    except DataError as error:
        raise DataError(f"summary of {whose}: {error}") from None


def _summary(table: Any, schema: Schema) -> Summary:
    table = _mapping(
        table, ("schema", "clients", "rows", "minimum", "numbers", "counts"), "summary"
    )
    if table["schema"] != schema.hash:
        raise DataError("it is of another schema; give the bank this federation's file")
    rows, minimum = _count(table["rows"], "rows"), _count(table["minimum"], "minimum")
    if _count(table["clients"], "clients") != 1:
        raise DataError("clients: must be 1")
    if not schema.minimum <= minimum <= rows:
        raise DataError("minimum: must be the schema's or more, and no more than the rows")
    numbers = [column for column in schema.columns if column.is_number]
    choices = [column for column in schema.every if not column.is_number]
    said = _mapping(table["numbers"], [column.name for column in numbers], "numbers")
    counted = _mapping(table["counts"], [column.name for column in choices], "counts")
    return Summary(
        schema=schema.hash,
        clients=1,
        rows=rows,
        minimum=minimum,
        numbers={one.name: _numbers(said[one.name], one, rows, minimum) for one in numbers},
        counts={one.name: _counts(counted[one.name], one, rows, minimum) for one in choices},
    )


def _numbers(table: Any, column: Column, rows: int, minimum: int) -> Numbers:
    place = column.place
    table = _mapping(
        table, ("count", "mean", "rest", "squares", "missing", "below", "slack"), place
    )
    found = Moments(
        _count(table["count"], f"{place}.count"),
        _finite(table["mean"], f"{place}.mean"),
        _finite(table["rest"], f"{place}.rest"),
        _finite(table["squares"], f"{place}.squares"),
    )
    missing = _count(table["missing"], f"{place}.missing")
    if found.count + missing != rows or 0 < found.count < minimum:
        raise DataError(f"{place}.count: does not fit the rows and the minimum")
    if found.squares < 0 or abs(found.rest) > abs(found.mean) * _SLIGHT + _SLIGHT:
        raise DataError(f"{place}: no mean and squares of any numbers")
    if found.count and column.range is not None:
        low, high = column.range
        slight = _SLIGHT * max(abs(low), abs(high))
        spread = found.count * (high - low) ** 2 / 4  # Popoviciu 1935
        if not low - slight <= found.mean <= high + slight:
            raise DataError(f"{place}.mean: outside the range")
        if found.squares > spread * (1 + _SLIGHT):
            raise DataError(f"{place}.squares: more than any numbers within the range have")
    slack = minimum - 1 if found.count else 0
    if _count(table["slack"], f"{place}.slack") != slack:
        raise DataError(f"{place}.slack: does not fit the minimum")
    return Numbers(found, missing, _below(table["below"], column, found.count, minimum), slack)


def _below(entry: Any, column: Column, count: int, minimum: int) -> tuple[int, ...]:
    place = f"{column.place}.below"
    if entry == []:
        return ()
    if column.range is None:
        raise DataError(f"{place}: the schema gives no range")
    bins = len(edges(column)) - 1
    if not isinstance(entry, list) or len(entry) != bins - 1:
        raise DataError(f"{place}: must be {bins - 1} counts")
    below = [_count(one, place) for one in entry]
    steps = np.diff([0, *below, count])
    if (steps < 0).any() or any(one % minimum for one in below):
        raise DataError(f"{place}: must ascend up to the count, in multiples of the minimum")
    return tuple(below)


def _counts(table: Any, column: Column, rows: int, minimum: int) -> Counts:
    place = column.place
    table = _mapping(table, ("cells", "hidden"), place)
    cells, hidden = table["cells"], _count(table["hidden"], f"{place}.hidden")
    if not isinstance(cells, list) or len(cells) != cell_count(column):
        raise DataError(f"{place}.cells: must be {cell_count(column)} counts")
    found = tuple(_count(one, f"{place}.cells") for one in cells)
    if sum(found) + hidden != rows or any(0 < one < minimum for one in (*found, hidden)):
        raise DataError(f"{place}.cells: do not fit the rows and the minimum")
    return Counts(found, hidden)


def cell_count(column: Column) -> int:
    """Cells in the count of a column: categories, others where let in, and missing."""
    return (len(column.categories) or 2) + column.other + 1


def _mapping(entry: Any, keys: Sequence[str], place: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping) or set(entry) != set(keys):
        raise DataError(f"{place}: must be a table of {len(keys)} keys: {', '.join(keys)[:200]}")
    return entry


def _count(entry: Any, place: str) -> int:
    if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= _MOST:
        raise DataError(f"{place}: must be a whole number, 0 or more")
    return entry


def _finite(entry: Any, place: str) -> float:
    if isinstance(entry, bool) or not isinstance(entry, (int, float)):
        raise DataError(f"{place}: must be a number")
    if not math.isfinite(entry) or abs(entry) > 1e300:
        raise DataError(f"{place}: must be a finite number")
    return float(entry)
