"""A bank's own requests to its coordinator, over TLS to exactly the federation's server.

The token says the SHA-256 of the federation's certificate. It is fetched from the server, over a
connection that nothing secret goes over, and believed if it has that SHA-256. Everything after that
goes over connections whose certificate that authority has signed for that host, and no other does.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection
from typing import Any

from cryptography import x509

from fedsys.errors import (
    DataError,
    EngineError,
    FedsysError,
    IdentityError,
    NetworkError,
    PolicyError,
    QuorumError,
    StorageError,
    UsageError,
)
from fedsys.federation.enrolment.desk import ANSWER, AUTHORITY, LONGEST, PATH
from fedsys.trust.events import Code
from fedsys.trust.identity import pem, pinned

SECONDS = 15.0
"""That an answer may take."""
CLOCK = 120.0
"""Seconds by which clocks may differ without a word on it."""
_ERRORS: Mapping[str, type[FedsysError]] = {
    Code.USAGE: UsageError,
    Code.DATA: DataError,
    Code.NETWORK: NetworkError,
    Code.IDENTITY: IdentityError,
    Code.POLICY: PolicyError,
    Code.QUORUM: QuorumError,
    Code.STORAGE: StorageError,
}


def fetch_authority(server: str, fingerprint: bytes) -> bytes:
    """The federation's certificate, a PEM. Raises IdentityError where it is another's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    status, data = _asked(server, context, "GET", AUTHORITY)
    if status != 200:
        raise NetworkError(
            f"{server}: answers, but not as a federation's server does: check address and port"
        )
    return pem(pinned(data, fingerprint))


def post(server: str, authority: bytes, purpose: str, data: bytes) -> dict[str, Any]:
    """The coordinator's answer to a signed request. authority: its certificate, a PEM.

    Raises NetworkError where nobody answers, IdentityError where it is another server, and what the
    coordinator has against the request.
    """
    status, body = _asked(server, trusting(authority), "POST", purpose, data)
    try:
        table = json.loads(body)
        if not isinstance(table, dict) or type(table["time"]) is not int:
            raise ValueError
    except (ValueError, KeyError, RecursionError):
        raise NetworkError(
            f"{server}: answers, but not as a federation's server does (HTTP {status}): check "
            "address and port, and what stands between"
        ) from None
    if "error" in table:
        kind = _ERRORS.get(str(table.get("code")), EngineError)
        raise kind(f"coordinator: {_shown(str(table['error']))}")
    return table


def server_certificate(server: str, authority: bytes) -> x509.Certificate:
    """The server's certificate, which is of this authority and for that host.

    Raises NetworkError and IdentityError as `post` does.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        line = socket.create_connection((host, int(port)), SECONDS)
        with line, trusting(authority).wrap_socket(line, server_hostname=host) as secure:
            data = secure.getpeercert(binary_form=True)
    except OSError as error:
        raise explained(server, error) from None
    assert data is not None  # else it was not verified
    return x509.load_der_x509_certificate(data)


def clock_difference(table: Mapping[str, Any], now: float | None = None) -> float:
    """Seconds that the coordinator's clock is ahead of this one, by its answer."""
    return float(table["time"]) - (time.time() if now is None else now)


def trusting(authority: bytes) -> ssl.SSLContext:
    """Trusts servers of this authority, under their own names, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise IdentityError("authority.crt: no certificate that can be read: enrol anew") from None
    return context


def _asked(
    server: str, context: ssl.SSLContext, method: str, what: str, data: bytes | None = None
) -> tuple[int, bytes]:
    """(HTTP status, body)."""
    if data is not None and len(data) > LONGEST:
        raise UsageError(f"{what}: {len(data)} bytes are too many for a request")
    host, _, port = server.rpartition(":")
    line = HTTPSConnection(host.strip("[]"), int(port), timeout=SECONDS, context=context)
    try:
        line.request(method, PATH + what, data)
        reply = line.getresponse()
        body = reply.read(ANSWER + 1)
    except (OSError, HTTPException) as error:
        raise explained(server, error) from None
    finally:
        with suppress(OSError):
            line.close()
    if len(body) > ANSWER:
        raise NetworkError(f"{server}: answers with more than {ANSWER >> 20} MiB: not what we ask")
    return reply.status, body


def explained(server: str, error: Exception) -> FedsysError:
    """Why a server cannot be talked to, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(server, error)
    if isinstance(error, ssl.SSLError):
        return NetworkError(
            f"{server}: does not speak TLS ({error.reason}): check address and port, and what "
            "stands between"
        )
    if isinstance(error, socket.gaierror):
        return NetworkError(
            f"{server}: this name is not known here: check the network's name service, or ask the "
            "coordinator for the server's address"
        )
    reason = getattr(error, "strerror", None) or type(error).__name__
    if isinstance(error, TimeoutError):
        reason = f"no answer within {SECONDS:.0f} s"
    return NetworkError(
        f"{server}: {reason}: is the server running (fedsys federation serve), and may this "
        "machine connect to it?"
    )


def _untrusted(server: str, error: ssl.SSLCertVerificationError) -> IdentityError:
    said = error.verify_message
    if "mismatch" in said:
        remedy = "reach it under its own name, or the coordinator creates it with this --host"
        return IdentityError(f"{server}: its certificate is for another host: {remedy}")
    if "expired" in said:
        return IdentityError(
            f"{server}: its certificate has expired, or this clock is ahead: the coordinator "
            "renews it: fedsys federation renew"
        )
    if "not yet valid" in said:
        return IdentityError(f"{server}: its certificate is not valid yet: set this clock")
    return IdentityError(
        f"{server}: is not the federation's server ({said}): somebody stands between, or the "
        "federation was made anew: ask its coordinator"
    )


def _shown(text: str) -> str:
    """Another's words in one line, without a terminal's commands."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:400]
