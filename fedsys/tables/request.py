"""What banks are asked to say of their rows, once, so that all scale alike: in words, with a hash.

It follows from the schema alone, so a bank's officer can read and approve it from the day the bank
has enrolled, and both sides know its hash without a message. What is said is worked out in
`statistics.py`; whoever changes what leaves a bank there raises `FORMAT`, and every bank is asked
anew.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedsys.tables.histogram import edges
from fedsys.tables.schema import Column, Schema, digest

FORMAT = 1
_SHOWN = 6  # categories in a line for people
_NAMES = 24  # letters of a column's name before its line is indented more
_WIDE = 92


@dataclass(frozen=True)
class StatisticsRequest:
    """A federation's request for statistics of the rows that its schema lets in."""

    federation: str
    schema: Schema

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that decides what is asked."""
        return digest(f"fedsys statistics {FORMAT}", [self.federation, self.schema.hash])

    @property
    def id(self) -> str:
        """The short form, to point with."""
        return self.digest[:12]

    def columns(self) -> dict[str, str]:
        """Column -> what is said of it, the label's first."""
        return {column.name: _asked(column) for column in self.schema.every}

    def table(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "federation": self.federation,
            "schema": self.schema.hash,
            "minimum": self.schema.minimum,
            "columns": self.columns(),
        }

    def text(self) -> str:
        """What an officer reads before approving it."""
        least = self.schema.minimum
        width = min(_NAMES, max(len("rows"), *(len(name) for name in self.columns())))
        said = {"rows": "how many the schema lets in", **self.columns()}
        lines = [line for name, what in said.items() for line in _lines(name, what, width)]
        return "\n".join(
            [
                f"Statistics {self.id}, of federation {self.federation}: asked once, before jobs",
                f"  SHA-256      {self.digest}",
                f"  columns      schema {self.schema.hash[:16]}",
                "",
                "What leaves the bank, once",
                *lines,
                "",
                "What never leaves the bank",
                "  rows; single, least and greatest values; names of files, queries and passwords",
                "",
                "What to know",
                *_wrapped(
                    f"At least {least} rows stand behind every number: a bank with fewer says "
                    "nothing, a column with fewer values says none, and a category with fewer is "
                    "held back together with another. That a few values of a column of numbers "
                    "are missing does show, and no noise is added.",
                    "  ",
                    "  ",
                ),
            ]
        )


def _asked(column: Column) -> str:
    if column.is_number:
        grid = (
            f"; counts at {len(edges(column)) - 2:,} steps of its range, for the median"
            if column.missing.rule == "median"
            else ""
        )
        return f"how many have a value, their mean and variance{grid}"
    names = column.categories or ("no", "yes")
    shown = [*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]
    shown += ["others"] if column.other else []
    return f"how many are {', '.join(shown)} or missing"


def _lines(name: str, what: str, width: int) -> list[str]:
    """One column's lines."""
    begin = f"  {name.ljust(width)}  "
    if len(name) > width:
        return [f"  {name}", *_wrapped(what, " " * (width + 4), " " * (width + 4))]
    return _wrapped(what, begin, " " * len(begin))


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDE, initial_indent=first, subsequent_indent=rest)
