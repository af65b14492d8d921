"""The arrays of a Flower app, of whatever types, as one vector that algorithms can work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from fedsys.admission import Reason, Refused
from fedsys.errors import UsageError
from fedsys.flower.rounds.messages import read_array
from fedsys.layout import Layout

FLOATS = tuple(np.dtype(kind) for kind in ("<f4", "<f2", "<f8"))


@dataclass(frozen=True)
class Arrays:
    """Names, shapes and types of an app's arrays, and their places in a vector.

    layout: of the vector; arrays that are averaged, and not optimised, come last in it.
    dtypes: name -> its own type. order: the names as the app has them.
    """

    layout: Layout
    dtypes: Mapping[str, np.dtype[Any]]
    order: tuple[str, ...]

    @classmethod
    def of(cls, record: ArrayRecord, averaged: Callable[[str], bool]) -> Arrays:
        """Raises UsageError where there is nothing to train."""
        held = {name: array.numpy() for name, array in record.items()}
        odd = [name for name, value in held.items() if value.dtype.kind not in "fiub"]
        if odd:
            raise UsageError(f"array {odd[0]!r} is of type {held[odd[0]].dtype}, not of numbers")
        trained = [n for n, value in held.items() if value.dtype.kind == "f" and not averaged(n)]
        if not trained:
            raise UsageError("initial_arrays hold no floating array to train: give the model's")
        names = (*trained, *(name for name in held if name not in trained))
        wide = any(held[name].dtype.itemsize > 4 for name in trained)
        layout = Layout(
            names,
            tuple(held[name].shape for name in names),
            len(trained),
            np.dtype(np.float64 if wide else np.float32),
        )
        return cls(layout, {name: value.dtype for name, value in held.items()}, tuple(held))

    def vector(self, record: ArrayRecord) -> np.ndarray:
        """[layout length] float64, the arrays as numbers."""
        values = [record[name].numpy().ravel().astype(np.float64) for name in self.layout.names]
        return np.concatenate(values)

    def moved(self, record: ArrayRecord, start: np.ndarray) -> dict[str, np.ndarray]:
        """How far a client's arrays are from `start` ([layout length]), by name.

        Floating arrays may be of any floating type. Refused for arrays that are not the app's.
        """
        unknown = [name for name in record if name not in self.dtypes]
        if unknown:
            raise Refused(Reason.EXTRA, str(unknown[0])[:80])
        begun = self.layout.named(start)
        shapes = dict(zip(self.layout.names, self.layout.shapes, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):  # the gate looks for what is not finite
            return {
                name: np.asarray(
                    self._read(name, array, shapes[name]) - begun[name], self.layout.dtype
                )
                for name, array in record.items()
            }

    def record(self, like: ArrayRecord, vector: np.ndarray) -> ArrayRecord:
        """The vector as arrays of the app's own types, in its order."""
        tensors = self.layout.named(vector)
        return ArrayRecord({name: Array(self._typed(name, tensors[name])) for name in self.order})

    def _read(self, name: str, array: Array, shape: tuple[int, ...]) -> np.ndarray:
        own = self.dtypes[name]
        for dtype in (own, *FLOATS) if own.kind == "f" else (own,):
            try:
                return read_array(name, array, dtype, shape).astype(np.float64)
            except Refused as refused:
                if refused.reason is not Reason.DTYPE:
                    raise
        raise Refused(Reason.DTYPE, f"{name} is not {own}")

    def _typed(self, name: str, value: np.ndarray) -> np.ndarray:
        own = self.dtypes[name]
        if own.kind == "b":
            return value > 0.5
        if own.kind in "iu":
            limits = np.iinfo(own)
            value = np.clip(np.rint(value), limits.min, limits.max)
        return np.ascontiguousarray(value.astype(own))
