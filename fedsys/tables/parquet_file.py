"""Rows of a Parquet file, a batch of some columns at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsys.errors import DataError
from fedsys.tables.cells import Raw
from fedsys.tables.sources import Chunk, chunk_rows

_BUFFER = 2**20  # bytes read ahead of a column


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file. names: its top-level columns."""

    path: Path
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def kind(self) -> str:
        return "Parquet"

    def columns(self) -> tuple[str, ...]:
        return self.names

    def chunks(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        with _reading(self.path), _opened(self.path) as file:
            if not wanted:  # no column to read, but rows to count
                yield Chunk(0, file.metadata.num_rows, {})
                return
            start = 0
            batches = file.iter_batches(
                chunk_rows(len(wanted)), columns=list(wanted), use_threads=False
            )
            for batch in batches:
                names = batch.schema.names
                columns = {name: _raw(batch.column(names.index(name))) for name in wanted}
                yield Chunk(start, batch.num_rows, columns)
                start += batch.num_rows


def open_parquet(path: Path) -> ParquetFile:
    """The file, its schema read. Raises DataError when it is damaged or pyarrow is not there."""
    with _reading(path), _opened(path) as file:
        return ParquetFile(path, tuple(file.schema_arrow.names))


def _opened(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow; run pip install 'fedsys[parquet]'"
        ) from None
    return parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def _raw(column: Any) -> Raw:
    """Plain numbers as an array, NaN where null; all else as Python's values."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    elif (pa.types.is_integer(kind) and not column.null_count) or pa.types.is_floating(kind):
        array: Raw = column.to_numpy(zero_copy_only=False)
        return array
    cells: Raw = column.to_pylist()
    return cells


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, KeyError, NotImplementedError):
        # Arrow's own errors are of these kinds, and may quote what they read.
        raise DataError(
            f"{path}: is no Parquet file, or is damaged; copy or write it again"
        ) from None
