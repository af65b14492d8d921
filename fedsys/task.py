"""What a federation learns: a model, an objective and the rows of all its owners."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fedsys.errors import DataError
from fedsys.objectives import Objective, objective

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Examples:
    """Rows of data.

    inputs: [rows, ...], what the model reads, ready for it.
    labels: [rows], class numbers (integers) or targets (floats), as the objective needs.
    owners: [rows], who owns a row in nature (0, 1, ...), or None where nobody does.
    """

    inputs: np.ndarray
    labels: np.ndarray
    owners: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"{len(self.inputs)} rows of inputs but {len(self.labels)} labels: "
                "give one label a row"
            )
        if self.owners is not None and len(self.owners) != len(self.labels):
            raise DataError(
                f"{len(self.labels)} rows but {len(self.owners)} owners: give one owner a row"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """A checksum of rows and labels, by which data that was changed is noticed."""
        said = ""
        for array in (self.inputs, self.labels):
            checksum = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
            said += f"{array.dtype.str}{array.shape}{checksum:08x}"
        return f"{zlib.crc32(said.encode()):08x}"


@dataclass(frozen=True)
class Task:
    """A model, an objective and data: everything about *what* is learned, nothing about how.

    model: makes a new Keras 3 model; its random initial weights come from the experiment's seed.
    train: the rows that the clients own between them.
    test: the rows on which the server evaluates.
    client_test: rows of the clients' own, with owners, on which each client evaluates; without
        them a client evaluates on the rows that it trains on.
    objective: 'classes', 'binary', 'squared', or an `Objective` of one's own.
    classes, owners: names, for reports.
    prepared: how raw columns became `inputs` (one JSON-like value), kept with the run so that
        whoever serves the model can do the same.
    """

    name: str
    model: Callable[[], keras.Model]
    train: Examples
    test: Examples
    objective: Objective | str = "classes"
    client_test: Examples | None = None
    classes: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    prepared: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", objective(self.objective))
        for part, examples in (("train", self.train), ("test", self.test)):
            if not len(examples):
                raise DataError(f"task {self.name!r}: no {part} rows")


class TaskSpec(Protocol):
    """A task as an experiment names it: options now, data and model when it is loaded.

    A spec is a frozen dataclass of plain values (str, int, float, bool, None, tuples of str).
    """

    def load(self) -> Task:
        """Reads the data. Raises DataError when it is not there or not what it should be."""
        ...
