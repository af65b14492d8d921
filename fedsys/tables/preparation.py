"""The same inputs everywhere: how a row becomes what the model reads, as a value with a hash.

Derived once, at the server, from the schema and all banks' statistics, and sent to all. Numbers are
clipped to their range where the schema says so and become (value - mean) / scale; categories become
one input each, in the schema's order; yes and no are 1 and 0. Missing values are filled as the
schema says. The hash travels with every update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedsys.errors import DataError
from fedsys.tables.cells import NONE
from fedsys.tables.rows import Rows, usable
from fedsys.tables.schema import CATEGORY, LARGEST, YES_NO, Column, Schema, digest, is_number
from fedsys.tables.sources import Source
from fedsys.tables.summary import Summary
from fedsys.task import Examples

_STEADY = 1e-12  # a deviation this small beside the mean is rounding: the column does not vary


@dataclass(frozen=True)
class Scaling:
    """One column of numbers: (value - mean) / scale, and `fill` in place of a missing value."""

    mean: float
    scale: float
    fill: float


@dataclass(frozen=True)
class Preparation:
    """schema: the hash of the schema it belongs to. scalings: column of numbers -> its scaling."""

    schema: str
    scalings: Mapping[str, Scaling]

    @classmethod
    def derive(cls, schema: Schema, summary: Summary) -> Preparation:
        """From all banks' statistics. Raises DataError where no bank has values of a column."""
        _same(schema, summary.schema, "the summary")
        scalings = {
            column.name: _scaling(column, summary) for column in schema.columns if column.is_number
        }
        return cls(schema.hash, scalings)

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the schema's hash and every number."""
        return digest("fedsys preparation 1", self.table())

    def table(self) -> dict[str, Any]:
        """The preparation as JSON-like values, which `of` reads back the same."""
        scalings = {
            name: {"mean": one.mean, "scale": one.scale, "fill": one.fill}
            for name, one in self.scalings.items()
        }
        return {"schema": self.schema, "scalings": scalings}

    @classmethod
    def of(cls, table: Any, schema: Schema) -> Preparation:
        """The preparation in what a server sent. Raises DataError for all that is not as it was."""
        if not isinstance(table, Mapping) or set(table) != {"schema", "scalings"}:
            raise DataError("preparation: must be a table of schema and scalings")
        _same(schema, table["schema"], "the preparation")
        wanted = [column.name for column in schema.columns if column.is_number]
        entries = table["scalings"]
        if not isinstance(entries, Mapping) or set(entries) != set(wanted):
            raise DataError("preparation.scalings: must have the schema's columns of numbers")
        return cls(schema.hash, {name: _read_scaling(entries[name], name) for name in wanted})


@dataclass(frozen=True)
class Prepared:
    """inputs: [rows, inputs] float32. labels: [rows] int64 class numbers.

    rows: [rows] int64, the number of each in the source, from 0; those left out are not there.
    """

    inputs: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    @property
    def examples(self) -> Examples:
        """What a trainer takes."""
        return Examples(self.inputs, self.labels)


def prepare(source: Source, schema: Schema, preparation: Preparation) -> Prepared:
    """The rows that the schema lets in, as inputs and labels, in the source's order.

    Reads in chunks: memory is that of the result and of one chunk. Raises DataError where the
    schema refuses a row or leaves none.
    """
    _same(schema, preparation.schema, "the preparation")
    parts = [
        (_inputs(part, schema, preparation), part.labels, part.numbers)
        for part in usable(source, schema)
    ]
    count = sum(len(labels) for _, labels, _ in parts)
    if not count:
        raise DataError(f"{source.name}: no rows are left to train on")
    prepared = Prepared(
        np.empty((count, len(schema.inputs)), dtype=np.float32),
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.int64),
    )
    parts.reverse()
    start = 0
    while parts:  # each part is let go once it is copied, so that nothing is there twice
        inputs, labels, numbers = parts.pop()
        span = slice(start, start + len(labels))
        prepared.inputs[span], prepared.labels[span], prepared.rows[span] = inputs, labels, numbers
        start += len(labels)
    if not np.isfinite(prepared.inputs).all():
        raise DataError(f"{source.name}: scaled values are beyond float32; give columns a range")
    return prepared


def _inputs(part: Rows, schema: Schema, preparation: Preparation) -> np.ndarray:
    """[rows, inputs] float32."""
    inputs = np.zeros((len(part.labels), len(schema.inputs)), dtype=np.float32)
    at = 0
    for column in schema.columns:
        values = part.values[column.name]
        if column.type == CATEGORY:
            codes = np.where(values == NONE, _fill_category(column), values)
            inputs[np.arange(len(codes)), at + codes] = 1
        elif column.type == YES_NO:
            inputs[:, at] = np.where(np.isnan(values), column.missing.value or 0, values)
        else:
            scaling = preparation.scalings[column.name]
            filled = np.where(np.isnan(values), scaling.fill, values)
            with np.errstate(over="ignore"):  # told once, of the whole
                inputs[:, at] = (filled - scaling.mean) / scaling.scale
        at += column.width
    return inputs


def _fill_category(column: Column) -> int:
    """The number of the category that a missing value counts as."""
    if column.missing.rule == "category":
        return column.categories.index(str(column.missing.value))
    return len(column.categories)  # 'other'; the other rules leave no missing value


def _scaling(column: Column, summary: Summary) -> Scaling:
    rule, value = column.missing.rule, column.missing.value
    if rule not in ("mean", "median") and not summary.numbers[column.name].moments.count:
        # Nobody has values, so nobody knows what one means: the input is 0, even should some come.
        return Scaling(float(value or 0), LARGEST, float(value or 0))
    mean, deviation = summary.mean(column.name), summary.deviation(column.name)
    scale = deviation if deviation > _STEADY * max(1.0, abs(mean)) else 1.0
    if rule == "median":
        fill = summary.quantile(column, 0.5)
    elif rule == "constant":
        fill = float(value)  # type: ignore[arg-type]
    else:
        fill = mean
    return Scaling(mean, scale, fill)


def _read_scaling(entry: Any, name: str) -> Scaling:
    keys = ("mean", "scale", "fill")
    if not isinstance(entry, Mapping) or set(entry) != set(keys):
        raise DataError(f"preparation.scalings.{name}: must have mean, scale and fill")
    if not all(is_number(entry[key]) for key in keys) or entry["scale"] <= 0:
        raise DataError(f"preparation.scalings.{name}: must be finite numbers, the scale above 0")
    return Scaling(*(float(entry[key]) for key in keys))


def _same(schema: Schema, other: object, what: str) -> None:
    if other != schema.hash:
        raise DataError(
            f"{what} belongs to another schema than {schema.hash[:12]}; take both from one "
            "federation"
        )
