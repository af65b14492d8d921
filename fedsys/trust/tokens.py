"""Invitations: one printed string that lets one bank enrol once.

`fedsys1.` and base 64 of a checksum, the token's length and a table: where the server is, which
federation, the SHA-256 of its authority's certificate, the bank's name, an expiry, and a code of
128 random bits. Whoever has the token may enrol in the bank's name until it is used: it is sent
over a channel that is trusted, and the coordinator hears the bank's fingerprint before approving.

The server keeps a hash of the code. 128 random bits need no salt and no slow hash, and cannot be
guessed however often one tries; `Throttle` only keeps strangers from filling disk and log. A code
that is wrong is refused without a word on the reason. A bank that shows the right code too late
or twice is told so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedsys.errors import DataError, FedsysError, IdentityError, UsageError
from fedsys.trust import canonical
from fedsys.trust.names import check_address, check_name

PREFIX = "fedsys1."
LONGEST = 4096
CODE, PRINT = 16, 32
DAYS = 7.0
ADDRESSES = 8
_LAST_SECOND = 2**40
_HEAD = 6
"""Bytes before the table: four of a checksum, two of the length in characters."""
_ASK = "copy it whole, or ask the coordinator for a new one"


@dataclass(frozen=True)
class Token:
    """What a bank is handed.

    addresses: `host:port` of the server, best first. authority: [32] bytes, SHA-256 of the
    authority's certificate. code: [16] random bytes. expires: seconds since 1970.
    """

    addresses: tuple[str, ...]
    federation: str
    bank: str
    authority: bytes
    code: bytes = field(repr=False)
    expires: int

    def __post_init__(self) -> None:
        if not 0 < len(self.addresses) <= ADDRESSES:
            raise UsageError(f"a token has 1 to {ADDRESSES} addresses")
        if [check_address(one) for one in self.addresses] != list(self.addresses):
            raise UsageError("a token's addresses are written in their plain form")
        check_name(self.federation, "federation")
        check_name(self.bank, "bank")
        if len(self.authority) != PRINT or len(self.code) != CODE:
            raise UsageError("a token needs a fingerprint of 32 bytes and a code of 16")
        if not 0 <= self.expires < _LAST_SECOND:
            raise UsageError("a token's expiry is in seconds since 1970")

    def text(self) -> str:
        """The printed form."""
        table = canonical.encode(
            {
                "addresses": list(self.addresses),
                "federation": self.federation,
                "bank": self.bank,
                "authority": self.authority.hex(),
                "code": self.code.hex(),
                "expires": self.expires,
            }
        )
        count = len(PREFIX) + _characters(_HEAD + len(table))
        body = count.to_bytes(2, "big") + table
        encoded = base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")
        return PREFIX + encoded

    def check_time(self, now: float | None = None) -> None:
        """Raises IdentityError where the token is out of date."""
        if (time.time() if now is None else now) >= self.expires:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.expires))
            raise IdentityError(
                f"token: expired on {when}: ask the coordinator of {self.federation} for a new one"
            )


def read_token(text: str) -> Token:
    """The token that was typed or pasted. Raises IdentityError that says what is wrong with it.

    Blanks and line breaks, as mail programs put them in, do not count.
    """
    if len(text) > 2 * LONGEST:
        raise IdentityError(f"token: {len(text)} characters are too many: {_ASK}")
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        newer = re.match(r"fedsys[0-9]+\.", text)
        what = "of another version of fedsys" if newer else f"does not begin with {PREFIX}"
        raise IdentityError(f"token: {what}: {_ASK}")
    encoded = text[len(PREFIX) :]
    strange = re.search(r"[^A-Za-z0-9_-]", encoded)
    if strange:
        place = len(PREFIX) + strange.start() + 1
        raise IdentityError(f"token: no token has its character number {place}: {_ASK}")
    whole = encoded[:-1] if len(encoded) % 4 == 1 else encoded  # one more holds no byte
    data = base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))
    if len(data) < _HEAD:
        raise IdentityError(f"token: cut after {len(text)} characters: {_ASK}")
    body = data[4:]
    if not hmac.compare_digest(_checksum(body), data[:4]):
        count = int.from_bytes(body[:2], "big")
        cut = count > len(text) and count <= LONGEST
        what = f"cut after {len(text)} of {count} characters" if cut else "mistyped"
        raise IdentityError(f"token: {what}: {_ASK}")
    try:
        token = _token(canonical.decode_table(body[2:], "token", LONGEST))
    except FedsysError as error:
        raise IdentityError(f"token: damaged: {error}") from None
    if token.text() != text:
        raise IdentityError(f"token: mistyped: {_ASK}")
    return token


def _token(table: dict[str, Any]) -> Token:
    kinds = {"addresses": list, "federation": str, "bank": str, "authority": str, "code": str,
             "expires": int}  # fmt: skip
    if {name: type(item) for name, item in table.items()} != kinds:
        raise DataError("its fields are not those of a token")
    if not all(isinstance(one, str) for one in table["addresses"]):
        raise DataError("an address that is no text")
    try:
        authority, code = bytes.fromhex(table["authority"]), bytes.fromhex(table["code"])
    except ValueError:
        raise DataError("a field that is not hexadecimal") from None
    return Token(
        tuple(table["addresses"]),
        table["federation"],
        table["bank"],
        authority,
        code,
        table["expires"],
    )


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"fedsys token\n" + body).digest()[:4]


def _characters(count: int) -> int:
    """Characters of base 64 without padding."""
    return (8 * count + 5) // 6


# --- the server's side -----------------------------------------------------------------------


@dataclass(frozen=True)
class Invitation:
    """What the server keeps of a token. hash: hexadecimal SHA-256 of its code."""

    bank: str
    hash: str
    expires: int
    used: int | None = None


def invite(
    federation: str,
    bank: str,
    addresses: Sequence[str],
    authority: bytes,
    *,
    days: float = DAYS,
    now: float | None = None,
) -> tuple[Token, Invitation]:
    """A new token, which is printed and forgotten, and what the server keeps of it."""
    if not 0 < days <= 365:
        raise UsageError(f"days must be above 0 and at most 365, not {days:g}")
    code = secrets.token_bytes(CODE)
    expires = int((time.time() if now is None else now) + days * 86400)
    places = tuple(map(check_address, addresses))
    token = Token(places, federation, bank, authority, code, expires)
    return token, Invitation(bank, _hash(code), expires)


def redeem(invitation: Invitation | None, code: bytes, now: float | None = None) -> Invitation:
    """The invitation, used up; None is that there is none for the bank.

    Raises IdentityError. The caller stores the result before it answers, under a lock, so that
    a code counts once.
    """
    moment = time.time() if now is None else now
    kept = invitation.hash if invitation else _hash(b"nobody was invited")
    right = hmac.compare_digest(_hash(code), kept)
    if invitation is None or not right:
        raise IdentityError("token: not valid here: ask the coordinator for a new one")
    if invitation.used is not None:
        raise IdentityError(
            "token: was used before: if that was not you, tell the coordinator at once"
        )
    if moment >= invitation.expires:
        raise IdentityError("token: expired: ask the coordinator for a new one")
    return replace(invitation, used=int(moment))


class Throttle:
    """Lets a source (an address) try a few times a minute: a bucket that refills steadily.

    Remembers at most `sources`, and forgets those it heard longest ago. Not locked: for one
    thread or event loop.
    """

    def __init__(self, tries: int = 10, seconds: float = 60.0, sources: int = 10_000) -> None:
        self._tries, self._rate, self._sources = float(tries), tries / seconds, sources
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, source: str, now: float | None = None) -> bool:
        """Whether the source may try now; if so, the try counts."""
        moment = time.monotonic() if now is None else now
        left, then = self._buckets.pop(source, (self._tries, moment))
        left = min(self._tries, left + max(0.0, moment - then) * self._rate)
        allowed = left >= 1
        self._buckets[source] = (left - allowed, moment)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return allowed


def _hash(code: bytes) -> str:
    return hashlib.sha256(b"fedsys invitation\n" + code).hexdigest()
