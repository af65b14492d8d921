"""The IDX format of MNIST and Fashion-MNIST: a few big-endian numbers, then unsigned bytes.

Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file format section.
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

from fedsys.errors import DataError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_REMEDY = "copy or download it again"


def parse_idx(raw: bytes, source: str, dimensions: int) -> np.ndarray:
    """The array in an IDX file, uint8, with that number of dimensions.

    raw: the file's bytes, packed with gzip or not. source: its name, for messages.
    Raises DataError when it is damaged, is no IDX file or holds another kind of array.
    """
    # Browsers and tools unpack files and keep the name, so the first bytes decide.
    body, complete = _unpacked(raw, source) if raw[:2] == _GZIP else (raw, True)
    head = 4 + 4 * dimensions
    if len(body) < head:
        raise DataError(
            f"{source!r} is truncated: its header alone has {head} bytes, found {len(body)}; "
            f"{_REMEDY}"
        )
    zero, dtype, found = struct.unpack(">HBB", body[:4])
    if zero != 0:
        raise DataError(
            f"{source!r} is no IDX file: it starts with {body[:4].hex(' ')}, not 00 00; {_REMEDY}"
        )
    if dtype != _UNSIGNED_BYTE:
        raise DataError(
            f"{source!r} holds IDX data type 0x{dtype:02x}, needs unsigned bytes (0x08); "
            "is it the right file?"
        )
    if found != dimensions:
        raise DataError(
            f"{source!r} holds {found} dimensions, needs {dimensions}; "
            "were images and labels mixed up?"
        )
    shape = struct.unpack(f">{dimensions}I", body[4:head])
    expected = head + math.prod(shape)
    if len(body) > expected:
        raise DataError(
            f"{source!r} is too long: expected {expected} bytes unpacked, found {len(body)}; "
            f"{_REMEDY}"
        )
    if len(body) < expected or not complete:
        end = "" if complete else " and gzip's end missing"
        raise DataError(
            f"{source!r} is truncated: expected {expected} bytes unpacked, found {len(body)}{end}; "
            f"{_REMEDY}"
        )
    return np.frombuffer(body, np.uint8, offset=head).reshape(shape)


def _unpacked(raw: bytes, source: str) -> tuple[bytes, bool]:
    """What gzip packed, as far as it is there, and whether it ends where gzip says."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: with gzip's header and checksum
    try:
        return unpack.decompress(raw), unpack.eof
    except zlib.error as error:
        raise DataError(f"{source!r} is damaged (gzip: {error}); {_REMEDY}") from None
