"""Tables from CSV or Parquet: columns of numbers or of words, or one line that says which cell."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsys.errors import DataError, nearest
from fedsys.tasks import files

_PARQUET = b"PAR1"  # every Parquet file starts and ends with it


@dataclass(frozen=True)
class Frame:
    """A pandas table, where it is from, and whether its rows are lines of a text file."""

    table: Any
    source: str
    has_lines: bool

    def __len__(self) -> int:
        return len(self.table)

    @property
    def columns(self) -> list[str]:
        """The names, in the order of the file."""
        return [str(name) for name in self.table.columns]

    def row(self, position: int) -> str:
        """How people find a row: the first row of data is row 1, on line 2 of a CSV file."""
        number = int(self.table.index[position]) + 1
        return f"row {number} (line {number + 1})" if self.has_lines else f"row {number}"

    def rows(self, missing: np.ndarray) -> str:
        """The first few rows where `missing` [rows] is true, and how many there are in all."""
        where = np.flatnonzero(missing)
        some = ", ".join(self.row(position) for position in where[:3])
        return some if len(where) <= 3 else f"{some}, ... ({len(where)} rows)"


def read_frame(source: str, remedy: str, place: str = "task.data") -> Frame:
    """Reads a CSV (comma separated, UTF-8, one header line) or Parquet file, or such an address.

    Raises DataError when it is not there, empty or damaged, or when pyarrow is not installed.
    """
    content = files.read(source, place, remedy)
    is_parquet = content[:4] == _PARQUET or source.lower().endswith((".parquet", ".pq"))
    table = _parquet(content, source, place) if is_parquet else _csv(content, source, place)
    table.columns = [str(name) for name in table.columns]
    if not len(table):
        raise DataError(f"{place}: {source!r} has a header but no rows")
    return Frame(table, source, has_lines=not is_parquet)


def check_columns(frame: Frame, wanted: Iterable[str], place: str) -> None:
    """Raises DataError unless the table has all the columns."""
    for name in wanted:
        if name not in frame.columns:
            # One column alone is nearly always a file with another separator.
            hint = "; is it separated by commas?" if len(frame.columns) == 1 else ""
            raise DataError(
                f"{place}: {frame.source!r} has no column {name!r}; "
                f"{nearest(name, frame.columns)}{hint}"
            )


def column(frame: Frame, name: str) -> np.ndarray:
    """One column: [rows] float64, NaN where missing, or [rows] text, None where missing.

    A column is text when most of its cells are. Raises DataError for a cell of text among numbers
    and for infinite numbers.
    """
    import pandas as pd

    cells = frame.table[name]
    missing = cells.isna().to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        numbers = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        text = cells.astype(str).str.strip().to_numpy(dtype=object)
        text[missing] = None
        numbers = np.asarray(pd.to_numeric(pd.Series(text), errors="coerce"), dtype=np.float64)
        words = ~missing & np.isnan(numbers)
        if 2 * words.sum() > (~missing).sum():
            return text
        if words.any():
            first = int(np.flatnonzero(words)[0])
            raise DataError(
                f"column {name!r}, {frame.row(first)}: {text[first]!r} is not a number; mend it, "
                f"or leave it empty where the value is unknown ({frame.source})"
            )
    if np.isinf(numbers).any():
        first = int(np.flatnonzero(np.isinf(numbers))[0])
        raise DataError(
            f"column {name!r}, {frame.row(first)}: {numbers[first]} is not finite; mend it, "
            f"or leave it empty where the value is unknown ({frame.source})"
        )
    return numbers


def is_missing(values: np.ndarray) -> np.ndarray:
    """[rows] of bool: the cells of a `column` without a value."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values)


def full_column(frame: Frame, name: str, place: str) -> np.ndarray:
    """A column that may miss no value, as labels and owners may not."""
    values = column(frame, name)
    missing = is_missing(values)
    if missing.any():
        raise DataError(
            f"{place}: column {name!r} has no value in {frame.rows(missing)}; fill it in or "
            f"delete such rows ({frame.source})"
        )
    # Text without gaps as NumPy text, which sorts and compares as a whole.
    return values.astype(str) if values.dtype == object else values


def number_columns(frame: Frame, names: Sequence[str], place: str) -> np.ndarray:
    """[rows, names] float64 without gaps. Raises DataError for text and missing values."""
    check_columns(frame, names, place)
    values = [full_column(frame, name, place) for name in names]
    for name, numbers in zip(names, values, strict=True):
        if numbers.dtype.kind != "f":
            raise DataError(
                f"{place}: column {name!r} holds text such as {str(numbers[0])!r}, needs numbers "
                f"({frame.source})"
            )
    return np.stack(values, axis=1)


def _csv(content: bytes, source: str, place: str) -> Any:
    import pandas as pd

    if not content.strip():
        raise DataError(f"{place}: {source!r} is empty")
    try:
        # Blank lines are read, so that row numbers match line numbers, and then dropped.
        table = pd.read_csv(
            io.BytesIO(content), encoding="utf-8-sig", low_memory=False, skip_blank_lines=False
        )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: {source!r} is not text in UTF-8 (byte {error.start}); save it as a CSV "
            "file in UTF-8"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{place}: {source!r} is no CSV table: {reason}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(
            f"{place}: {source!r} has more values in a line than names in its header; "
            "name every column"
        )
    return table.dropna(how="all")


def _parquet(content: bytes, source: str, place: str) -> Any:
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(content))
    except ImportError:
        raise DataError(
            f"{place}: reading {source!r} needs pyarrow; run pip install 'fedsys[parquet]'"
        ) from None
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{place}: {source!r} is no Parquet file: {reason}") from None
    return table.reset_index(drop=True)
