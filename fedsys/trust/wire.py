"""Arrays as bytes: names, types, shapes and raw little-endian numbers; no pickle and no .npy.

    magic 'FSW1'  count u32  header length u32
    count times:  name length u16, name, type u8, dimensions u8, dimensions times u64
    zeros to a multiple of 8; then each array, zeros to a multiple of 8 after it

All numbers are little-endian. `decode` checks the whole header against limits and against the
length of the bytes before it makes an array; arrays are then views of the bytes.
"""

from __future__ import annotations

import math
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsys.errors import DataError
from fedsys.layout import Layout

MAGIC = b"FSW1"
TYPES = ("<f4", "<f8", "<f2", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
"""What may travel; the place in the list is the type's number on the wire."""
ALIGN = 8

_FIRST = struct.Struct("<4sII")
_CODES = {np.dtype(text): code for code, text in enumerate(TYPES)}
_DTYPES = tuple(np.dtype(text) for text in TYPES)


@dataclass(frozen=True)
class Limits:
    """What a side lets the other send. total, tensor: bytes; name: bytes of UTF-8."""

    total: int = 1 << 30
    tensor: int = 1 << 30
    tensors: int = 4096
    name: int = 200
    dimensions: int = 8


def limits_for(layout: Layout, vectors: int = 1) -> Limits:
    """What the arrays of a model's layout take, so many times over, and a few small ones beside."""
    sizes = [size * layout.dtype.itemsize for size in layout.sizes]
    count = vectors * len(sizes) + 16
    described = count * (4 + Limits.name + 8 * Limits.dimensions)
    numbers = vectors * sum(map(_aligned, sizes))
    return Limits(
        total=_FIRST.size + described + numbers + 4096,
        tensor=max(*sizes, 1024),
        tensors=count,
    )


@dataclass(frozen=True)
class _Place:
    """Where one array lies in the bytes."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int
    size: int


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as bytes that `decode` reads."""
    return b"".join(parts(arrays))


def parts(arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """The arrays as pieces that joined are `encode`'s bytes; big ones are views, not copies."""
    header = bytearray()
    numbers: list[np.ndarray] = []
    for name, array in arrays.items():
        little = np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("<"), copy=False)
        code = _CODES.get(little.dtype)
        if code is None:
            raise DataError(f"{name[:80]}: arrays of {little.dtype} do not travel")
        label = _label(name)
        header += struct.pack("<H", len(label)) + label
        header += struct.pack(f"<BB{little.ndim}Q", code, little.ndim, *little.shape)
        numbers.append(little)
    first = _FIRST.pack(MAGIC, len(numbers), len(header))
    pieces: list[bytes | memoryview] = [first + header + _padding(len(first) + len(header))]
    for little in numbers:
        if little.size:
            flat = np.ascontiguousarray(little).reshape(-1)
            pieces.append(flat.view(np.uint8).data)
            pieces.append(_padding(little.nbytes))
    return [piece for piece in pieces if len(piece)]


def decode(
    data: bytes | bytearray | memoryview, limits: Limits | None = None, place: str = "arrays"
) -> dict[str, np.ndarray]:
    """The arrays in the bytes, as views that cannot be written to. Raises DataError.

    Nothing is allocated but the arrays' descriptions: the bytes themselves hold the numbers.
    """
    view = memoryview(data).cast("B").toreadonly()
    found = _places(view, limits or Limits(), place)
    return {
        one.name: np.frombuffer(view, one.dtype, math.prod(one.shape), one.start).reshape(one.shape)
        for one in found
    }


def _places(view: memoryview, limits: Limits, place: str) -> list[_Place]:
    """Where the arrays lie, with everything checked."""
    if len(view) > limits.total:
        raise DataError(f"{place}: {len(view)} bytes, of at most {limits.total}")
    if len(view) < _FIRST.size:
        raise DataError(f"{place}: cut off within its first {_FIRST.size} bytes")
    magic, count, length = _FIRST.unpack_from(view)
    if magic != MAGIC:
        raise DataError(f"{place}: does not begin with {MAGIC.decode()}")
    if count > limits.tensors:
        raise DataError(f"{place}: {count} arrays, of at most {limits.tensors}")
    end = _FIRST.size + length
    most = count * (4 + limits.name + 8 * limits.dimensions)
    if length > most or end > len(view):
        raise DataError(f"{place}: a header of {length} bytes for {count} arrays does not fit")
    found: list[_Place] = []
    at, start = _FIRST.size, _aligned(end)
    for _ in range(count):
        one, at = _described(view[:end], at, start, limits, place)
        found.append(one)
        start = _aligned(start + one.size)
        if start > len(view):
            raise DataError(f"{place}: {one.name} goes beyond the end")
    if at != end:
        raise DataError(f"{place}: its header is longer than what it describes")
    if start != len(view):
        raise DataError(f"{place}: {len(view) - start} bytes after the last array")
    if len({one.name for one in found}) != count:
        raise DataError(f"{place}: two arrays of one name")
    _check_padding(view, end, found, place)
    return found


def _described(
    header: memoryview, at: int, start: int, limits: Limits, place: str
) -> tuple[_Place, int]:
    """The description at `at` of the array whose numbers begin at `start`, and where it ends."""
    try:
        (size,) = struct.unpack_from("<H", header, at)
        if size > limits.name:
            raise DataError(f"{place}: a name of {size} bytes, of at most {limits.name}")
        raw = bytes(header[at + 2 : at + 2 + size])
        at += 2 + size
        code, dimensions = struct.unpack_from("<BB", header, at)
        if code >= len(TYPES):
            raise DataError(f"{place}: an array of unknown type {code}")
        if dimensions > limits.dimensions:
            raise DataError(f"{place}: {dimensions} dimensions, of at most {limits.dimensions}")
        shape = struct.unpack_from(f"<{dimensions}Q", header, at + 2)
    except struct.error:
        raise DataError(f"{place}: its header ends within an array's description") from None
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise DataError(f"{place}: a name that is not UTF-8") from None
    if _label(name) != raw:
        raise DataError(f"{place}: a name that is not in the form NFC")
    # A length of zero hides any other from the product, so each is held against the limit.
    if max(shape, default=0) > limits.tensor:
        raise DataError(f"{place}: {name} has a length of {max(shape)}")
    count = math.prod(shape) * _DTYPES[code].itemsize
    if count > limits.tensor:
        raise DataError(f"{place}: {name} has {count} bytes, of at most {limits.tensor}")
    return _Place(name, _DTYPES[code], shape, start, count), at + 2 + 8 * dimensions


def _check_padding(view: memoryview, end: int, found: list[_Place], place: str) -> None:
    for stop in (end, *(one.start + one.size for one in found)):
        if any(view[stop : _aligned(stop)]):
            raise DataError(f"{place}: something between its arrays")


def _label(name: str) -> bytes:
    """A name's bytes. Raises DataError for a name that a log or a terminal should not see."""
    if not name or not name.isprintable():
        raise DataError(f"array {name[:80]!r}: a name has printable characters only")
    label = unicodedata.normalize("NFC", name).encode()
    if len(label) > 0xFFFF:
        raise DataError(f"array {name[:80]!r}...: a name this long does not travel")
    return label


def _aligned(place: int) -> int:
    return place + -place % ALIGN


def _padding(size: int) -> bytes:
    return bytes(-size % ALIGN)
