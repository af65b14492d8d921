"""Plain tables as JSON of which there is exactly one form, so that bytes can be signed and hashed.

Keys are sorted by code point, nothing is between tokens, text is UTF-8 in the normal form NFC,
whole numbers fit 64 bits and other numbers are finite, in their shortest form that reads back the
same. 1 and 1.0 are two values. What `decode` accepts is what `encode` writes, byte for byte: keys
that occur twice, blanks, NaN or another spelling of a number are refused by that alone.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from fedsys.errors import DataError

BYTES = 1 << 22
"""The longest text that is read, unless told otherwise."""

DEPTH = 32
"""How deep tables and lists may lie in each other."""

_LEAST, _MOST = -(2**63), 2**63 - 1


def encode(value: Any, place: str = "value") -> bytes:
    """The one JSON text of a plain value. Raises DataError where there is none."""
    try:
        normal = _normal(value, place, DEPTH)
        text = json.dumps(
            normal, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: text with half a character (a lone surrogate)") from None


def decode(data: bytes, place: str = "value", limit: int = BYTES) -> Any:
    """The value that a text of `encode` holds. Raises DataError for any other bytes."""
    if len(data) > limit:
        raise DataError(f"{place}: {len(data)} bytes, of at most {limit}")
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError:
        raise DataError(f"{place}: not UTF-8") from None
    except RecursionError:
        raise DataError(f"{place}: nested deeper than {DEPTH}") from None
    except ValueError as error:  # of JSON, or of a number with thousands of digits
        reason = getattr(error, "msg", "a number that is too long")
        raise DataError(f"{place}: not JSON: {reason}") from None
    if encode(value, place) != data:
        raise DataError(
            f"{place}: not in canonical form (sorted keys that occur once, no blanks, NFC)"
        )
    return value


def decode_table(data: bytes, place: str = "value", limit: int = BYTES) -> dict[str, Any]:
    """Like `decode`, of a table."""
    value = decode(data, place, limit)
    if not isinstance(value, dict):
        raise DataError(f"{place}: not a table")
    return value


def _normal(value: Any, place: str, depth: int) -> Any:
    """The value with its text in NFC, made of exact built-in types only."""
    if depth < 0:
        raise DataError(f"{place}: nested deeper than {DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return unicodedata.normalize("NFC", str(value))
    if type(value) is int:
        if not _LEAST <= value <= _MOST:
            raise DataError(f"{place}: a whole number of more than 64 bits")
        return value
    if type(value) is float:
        if value - value != 0:  # infinite or NaN
            raise DataError(f"{place}: a number that is not finite")
        return value
    if isinstance(value, list | tuple):
        return [_normal(item, place, depth - 1) for item in value]
    if isinstance(value, Mapping):
        table = {_key(key, place): _normal(item, place, depth - 1) for key, item in value.items()}
        if len(table) != len(value):
            raise DataError(f"{place}: two keys that are the same in the form NFC")
        return table
    raise DataError(f"{place}: {type(value).__name__} is no plain value")


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise DataError(f"{place}: a key that is {type(key).__name__}, not text")
    return unicodedata.normalize("NFC", str(key))
