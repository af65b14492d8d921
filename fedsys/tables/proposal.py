"""A first schema.toml drafted from a bank's own data, for the coordinator to edit.

Ranges and categories are facts of one bank's rows, so that a draft names only columns and types,
unless the bank asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tomli_w

from fedsys.errors import DataError, nearest
from fedsys.tables.cells import Cells, Raw, read_cells, spelled
from fedsys.tables.schema import INTEGER, NUMBER, SPELLINGS, YES_NO, Column, key
from fedsys.tables.sources import Source

_MOST = 100  # categories of a draft; a column of more is rather a name
_SPELLINGS = frozenset(SPELLINGS)


def propose(source: Source, label: str | None = None, *, values: bool = False) -> str:
    """A draft as TOML. label: the column to predict, by default the last.

    values: write down ranges and categories as they are in the data. Else a category's list is
    left for the coordinator, and the draft cannot be read as a schema before it is filled in.
    Raises DataError when the source has no such column or no rows.
    """
    names = list(dict.fromkeys(source.columns()))
    label = names[-1] if label is None else label
    if label not in names:
        raise DataError(f"{source.name} has no column {label!r}; {nearest(label, names)}")
    guesses = {name: _Guess(name) for name in names}
    rows = 0
    for chunk in source.chunks(names):
        rows += chunk.rows
        for name, guess in guesses.items():
            guess.add(chunk.columns[name])
    if not rows:
        raise DataError(f"{source.name} has no rows to draft a schema from")
    lines = [
        "# Drafted from one bank's data. Edit what each column means, then give it to every bank.",
        "# range = [0, 100]; outside = refuse, drop or clip; missing = refuse, drop, mean, median",
        '# (with a range), { constant = 0 }, { category = "..." }. A category may have one input',
        "# for all that are not listed: other = true.",
        'extra = "ignore"  # columns that are not named here; or "refuse"',
        "minimum = 10  # fewest rows a bank may have, and behind any number that it says",
        "",
        *guesses.pop(label).label_lines(values),
    ]
    for guess in guesses.values():
        lines += ["", *guess.lines(values)]
    return "\n".join(lines) + "\n"


class _Guess:
    """What type a column's cells may still be."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._types = [YES_NO, INTEGER, NUMBER]  # the first that fits all cells
        self._low, self._high = math.inf, -math.inf
        self._words: set[str] = set()
        self._any = False
        self._gaps = False

    def add(self, raw: Raw) -> None:
        for type_ in list(self._types):
            cells = read_cells(raw, Column(_SAFE, type_), _SPELLINGS)
            if cells.wrong.any():
                self._types.remove(type_)
            elif type_ == NUMBER:
                self._measure(cells)
            self._gaps |= bool(cells.missing.any())
            self._any |= not cells.missing.all()
        if len(self._words) <= _MOST:
            self._words |= _words(raw)

    def _measure(self, cells: Cells) -> None:
        there = cells.values[~cells.missing]
        if len(there):
            self._low = min(self._low, float(there.min()))
            self._high = max(self._high, float(there.max()))

    @property
    def _type(self) -> str:
        if not self._any and self._types:
            return NUMBER
        return self._types[0] if self._types else "category"

    def lines(self, values: bool) -> list[str]:
        lines = [f"[columns.{key(self.name)}]", f'type = "{self._type}"']
        if self._type == "category":
            lines.append(self._listed("categories", values))
        elif values and self._type in (NUMBER, INTEGER) and self._low < self._high:
            lines.append(f"range = [{self._low!r}, {self._high!r}]")
        return [*lines, 'missing = "refuse"' + ("  # some are missing" if self._gaps else "")]

    def label_lines(self, values: bool) -> list[str]:
        lines = ["[label]", _toml("column", self.name)]
        if self._type == YES_NO:
            return [*lines, 'classes = "binary"']
        return [*lines, self._listed("classes", values)]

    def _listed(self, what: str, values: bool) -> str:
        if not values or len(self._words) > _MOST:
            return f"{what} = []  # list every one"
        return _toml(what, sorted(self._words))


_SAFE = "column"  # a header may hold what a schema's name may not


def _words(raw: Raw) -> set[str]:
    cells: Sequence[Any] = np.unique(raw).tolist() if isinstance(raw, np.ndarray) else list(raw)
    texts = {spelled(cell) for cell in set(map(_hashable, cells))}
    return {text for text in texts if text is not None and text not in _SPELLINGS}


def _hashable(cell: object) -> object:
    return cell if isinstance(cell, (str, int, float)) or cell is None else str(cell)


def _toml(name: str, value: object) -> str:
    return " ".join(tomli_w.dumps({name: value}).split("\n")).strip()
