"""The IDX reader, on files made here byte by byte."""

import gzip
import struct

import numpy as np
import pytest

from fedsys.errors import DataError
from fedsys.tasks.idx import parse_idx


def idx(array, dtype=8):
    head = struct.pack(f">HBB{array.ndim}I", 0, dtype, array.ndim, *array.shape)
    return head + array.tobytes()


ARRAY = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
PLAIN = idx(ARRAY)


@pytest.mark.parametrize("raw", [PLAIN, gzip.compress(PLAIN)], ids=["plain", "gzip"])
def test_reads_an_array(raw):
    found = parse_idx(raw, "file", 3)
    assert found.dtype == np.uint8
    assert (found == ARRAY).all()


def garbled(raw):
    """One byte of the packed data changed: gzip's checksum or code finds it."""
    return raw[:40] + bytes([raw[40] ^ 0xFF]) + raw[41:]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "'file' is truncated: its header alone has 16 bytes, found 0"),
        (PLAIN[:10], "'file' is truncated: its header alone has 16 bytes, found 10"),
        (PLAIN[:-1], "'file' is truncated: expected 76 bytes unpacked, found 75; copy or"),
        (PLAIN + b"x", "'file' is too long: expected 76 bytes unpacked, found 77"),
        (b"PK\x03\x04" + bytes(90), "'file' is no IDX file: it starts with 50 4b 03 04"),
        (b"<!doctype html>" + bytes(9), "'file' is no IDX file"),
        (idx(ARRAY, dtype=0x0D), "'file' holds IDX data type 0x0d, needs unsigned bytes (0x08)"),
        (idx(ARRAY.reshape(-1)), "'file' holds 1 dimensions, needs 3"),
        (gzip.compress(PLAIN)[:60], "'file' is truncated: expected 76 bytes unpacked, found "),
        (
            gzip.compress(PLAIN)[:-4],
            "'file' is truncated: expected 76 bytes unpacked, found 76 and gzip's end missing",
        ),
        (gzip.compress(PLAIN)[:5], "'file' is truncated: its header alone has 16 bytes, found 0"),
        (garbled(gzip.compress(PLAIN)), "'file' is damaged (gzip: "),
        (b"\x1f\x8bnonsense and more", "'file' is damaged (gzip: "),
    ],
    # Not by the bytes, into which gzip puts the time.
    ids=lambda value: "bytes" if isinstance(value, bytes) else value,
)
def test_damaged(raw, expected):
    with pytest.raises(DataError) as raised:
        parse_idx(raw, "file", 3)
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


def test_a_header_that_promises_the_world_allocates_nothing():
    huge = struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)
    with pytest.raises(DataError, match="truncated: expected 9903520314283042199192993808 bytes"):
        parse_idx(huge, "file", 3)
