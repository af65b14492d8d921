"""A federation's own authority and its server's certificate.

The authority is an EC P-384 key that signs nothing but certificates of this federation's server.
Banks pin its certificate by the fingerprint in their token, so no public authority is asked.
Folders: `authority/ca.key, ca.crt` and `server/0001/server.key, server.pem`; a renewed certificate
comes with a new key, in the folder of the next number.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsys.errors import IdentityError, UsageError
from fedsys.trust import fingerprints
from fedsys.trust.keyfiles import place, read_public, read_secret
from fedsys.trust.names import check_host, check_name

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""A year and a month: what browsers accept at most."""
EARLY = timedelta(minutes=10)
"""Certificates are valid from a little before now: clocks differ."""
WARN_DAYS, URGENT_DAYS = 30, 7
LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Authority:
    """The key and certificate that vouch for a federation's server."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_path(self) -> Path:
        return self.folder / "ca.crt"


@dataclass(frozen=True)
class ServerIdentity:
    """The server's key and certificate, as paths for Flower's command line."""

    folder: Path
    certificate: x509.Certificate

    @property
    def key_path(self) -> Path:
        return self.folder / "server.key"

    @property
    def certificate_path(self) -> Path:
        return self.folder / "server.pem"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses under which banks may reach the server."""
        return hosts_of(self.certificate)


def make_authority(
    folder: Path, federation: str, now: datetime | None = None, days: int = AUTHORITY_DAYS
) -> Authority:
    """Makes a federation's authority in a new folder. Raises IdentityError where there is one."""
    check_name(federation, "federation")
    begin = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP384R1())
    name = _named(federation, "authority")
    certificate = (
        _builder(name, name, key.public_key(), begin - EARLY, begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    place(folder, {"ca.key": _pem(key), "ca.crt": pem(certificate)})
    return Authority(folder, key, certificate)


def read_authority(folder: Path, now: datetime | None = None) -> Authority:
    """A federation's authority, which must be whole and not expired."""
    key, certificate = _key(folder / "ca.key"), _read(folder / "ca.crt")
    _check_authority(certificate, str(folder / "ca.crt"), now)
    _check_pair(key, certificate, folder / "ca.key")
    return Authority(folder, key, certificate)


def issue_server(
    folder: Path,
    authority: Authority,
    hosts: Sequence[str],
    now: datetime | None = None,
    days: int = SERVER_DAYS,
) -> ServerIdentity:
    """Makes the server's next key and certificate in a folder of the next number.

    hosts: names and IP addresses under which banks reach it; those of this machine are added.
    """
    begin = now or datetime.now(UTC)
    named = list(dict.fromkeys([*map(check_host, hosts), *LOCAL]))
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = authority.certificate
    end = min(begin + timedelta(days=days), issuer.not_valid_after_utc)
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())
    certificate = (
        _builder(_named(named[0]), issuer.subject, key.public_key(), begin - EARLY, end)
        .add_extension(x509.SubjectAlternativeName(list(map(_general, named))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(authority.key, hashes.SHA384())
    )
    last = _last(folder)
    place_in = folder / f"{int(last.name) + 1 if last else 1:04d}"
    place(place_in, {"server.key": _pem(key), "server.pem": pem(certificate)})
    return ServerIdentity(place_in, certificate)


def read_server(
    folder: Path, authority: x509.Certificate, now: datetime | None = None
) -> ServerIdentity:
    """The server's newest identity, ready to start with.

    Raises IdentityError where it is missing, expired, open to others, or not by this authority.
    """
    last = _last(folder)
    if last is None:
        raise IdentityError(f"{folder}: no server certificate: fedsys federation create makes one")
    certificate, path = _read(last / "server.pem"), last / "server.pem"
    _check_pair(_key(last / "server.key"), certificate, last / "server.key")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError(
            f"{path}: not made by this federation's authority: fedsys federation renew"
        ) from None
    _check_time(certificate, str(path), now, "fedsys federation renew")
    return ServerIdentity(last, certificate)


def pinned(data: bytes, fingerprint: bytes, now: datetime | None = None) -> x509.Certificate:
    """The authority's certificate as it came over the wire, if it is the one of the token."""
    certificate = _parsed(data, "the federation's certificate")
    if not hmac.compare_digest(certificate_fingerprint(certificate), fingerprint):
        raise IdentityError(
            "the server's authority is not the one in the token: somebody stands between, or "
            "the federation was made anew: ask its coordinator for a new token"
        )
    _check_authority(certificate, "the federation's certificate", now)
    return certificate


def certificate_fingerprint(certificate: x509.Certificate) -> bytes:
    """[32] bytes, SHA-256 of the certificate's DER, as `openssl x509 -fingerprint` prints it."""
    return fingerprints.fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> float:
    """Days until the certificate expires, below zero after."""
    left = certificate.not_valid_after_utc - (now or datetime.now(UTC))
    return left / timedelta(days=1)


def expiry_warning(certificate: x509.Certificate, now: datetime | None = None) -> str | None:
    """What to tell the coordinator from 30 days before a certificate expires, louder from 7 on."""
    left = days_left(certificate, now)
    if left > WARN_DAYS:
        return None
    when = certificate.not_valid_after_utc.date().isoformat()
    loud = "URGENT: " if left <= URGENT_DAYS else ""
    return f"{loud}the certificate expires on {when}, in {left:.0f} days: fedsys federation renew"


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses in a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


# --- checks --------------------------------------------------------------------------------------


def _check_authority(certificate: x509.Certificate, place: str, now: datetime | None) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        key = certificate.public_key()
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise IdentityError(f"{place}: no authority's certificate") from None
    if not basic.ca or not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError(f"{place}: no authority's certificate")
    _check_time(certificate, place, now, "the federation has to be created anew")


def _check_time(
    certificate: x509.Certificate, place: str, now: datetime | None, remedy: str
) -> None:
    moment = now or datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment >= end:
        raise IdentityError(f"{place}: expired on {end.date().isoformat()}: {remedy}")
    if moment < begin:
        raise IdentityError(
            f"{place}: valid only from {begin.isoformat()} on, and this machine's clock says "
            f"{moment.isoformat(timespec='seconds')}: set the clock"
        )


def _check_pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, path: Path) -> None:
    if key.public_key() != certificate.public_key():
        raise IdentityError(f"{path}: not the key of the certificate beside it")


# --- parts ---------------------------------------------------------------------------------------


def _named(common: str, unit: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common[:64])]
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedsys"), *parts])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    if end <= begin + EARLY:
        raise UsageError("a certificate has to be valid for a day at least")
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _last(folder: Path) -> Path | None:
    """The folder of the highest number."""
    if not folder.is_dir():
        return None
    found = [one for one in folder.iterdir() if one.name.isascii() and one.name.isdigit()]
    return max(found, key=lambda one: int(one.name), default=None)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    data = read_secret(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(f"{path}: not a private key as a PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: not an EC key")
    return key


def _read(path: Path) -> x509.Certificate:
    return _parsed(read_public(path), str(path))


def _parsed(data: bytes, place: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(f"{place}: not a certificate as a PEM") from None
