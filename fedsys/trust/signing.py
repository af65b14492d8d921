"""Signed tables: who says what to whom, for what purpose, once.

The signature (Ed25519) is over the canonical JSON of everything but itself, after a line that no
other use of the key begins with. A body that is signed for one purpose or one audience is worth
nothing for another. `open_signed` checks key, signature, purpose and audience; `Replays` checks
that a request is of now and was not seen before. A job, which is read days later and is the same
job each time, needs only the first.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsys.errors import DataError, IdentityError
from fedsys.storage import append_line, write_atomic
from fedsys.trust import canonical, fingerprints
from fedsys.trust.locks import locked

FORMAT = 1
DOMAIN = b"fedsys signed table 1\n"
WINDOW = 300.0
"""Seconds that a request may be old, or early: clocks differ."""
_HEX = re.compile(r"[0-9a-f]{32}")
FIELDS = {"format": int, "key": str, "purpose": str, "audience": str, "time": int,
          "nonce": str, "body": dict, "signature": str}  # fmt: skip


@dataclass(frozen=True)
class Signed:
    """A table and who signed it.

    key: identifier of the signer's key. purpose: what it is for, such as 'job'. audience: the
    federation or bank that it is for. time: seconds since 1970. nonce: 128 random bits, as
    hexadecimal digits, that tell it from every other.
    """

    body: Mapping[str, Any]
    key: str
    purpose: str
    audience: str
    time: int
    nonce: str
    signature: bytes = field(repr=False)

    def data(self) -> bytes:
        """As bytes that `open_signed` reads."""
        signature = base64.b64encode(self.signature).decode()
        return canonical.encode({**self._said(), "signature": signature}, self.purpose)

    def message(self) -> bytes:
        """What the signature is over."""
        return DOMAIN + canonical.encode(self._said(), self.purpose)

    def _said(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "key": self.key,
            "purpose": self.purpose,
            "audience": self.audience,
            "time": self.time,
            "nonce": self.nonce,
            "body": self.body,
        }


def key_id(key: Ed25519PublicKey) -> str:
    """32 hexadecimal digits that stand for a public key: half of its SHA-256."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return fingerprints.fingerprint(raw)[:16].hex()


def ring(*keys: Ed25519PublicKey) -> dict[str, Ed25519PublicKey]:
    """Keys that are believed, by their identifiers."""
    return {key_id(key): key for key in keys}


def sign(
    key: Ed25519PrivateKey,
    body: Mapping[str, Any],
    *,
    purpose: str,
    audience: str,
    now: float | None = None,
) -> Signed:
    """The table, signed."""
    seconds = int(time.time() if now is None else now)
    nonce = secrets.token_hex(16)
    bare = Signed(body, key_id(key.public_key()), purpose, audience, seconds, nonce, b"")
    return Signed(body, bare.key, purpose, audience, seconds, nonce, key.sign(bare.message()))


def open_signed(
    data: bytes,
    keys: Mapping[str, Ed25519PublicKey],
    *,
    purpose: str,
    audience: str,
    limit: int = canonical.BYTES,
) -> Signed:
    """The signed table that the bytes hold.

    Raises DataError where they hold none, and IdentityError for a key that is not in `keys`, a
    changed body, another purpose or another audience.
    """
    table = canonical.decode_table(data, purpose, limit)
    if table.get("format") != FORMAT or type(table.get("format")) is not int:
        raise DataError(f"{purpose}: not of format {FORMAT}: update fedsys on the older side")
    wrong = [name for name, type_ in FIELDS.items() if type(table.get(name)) is not type_]
    wrong += [name for name in table if name not in FIELDS]
    if wrong:
        raise DataError(f"{purpose}: its {wrong[0][:40]!r} is missing, unknown or of a wrong type")
    if not (_HEX.fullmatch(table["nonce"]) and _HEX.fullmatch(table["key"])):
        raise DataError(f"{purpose}: its nonce and key are not 32 hexadecimal digits each")
    try:
        signature = base64.b64decode(table["signature"], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{purpose}: its signature is not base 64") from None
    if base64.b64encode(signature).decode() != table["signature"]:  # its last letter has spare bits
        raise DataError(f"{purpose}: its signature is not base 64 as it is written here")
    said = {name: table[name] for name in FIELDS if name not in ("format", "signature")}
    signed = Signed(**said, signature=signature)
    if signed.key not in keys:
        raise IdentityError(f"{purpose}: signed by a key that is not known here ({signed.key[:8]})")
    try:
        keys[signed.key].verify(signature, signed.message())
    except InvalidSignature:
        raise IdentityError(
            f"{purpose}: the signature does not fit: it was changed on its way"
        ) from None
    if signed.purpose != purpose:
        raise IdentityError(f"{purpose}: signed as {signed.purpose[:40]!r}, not as this")
    if signed.audience != audience:
        raise IdentityError(f"{purpose}: meant for {signed.audience[:40]!r}, not for {audience!r}")
    return signed


class Replays:
    """Lets a signed request in once, while it is fresh.

    Remembers the nonces of the time window, in a file so that a restart forgets none. Whoever
    has no known key cannot fill it: it is asked after the signature was checked.
    """

    def __init__(self, path: Path, window: float = WINDOW) -> None:
        self._path, self._window = path, window

    def admit(self, signed: Signed, now: float | None = None) -> None:
        """Raises IdentityError for a request that is old, early or was here before."""
        moment = time.time() if now is None else now
        if abs(moment - signed.time) > self._window:
            raise IdentityError(
                f"{signed.purpose}: signed {abs(moment - signed.time):.0f} s "
                f"{'ago' if signed.time < moment else 'ahead'}, of at most {self._window:.0f}: "
                "set the clock of either side (timedatectl)"
            )
        mark = f"{signed.key}{signed.nonce}"
        with locked(self._path):
            seen = self._seen(moment)
            if mark in seen:
                raise IdentityError(f"{signed.purpose}: was sent before, and counts once")
            append_line(self._path, f"{signed.time} {mark}")

    def _seen(self, moment: float) -> set[str]:
        """What still counts; the file loses the rest once that is most of it."""
        try:
            text = self._path.read_text("ascii", "replace")
        except FileNotFoundError:
            return set()
        if text and not text.endswith("\n"):  # killed while it wrote
            append_line(self._path, "")
        pairs = [line.split(" ", 1) for line in text.split("\n")]
        fresh = [
            pair for pair in pairs
            if len(pair) == 2 and pair[0].isdigit() and moment - int(pair[0]) <= self._window
        ]  # fmt: skip
        if len(pairs) > 2 * len(fresh) + 100:
            write_atomic(self._path, [" ".join(pair).encode() + b"\n" for pair in fresh])
        return {mark for _, mark in fresh}
