"""Rows of a CSV file, plain or packed by gzip, whose separator and encoding are found out.

Standard library only: Python's own reader tells the line of every row, keeps short and long rows
apart, and needs one chunk of memory whatever the file's size.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from fedsys.errors import DataError
from fedsys.tables.sources import Chunk, chunk_rows, first_of_each, turned

if TYPE_CHECKING:
    from _csv import Reader

_SAMPLE = 2**18  # bytes from which separator and encoding are found out
_LONGEST = 2**24  # letters in a line; more is no table
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with one header line. encoding, separator: as found out from its beginning."""

    path: Path
    encoding: str
    separator: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def kind(self) -> str:
        return f"CSV, {_SEPARATORS[self.separator]}, {self.encoding.removesuffix('-sig').upper()}"

    def columns(self) -> tuple[str, ...]:
        return self.names

    def chunks(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        positions = first_of_each(self.names, wanted)
        size = chunk_rows(len(self.names))
        width = len(self.names)
        start = 0
        with _reading(self.path), _text(self.path, self.encoding) as text:
            reader = csv.reader(_lines(text, self.path), delimiter=self.separator, strict=True)
            try:
                _skip_to_header(reader)
                while True:
                    rows, lines = _take(reader, size, width, self.path)
                    if not rows:
                        return
                    yield Chunk(start, len(rows), turned(rows, wanted, positions), lines)
                    start += len(rows)
                    del rows  # before as many are read again
            except csv.Error as error:
                _raise_bad_line(self.path, reader.line_num, error)


def open_csv(path: Path) -> CsvFile:
    """The file, its header read. Raises DataError when it is empty or no table of text."""
    with _reading(path):
        with _bytes(path) as file:
            sample = file.read(_SAMPLE)
        if not sample.strip():
            raise DataError(f"source: {str(path)!r} is empty")
        encoding = _encoding(sample)
        if encoding is None:
            raise DataError(f"source: {str(path)!r} is no text; give a CSV or Parquet file")
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        if "\0" in text:
            raise DataError(f"source: {str(path)!r} is no text; give a CSV or Parquet file")
        separator = _separator(text, whole=len(sample) < _SAMPLE)
        with _text(path, encoding) as opened:
            reader = csv.reader(_lines(opened, path), delimiter=separator, strict=True)
            try:
                header = _skip_to_header(reader)
            except csv.Error as error:
                _raise_bad_line(path, reader.line_num, error)
    names = tuple(cell.strip() or f"(column {at})" for at, cell in enumerate(header, start=1))
    return CsvFile(path, encoding, separator, names)


def _take(reader: Reader, size: int, width: int, path: Path) -> tuple[list[list[str]], list[int]]:
    """The next rows and the line where each begins; blank lines are no rows."""
    rows: list[list[str]] = []
    lines: list[int] = []
    before = reader.line_num
    for row in reader:
        if row:
            if len(row) != width:
                raise DataError(
                    f"{path}, line {before + 1}: {len(row)} values where the header names "
                    f"{width} columns; mend the line"
                )
            rows.append(row)
            lines.append(before + 1)
            if len(rows) == size:
                break
        before = reader.line_num
    return rows, lines


def _skip_to_header(reader: Iterator[list[str]]) -> list[str]:
    return next((row for row in reader if row), [])


def _lines(text: IO[str], path: Path) -> Iterator[str]:
    """The lines with their ends, none of them longer than memory allows."""
    number = 0
    while line := text.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST and not line.endswith("\n"):
            raise DataError(
                f"{path}, line {number}: longer than {_LONGEST:,} letters; is it a CSV file?"
            )
        yield line


def _encoding(sample: bytes) -> str | None:
    """UTF-8 where the bytes are that, else what most other tables in Europe are saved in."""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if sample.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8-sig")("strict").decode(sample)
    except UnicodeDecodeError:
        return None if b"\0" in sample else "cp1252"
    return "utf-8-sig"


def _separator(text: str, whole: bool) -> str:
    """The separator that cuts the first lines into the most, equally many, cells."""
    lines = text.splitlines(keepends=True)
    lines = lines[:50] if whole or len(lines) < 2 else lines[:-1][:50]
    best, most = ",", 1
    for separator in _SEPARATORS:
        try:
            rows = [row for row in islice(csv.reader(lines, delimiter=separator), 50) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > most and sum(len(row) == width for row in rows) * 10 >= 9 * len(rows):
            best, most = separator, width
    if most == 1 and lines:  # ragged rows: the header alone decides
        best = max(_SEPARATORS, key=lines[0].count)
    return best


@contextmanager
def _bytes(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked  # type: ignore[misc]


@contextmanager
def _text(path: Path, encoding: str) -> Iterator[IO[str]]:
    with _bytes(path) as file, io.TextIOWrapper(file, encoding, newline="") as text:
        yield text


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong amid a file into one line."""
    try:
        yield
    except UnicodeError:
        raise DataError(
            f"{path}: its beginning is text of one encoding and a later part is not; save it in "
            "UTF-8"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path}: the packed file is damaged or cut short; copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _raise_bad_line(path: Path, line: int, error: csv.Error) -> NoReturn:
    # The reader's own words hold no cells, but say little: all of these are about quotes.
    about = "a value is too long" if "limit" in str(error) else "its quotes do not pair"
    raise DataError(f"{path}, line {line}: {about}; mend the line") from None
