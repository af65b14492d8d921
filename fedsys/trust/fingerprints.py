"""Fingerprints: what two people compare on the telephone before one trusts the other's key.

A fingerprint is a SHA-256. Its spoken form is the first 100 bits in Crockford's base 32 (no I, L,
O or U), in five groups of four: `7K3D-Q0XM-...`. Whoever wants another key that reads the same has
to try about 2**100 keys.
"""

from __future__ import annotations

import hashlib
import hmac

SPOKEN_BITS = 100
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ALIKE = str.maketrans("OIL", "011")


def fingerprint(data: bytes) -> bytes:
    """[32] bytes, SHA-256 of a certificate's DER or a public key's raw bytes."""
    return hashlib.sha256(data).digest()


def spoken(digest: bytes) -> str:
    """The form to read aloud."""
    number = int.from_bytes(digest, "big") >> (8 * len(digest) - SPOKEN_BITS)
    letters = [_ALPHABET[number >> shift & 31] for shift in range(SPOKEN_BITS - 5, -1, -5)]
    return "-".join("".join(letters[at : at + 4]) for at in range(0, len(letters), 4))


def heard(text: str, digest: bytes) -> bool:
    """Whether what somebody typed is the spoken form; blanks, case and look-alikes do not count."""
    typed = "".join(text.upper().split()).replace("-", "").translate(_ALIKE)
    said = spoken(digest).replace("-", "")
    return hmac.compare_digest(typed.encode("utf-8", "replace"), said.encode())
