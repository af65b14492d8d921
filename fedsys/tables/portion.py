"""Some of a source's rows, as a source of their own: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.tables.cells import Raw
from fedsys.tables.sources import Chunk, Source


@dataclass(frozen=True, eq=False)
class Portion:
    """The rows of a source that are chosen, in its order; they are read when they are asked for.

    chosen: [rows of the source] bool. The source has to give its rows in the same order each time.
    """

    source: Source
    chosen: np.ndarray

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def kind(self) -> str:
        return self.source.kind

    def columns(self) -> tuple[str, ...]:
        return self.source.columns()

    def chunks(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        start = 0
        for chunk in self.source.chunks(wanted):
            rows = np.flatnonzero(self.chosen[chunk.start : chunk.start + chunk.rows])
            if not len(rows):
                continue
            columns = {name: _taken(cells, rows) for name, cells in chunk.columns.items()}
            lines = None if chunk.lines is None else [chunk.lines[row] for row in rows.tolist()]
            yield Chunk(start, len(rows), columns, lines)
            start += len(rows)


def _taken(cells: Raw, rows: np.ndarray) -> Raw:
    if isinstance(cells, np.ndarray):
        taken: np.ndarray = cells[rows]
        return taken
    return [cells[row] for row in rows.tolist()]
