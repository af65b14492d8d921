"""Copies of Flower's messages and records that share their bytes.

Whoever gets a copy may empty it, change its lists or put other arrays in: nobody else sees it. The
bytes of an array are immutable, so they are not copied; 5 million parameters cost as little as ten.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, RecordDict

from fedsys.flower import compat

NUMPY = "numpy.ndarray"
"""How an array says that its bytes are those of a `.npy` file."""

HEAD = 10
"""Bytes of a `.npy` file before its header: a magic word, a version, the header's length."""


class SharedArray(Array):
    """An Array that reads its bytes without parsing their header each time.

    It is equal to the Array it was made of, and becomes one again when it is pickled.
    """

    @classmethod
    def of(cls, array: Array) -> SharedArray:
        """The same array; what else an object of it has noted stays behind."""
        made, known = cls.__new__(cls), array.__dict__
        made.__dict__.update({name: known[name] for name in _FIELDS})
        return made

    def numpy(self) -> np.ndarray:
        """A writable copy, as Array gives it."""
        data = self.data
        if self.stype != NUMPY or data[:8] != b"\x93NUMPY\x01\x00":
            return super().numpy()
        end = HEAD + int.from_bytes(data[8:HEAD], "little")
        dtype, shape, order = _header(data[:end])
        if dtype.hasobject:  # raises, as it should
            return super().numpy()
        return np.ndarray(shape, dtype, data, offset=end, order=order).copy(order=order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


SharedArray.__qualname__ = Array.__qualname__  # Flower writes it into what it hashes and sends
_FIELDS = ("dtype", "shape", "stype", "data")


@lru_cache(maxsize=1024)
def _header(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """What the head of a `.npy` file of version 1.0 says: type, shape, order."""
    file = BytesIO(data)
    np.lib.format.read_magic(file)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return dtype, shape, "F" if fortran else "C"


def copied(records: RecordDict) -> RecordDict:
    """The records in dictionaries of their own, with the same bytes."""
    result = records.copy()
    held = compat.data_of(result)
    for name, record in records.items():
        mine = held[name] = record.copy()
        inside = compat.data_of(mine)
        if isinstance(record, ArrayRecord):
            for key, array in inside.items():
                plain = type(array) is Array or type(array) is SharedArray
                inside[key] = SharedArray.of(array) if plain else compat.shallow(array)
        else:
            for key, value in inside.items():
                if isinstance(value, list):
                    inside[key] = list(value)
    return result


def copied_context(context: Context) -> Context:
    """A node's context for one message; it is thrown away if the client fails."""
    return Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config=dict(context.node_config),
        state=copied(context.state),
        run_config=dict(context.run_config),
        series_id=context.series_id,
    )
