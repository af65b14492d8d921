"""Raw cells, as a file or a database gives them, read as a column's type.

Nothing here says what a cell holds: a cell that cannot be read is marked, not shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np

from fedsys.tables.schema import INTEGER, LARGEST, YES_NO, Column

Raw = Sequence[object] | np.ndarray
"""Cells of one column: texts (CSV), any values or None (SQL), or an array (Parquet)."""

NONE = -1
"""In place of a category's number: no value, or none of the categories."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(-?\d+)\.0+", re.ASCII)
_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "t", "1", "1.0"), 1),
    **dict.fromkeys(("no", "n", "false", "f", "0", "0.0"), 0),
}
_WRONG = math.inf  # no number that a column may hold


@dataclass(frozen=True)
class Cells:
    """Cells of one column after reading, each array [rows].

    values: float64 numbers, NaN where there is none; or int64 category numbers, NONE where there is
    none; yes is 1 and no is 0. missing: no value. wrong: not of the column's type.
    strange: outside the range, or none of the categories. The three exclude each other.
    """

    values: np.ndarray
    missing: np.ndarray
    wrong: np.ndarray
    strange: np.ndarray


def read_cells(raw: Raw, column: Column, spellings: frozenset[str]) -> Cells:
    """The cells as the column's type. spellings: texts that mean a missing value."""
    if column.is_number:
        return _numbers(raw, column, spellings)
    return _choices(raw, column, spellings)


def _numbers(raw: Raw, column: Column, spellings: frozenset[str]) -> Cells:
    values = _floats(raw, spellings)
    missing = np.isnan(values)
    wrong = np.abs(values) > LARGEST
    if column.type == INTEGER:
        wrong |= ~missing & (values != np.round(values))
    values[wrong] = np.nan
    strange = np.zeros(len(values), dtype=bool)
    if column.range is not None:
        strange = (values < column.range[0]) | (values > column.range[1])
    return Cells(values, missing, wrong, strange)


def _floats(raw: Raw, spellings: frozenset[str]) -> np.ndarray:
    """[rows] float64: NaN where missing, infinite where no number."""
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "fiub":
        return raw.astype(np.float64)
    quick = _quick_floats(raw, spellings)
    if quick is not None:
        return quick
    return np.fromiter((_number(cell, spellings) for cell in raw), np.float64, len(raw))


def _quick_floats(raw: Raw, spellings: frozenset[str]) -> np.ndarray | None:
    """The same for texts that are plain numbers or plainly missing, several times as fast."""
    try:
        joined = "".join(raw)  # type: ignore[arg-type]
    except TypeError:  # not all of them texts
        return None
    if "_" in joined or not joined.isascii():  # float() reads 1_000 and other scripts' digits
        return None
    if not _numeric(spellings):
        try:
            values = np.fromiter(map(float, raw), np.float64, len(raw))
            if np.isfinite(values).all():
                return values
        except ValueError:  # some are missing, or no numbers
            pass
    there = np.fromiter((cell not in spellings for cell in raw), bool, len(raw))
    values = np.full(len(raw), np.nan)
    try:
        values[there] = [float(cell) for cell in raw if cell not in spellings]  # type: ignore[arg-type]
    except ValueError:
        return None
    return values if np.isfinite(values[there]).all() else None  # words such as inf and nan


@lru_cache(maxsize=16)
def _numeric(spellings: frozenset[str]) -> bool:
    """Whether a number, such as -999, means a missing value."""
    return any(_NUMBER.fullmatch(spelling) for spelling in spellings)


def _number(cell: object, spellings: frozenset[str]) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text in spellings:
            return math.nan
        return float(text) if _NUMBER.fullmatch(text) else _WRONG
    if isinstance(cell, (bool, int, float, Decimal, np.number, np.bool_)):
        try:
            return float(cell)
        except (OverflowError, ValueError):  # an integer of 400 digits, a signalling NaN
            return _WRONG
    return _WRONG


def _choices(raw: Raw, column: Column, spellings: frozenset[str]) -> Cells:
    """Categories, and yes/no as two of them."""
    wanted: Mapping[str, int]
    if column.type == YES_NO:
        wanted = _WORDS
    else:
        wanted = {category: number for number, category in enumerate(column.categories)}
    lower = column.type == YES_NO
    if isinstance(raw, np.ndarray):
        codes = _array_codes(raw, wanted, spellings, lower)
    else:
        codes = _codes(raw, wanted, spellings, lower)
    missing, unknown = codes == _GONE, codes == _UNKNOWN
    nothing = np.zeros(len(codes), dtype=bool)
    codes = np.where(codes < 0, NONE, codes)
    if column.type == YES_NO:
        values = codes.astype(np.float64)
        values[codes == NONE] = np.nan
        return Cells(values, missing, unknown, nothing)
    return Cells(codes, missing, nothing, unknown)


_GONE, _UNKNOWN = -2, -3


def _codes(
    raw: Sequence[object], wanted: Mapping[str, int], spellings: frozenset[str], lower: bool
) -> np.ndarray:
    known: dict[object, int] = {}  # cells seen, so that each spelling is read once
    codes = np.empty(len(raw), dtype=np.int64)
    for row, cell in enumerate(raw):
        plain = isinstance(cell, str)
        code = known.get(cell) if plain else None
        if code is None:
            code = _code(cell, wanted, spellings, lower)
            if plain and len(known) < 10_000:
                known[cell] = code
        codes[row] = code
    return codes


def _array_codes(
    raw: np.ndarray, wanted: Mapping[str, int], spellings: frozenset[str], lower: bool
) -> np.ndarray:
    found, where = np.unique(raw, return_inverse=True)
    codes = _codes(found.tolist(), wanted, spellings, lower)
    return codes[where]


def _code(cell: object, wanted: Mapping[str, int], spellings: frozenset[str], lower: bool) -> int:
    text = spelled(cell)
    if text is None:
        return _GONE
    if lower:
        folded = text.lower()
        if folded in wanted:
            return wanted[folded]
    if text in wanted:  # before the spellings: a category may be called NA
        return wanted[text]
    if text in spellings:
        return _GONE
    whole = _WHOLE.fullmatch(text)  # 3.0, as tables with gaps write the category 3
    return wanted.get(whole[1], _UNKNOWN) if whole else _UNKNOWN


def spelled(cell: object) -> str | None:
    """A cell as the text that a category is compared with; None where there is no value."""
    if cell is None:
        return None
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, (bool, np.bool_)):
        return "true" if cell else "false"
    if isinstance(cell, (float, Decimal, np.floating)):
        number = float(cell)
        if math.isnan(number):
            return None
        return str(int(number)) if number.is_integer() else repr(number)
    return str(cell)
