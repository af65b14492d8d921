"""What all banks of a federation agree that a row is: a frozen value with a hash.

Every rule that decides which rows are let in, or what becomes of a cell, is in the hash. So is the
order of the columns: it is the order of the model's inputs, and two schemas that differ in it alone
would feed other columns to the same weights. Titles and descriptions are for people and are not in
the hash; units are, since a thousand euros and a thousand cents are different data.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedsys.errors import UsageError, nearest

NUMBER, INTEGER, CATEGORY, YES_NO = "number", "integer", "category", "yes/no"
TYPES = (NUMBER, INTEGER, CATEGORY, YES_NO)
SPELLINGS = ("", "N/A", "NA", "NULL", "NaN", "None", "nan", "null")
"""What a missing value looks like in a text file, if a schema does not say."""

MINIMUM = 10
"""Rows behind every number that leaves a bank, if a schema does not say."""

LARGEST = 1e30
"""Numbers beyond this size are no measurements; their squares would leave float32 or float64."""

_MOST_COLUMNS = 10_000
_MOST_CATEGORIES = 1_000
_MOST_INPUTS = 100_000
_LONGEST = 200  # letters in a name
_MISSING_RULES = {
    NUMBER: ("refuse", "drop", "mean", "median", "constant"),
    INTEGER: ("refuse", "drop", "mean", "median", "constant"),
    CATEGORY: ("refuse", "drop", "other", "category"),
    YES_NO: ("refuse", "drop", "constant"),
}
_OUTSIDE_RULES = ("refuse", "drop", "clip")
_EXTRA_RULES = ("ignore", "refuse")


@dataclass(frozen=True)
class Missing:
    """What becomes of a cell without a value.

    rule: 'refuse' (the rows are refused), 'drop' (the row is left out), 'mean' or 'median' (of the
    whole federation), 'constant' (value: a number, or 0 or 1 for yes/no), 'category' (value: one of
    the column's), 'other' (the column of unknown categories).
    """

    rule: str = "refuse"
    value: float | str | None = None

    @property
    def fills(self) -> bool:
        """Whether the rule puts a value in the cell's place."""
        return self.rule not in ("refuse", "drop")

    def __str__(self) -> str:
        return self.rule if self.value is None else f"{self.rule} {self.value}"


@dataclass(frozen=True)
class Column:
    """One column of inputs.

    type: 'number', 'integer', 'category' or 'yes/no'. unit, description: for people.
    range: least and greatest value of a number or integer. outside: what becomes of a value beyond
    the range: 'refuse', 'drop' (the row), 'clip' (to the range).
    categories: of a category, in the order of the model's inputs. other: whether an unknown
    category is let in, as an input of its own after them.
    """

    name: str
    type: str
    unit: str = ""
    description: str = ""
    range: tuple[float, float] | None = None
    outside: str = "refuse"
    categories: tuple[str, ...] = ()
    other: bool = False
    missing: Missing = Missing()

    def __post_init__(self) -> None:
        check_name(self.name, "columns")
        self._one_of("type", self.type, TYPES)
        self._one_of("outside", self.outside, _OUTSIDE_RULES)
        if self.range is not None:
            low, high = self.range
            self._need(self.is_number, "range", f"a {self.type} has none; delete it")
            self._need(is_number(low) and is_number(high), "range", "must be two numbers")
            self._need(
                low < high, "range", f"the low end {low:g} is not below the high end {high:g}"
            )
            object.__setattr__(self, "range", (float(low), float(high)))
        self._need(
            self.outside == "refuse" or self.range is not None,
            "outside",
            "needs a range to be outside of",
        )
        if self.type == CATEGORY:
            check_names(self.categories, f"{self.place}.categories", "category")
        else:
            self._need(not self.categories, "categories", f"a {self.type} has none; delete them")
            self._need(not self.other, "other", f"is for a category, not for a {self.type}")
        self._check_missing()

    def _check_missing(self) -> None:
        rule, value = self.missing.rule, self.missing.value
        self._one_of("missing", rule, _MISSING_RULES[self.type])
        if rule == "category":
            self._one_of("missing.category", str(value), self.categories)
        elif rule == "constant":
            self._need(is_number(value), "missing.constant", "must be a number")
            constant = float(value)  # type: ignore[arg-type]
            if self.type == YES_NO:
                self._need(constant in (0, 1), "missing.constant", "must be true or false")
            if self.range is not None:
                inside = self.range[0] <= constant <= self.range[1]
                self._need(inside, "missing.constant", f"{constant:g} is outside the range")
            object.__setattr__(self, "missing", Missing(rule, constant))
        else:
            self._need(value is None, "missing", f"{rule!r} takes no value")
        # Quantiles come from a histogram over the range: no row's own value ever leaves a bank.
        self._need(
            rule != "median" or self.range is not None,
            "missing",
            "a median needs a range; give one",
        )
        self._need(
            rule != "other" or self.other, "missing", "'other' needs other = true in this column"
        )

    @property
    def place(self) -> str:
        """Where the column stands in a schema's TOML."""
        return f"columns.{key(self.name)}"

    @property
    def is_number(self) -> bool:
        """Whether the column is a quantity, which is scaled."""
        return self.type in (NUMBER, INTEGER)

    @property
    def width(self) -> int:
        """How many inputs of the model the column becomes."""
        return len(self.categories) + self.other if self.type == CATEGORY else 1

    def _need(self, good: bool, what: str, message: str) -> None:
        if not good:
            raise UsageError(f"{self.place}.{what}: {message}")

    def _one_of(self, what: str, word: str, known: Iterable[str]) -> None:
        if word not in known:
            raise UsageError(f"{self.place}.{what}: unknown {word!r}; {nearest(word, known)}")


@dataclass(frozen=True)
class Label:
    """The column to predict: yes/no where classes is None ('binary'), else one of the classes.

    classes: in the order of their numbers 0, 1, ... missing: 'refuse' or 'drop' (the row).
    """

    column: str
    classes: tuple[str, ...] | None = None
    description: str = ""
    missing: str = "refuse"

    def __post_init__(self) -> None:
        check_name(self.column, "label.column")
        if self.classes is not None:
            check_names(self.classes, "label.classes", "class")
            if len(self.classes) < 2:
                raise UsageError("label.classes: needs two or more classes, or 'binary'")
        rules = ("refuse", "drop")
        if self.missing not in rules:
            known = nearest(self.missing, rules)
            raise UsageError(f"label.missing: unknown {self.missing!r}; {known}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return ("no", "yes") if self.classes is None else self.classes

    @cached_property
    def as_column(self) -> Column:
        """The label as a column, which is read like any other."""
        missing = Missing(self.missing)
        if self.classes is None:
            return Column(self.column, YES_NO, missing=missing)
        return Column(self.column, CATEGORY, categories=self.classes, missing=missing)


@dataclass(frozen=True)
class Schema:
    """The label, the columns of inputs in their order, and what holds for all.

    extra: columns of the data that the schema does not name: 'ignore' or 'refuse'.
    spellings: texts that mean a missing value; nothing at all always does.
    minimum: the least rows that a bank may join with, and the least behind any number that it says.
    title: for people.
    """

    label: Label
    columns: tuple[Column, ...]
    extra: str = "ignore"
    spellings: tuple[str, ...] = SPELLINGS
    minimum: int = MINIMUM
    title: str = ""

    def __post_init__(self) -> None:
        if not self.columns:
            raise UsageError("columns: the schema names no column to learn from")
        if len(self.columns) > _MOST_COLUMNS:
            raise UsageError(f"columns: {len(self.columns)} of them, at most {_MOST_COLUMNS}")
        names = [column.name for column in self.columns]
        _no_doubles(names, "columns")
        if self.label.column in names:
            raise UsageError(
                f"label.column: {self.label.column!r} is one of the columns too; a model would "
                "read what it is to predict; delete one"
            )
        if sum(column.width for column in self.columns) > _MOST_INPUTS:
            raise UsageError(f"columns: more than {_MOST_INPUTS} inputs; name fewer categories")
        if self.extra not in _EXTRA_RULES:
            raise UsageError(f"extra: unknown {self.extra!r}; {nearest(self.extra, _EXTRA_RULES)}")
        if not 1 <= self.minimum <= 10**9:
            raise UsageError(f"minimum: must be 1 or more, not {self.minimum}")
        object.__setattr__(self, "spellings", tuple(sorted({"", *self.spellings})))

    @cached_property
    def every(self) -> tuple[Column, ...]:
        """The label's column and those of the inputs."""
        return (self.label.as_column, *self.columns)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs, in their order."""
        names: list[str] = []
        for column in self.columns:
            if column.type != CATEGORY:
                names.append(column.name)
                continue
            names += [f"{column.name}={category}" for category in column.categories]
            names += [f"{column.name}=(other)"] if column.other else []
        return tuple(names)

    @property
    def objective(self) -> str:
        """The name of the objective that fits the label."""
        return "binary" if len(self.label.names) == 2 else "classes"

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of all that decides which inputs a row becomes."""
        label = self.label
        columns = [
            {
                "name": column.name,
                "type": column.type,
                "unit": column.unit,
                "range": column.range,
                "outside": column.outside,
                "categories": column.categories,
                "other": column.other,
                "missing": [column.missing.rule, column.missing.value],
            }
            for column in self.columns
        ]
        return digest(
            "fedsys schema 1",
            {
                "label": [label.column, label.classes, label.missing],
                "columns": columns,
                "extra": self.extra,
                "spellings": self.spellings,
                "minimum": self.minimum,
            },
        )


def digest(what: str, value: Any) -> str:
    """SHA-256 of a JSON-like value, with a word for what it is of."""
    text = json.dumps([what, value], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_number(value: object) -> bool:
    """Whether a value is a number that a column may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= LARGEST and not math.isnan(value)


def key(name: str) -> str:
    """A name as it is written in a dotted key of TOML."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return json.dumps(name, ensure_ascii=not name.isprintable())


def check_name(name: str, place: str) -> None:
    """Raises UsageError unless `name` can be a column or a category."""
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise UsageError(f"{place}: {name!r} is no name; use letters without spaces around them")
    if len(name) > _LONGEST:
        raise UsageError(f"{place}: a name of {len(name)} letters, at most {_LONGEST}")


def check_names(names: tuple[str, ...], place: str, what: str) -> None:
    """Raises UsageError unless there are names, none twice.

    A whole number has one spelling, in which its cell is read: '1', whatever a file calls it.
    """
    if not names:
        raise UsageError(f'{place}: list every {what}, such as ["a", "b"]')
    if len(names) > _MOST_CATEGORIES:
        raise UsageError(f"{place}: {len(names)} of them, at most {_MOST_CATEGORIES}")
    for name in names:
        check_name(name, place)
        if re.fullmatch(r"-?\d+\.0+", name):
            raise UsageError(f"{place}: write {name!r} as {name.partition('.')[0]!r}")
    _no_doubles(names, place)


def _no_doubles(names: Iterable[str], place: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{place}: {name!r} is there twice; delete one")
        seen.add(name)
