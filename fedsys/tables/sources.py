"""Where a bank's rows are: a CSV or Parquet file, or a database, read in chunks.

A source knows its column names and gives its rows from the beginning as often as it is asked, a
bounded number at a time, so that data may be larger than memory. Nothing that a source says, in a
message or as its name, holds a password or a cell of the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedsys.errors import DataError
from fedsys.tables.cells import Raw

CELLS = 2**17
"""Cells in a chunk, about: some ten megabytes while they are texts."""

ROWS = 2**14
"""Rows in a chunk at most."""

_PARQUET = (b"PAR1", (".parquet", ".pq"))


@dataclass(frozen=True)
class Chunk:
    """Some rows, one after another.

    start: rows of the source before them. rows: how many. columns: name -> raw cells [rows].
    lines: [rows] the line of a text file where each row begins, else None.
    """

    start: int
    rows: int
    columns: Mapping[str, Raw]
    lines: Sequence[int] | None = None


class Source(Protocol):
    """Rows with named columns.

    name: for people, without a password. kind: 'CSV, commas, UTF-8' and the like.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    def columns(self) -> tuple[str, ...]:
        """The names of the columns as they are, in order, perhaps some of them twice."""
        ...

    def chunks(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        """All rows from the first, with the wanted columns; of equal names the first one."""
        ...


def open_source(source: str | Path, query: str | Path | None = None) -> Source:
    """The source that a text names. Raises DataError, in one line, when it cannot be read.

    source: the path of a CSV (also packed by gzip) or Parquet file, an SQLAlchemy address such as
    'postgresql+psycopg://user@host/database', or 'env:NAME' where an environment variable holds
    such an address, so that its password stands in no list of commands.
    query: for a database, one SELECT or the path of a file that holds it. ORDER BY keeps the rows,
    and so their numbers, in one order.
    """
    text = str(source)
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        text = os.environ.get(name, "")
        if not text:
            raise DataError(f"source: the environment variable {name!r} is not set; export it")
    if text.lower().startswith(("http://", "https://", "s3://", "ftp://")):
        scheme = text.partition(":")[0]
        raise DataError(
            f"source: {scheme} addresses are not read; copy the file to this machine and name it"
        )
    if "://" in text:
        from fedsys.tables.sql import open_database

        return open_database(text, query)
    if "@" in text and not os.path.lexists(text):  # mistyped, perhaps with its password
        raise DataError(
            "source: this is neither a file nor an address of a database; write one like "
            "postgresql+psycopg://user@host:5432/name"
        )
    if query is not None:
        raise DataError(
            f"source: a query is for a database, and {text!r} is a file; leave the query out"
        )
    return _open_file(text)


def _open_file(text: str) -> Source:
    path = Path(text).expanduser()
    remedy = "give a CSV or Parquet file, or a database such as postgresql+psycopg://user@host/name"
    try:
        if path.is_dir():
            raise DataError(f"source: {text!r} is a folder, not a file; {remedy}")
        with open(path, "rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise DataError(f"source: {text!r} does not exist{where}; {remedy}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        raise DataError(f"source: cannot read {text!r}: {reason}; {remedy}") from None
    if head == _PARQUET[0] or path.suffix.lower() in _PARQUET[1]:
        from fedsys.tables.parquet_file import open_parquet

        return open_parquet(path)
    from fedsys.tables.csv_file import open_csv

    return open_csv(path)


def chunk_rows(columns: int) -> int:
    """Rows in a chunk of so many columns; not too many of few columns, which may be long texts."""
    return min(ROWS, max(1, CELLS // max(1, columns)))


def turned(
    rows: Sequence[Sequence[object]], wanted: Sequence[str], positions: Sequence[int]
) -> dict[str, Raw]:
    """Columns of the rows: the wanted ones, which stand at the positions."""
    columns = list(zip(*rows, strict=True))
    return {name: columns[at] for name, at in zip(wanted, positions, strict=True)}


def first_of_each(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The positions of the wanted columns; of equal names the first."""
    return [names.index(name) for name in wanted]
