import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import IdentityError
from fedsys.trust.identity import (
    Authority,
    certificate_fingerprint,
    days_left,
    expiry_warning,
    issue_server,
    make_authority,
    pem,
    pinned,
    read_authority,
    read_server,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "home" / "authority", "eu-credit", NOW)


# --- certificates --------------------------------------------------------------------------------


def test_an_authority_reads_back_and_is_one(authority):
    read = read_authority(authority.folder, NOW)
    assert read.certificate == authority.certificate
    basic = read.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    assert isinstance(read.key.curve, ec.SECP384R1)


def test_the_server_is_named_by_all_its_hosts_and_by_this_machine(authority, tmp_path):
    server = issue_server(
        tmp_path / "server", authority, ["FL.example.org", "10.1.2.3", "2001:db8::1"], NOW
    )
    hosts = {"fl.example.org", "10.1.2.3", "2001:db8::1", "localhost", "127.0.0.1"}
    assert set(server.hosts) == hosts
    read = read_server(tmp_path / "server", authority.certificate, NOW)
    assert read.certificate == server.certificate and set(read.hosts) == hosts
    assert days_left(server.certificate, NOW) == 397


def test_openssl_accepts_the_chain(authority, tmp_path):
    server = issue_server(tmp_path / "server", authority, ["fl.example.org"], NOW)
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname"]
    done = subprocess.run(
        [*verify, "fl.example.org", "-attime", str(int(NOW.timestamp())),
         "-CAfile", authority.certificate_path, server.certificate_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("host, good", [("localhost", True), ("elsewhere.example", False)])
def test_a_tls_handshake_holds_for_the_hosts_that_are_named(tmp_path, host, good):
    authority = make_authority(tmp_path / "authority", "eu-credit")
    server = issue_server(tmp_path / "server", authority, ["127.0.0.1"])
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(server.certificate_path, server.key_path)
    theirs = ssl.create_default_context(cafile=str(authority.certificate_path))
    left, right = socket.socketpair()

    def serve() -> None:
        try:
            ours.wrap_socket(left, server_side=True).close()
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if good:
            with theirs.wrap_socket(right, server_hostname=host) as spoken:
                assert spoken.version() == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                theirs.wrap_socket(right, server_hostname=host)
    finally:
        right.close()
        thread.join()


def test_a_renewed_certificate_has_its_own_key_and_is_the_one_that_counts(authority, tmp_path):
    first = issue_server(tmp_path / "server", authority, ["a.example"], NOW)
    second = issue_server(tmp_path / "server", authority, ["b.example"], day(390))
    assert (first.folder.name, second.folder.name) == ("0001", "0002")
    assert first.key_path.read_bytes() != second.key_path.read_bytes()
    assert "b.example" in read_server(tmp_path / "server", authority.certificate, day(400)).hosts


def test_an_expired_server_certificate_refuses_to_start_and_says_what_to_do(authority, tmp_path):
    issue_server(tmp_path / "server", authority, ["a.example"], NOW)
    with pytest.raises(IdentityError, match=r"expired on 2027-06-02: fedsys federation renew"):
        read_server(tmp_path / "server", authority.certificate, day(397))
    with pytest.raises(IdentityError, match="set the clock"):
        read_server(tmp_path / "server", authority.certificate, day(-1))


def test_a_certificate_warns_from_thirty_days_and_louder_from_seven(authority, tmp_path):
    certificate = issue_server(tmp_path / "server", authority, ["a.example"], NOW).certificate
    assert expiry_warning(certificate, day(366.9)) is None
    soon = expiry_warning(certificate, day(367))
    assert soon and "in 30 days" in soon and not soon.startswith("URGENT")
    urgent = expiry_warning(certificate, day(390))
    assert urgent and urgent.startswith("URGENT") and "in 7 days" in urgent


def test_a_server_outlives_no_authority(tmp_path):
    authority = make_authority(tmp_path / "authority", "eu-credit", NOW, days=10)
    assert (
        days_left(issue_server(tmp_path / "s", authority, ["a.example"], NOW).certificate, NOW)
        == 10
    )
    with pytest.raises(IdentityError, match="created anew"):
        read_authority(tmp_path / "authority", day(11))


def test_another_authoritys_server_is_refused(authority, tmp_path):
    other = make_authority(tmp_path / "other", "eu-credit", NOW)
    issue_server(tmp_path / "server", other, ["a.example"], NOW)
    with pytest.raises(IdentityError, match="not made by this federation's authority"):
        read_server(tmp_path / "server", authority.certificate, NOW)


def test_a_key_beside_another_certificate_is_refused(authority, tmp_path):
    one = issue_server(tmp_path / "server", authority, ["a.example"], NOW)
    other = issue_server(tmp_path / "other", authority, ["a.example"], NOW)
    one.key_path.write_bytes(other.key_path.read_bytes())
    with pytest.raises(IdentityError, match="not the key of the certificate"):
        read_server(tmp_path / "server", authority.certificate, NOW)


def test_only_the_pinned_authority_is_believed(authority, tmp_path):
    digest = certificate_fingerprint(authority.certificate)
    assert pinned(pem(authority.certificate), digest, NOW) == authority.certificate
    other = make_authority(tmp_path / "other", "eu-credit", NOW)
    with pytest.raises(IdentityError, match="not the one in the token"):
        pinned(pem(other.certificate), digest, NOW)
    server = issue_server(tmp_path / "server", authority, ["a.example"], NOW).certificate
    with pytest.raises(IdentityError, match="no authority's certificate"):
        pinned(pem(server), certificate_fingerprint(server), NOW)


@pytest.mark.parametrize("basic", [x509.BasicConstraints(ca=False, path_length=None), None])
def test_a_certificate_that_signed_itself_is_no_authority(authority, basic):
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(authority.key.public_key()).serial_number(1)
    builder = builder.not_valid_before(day(-1)).not_valid_after(day(1))
    if basic:
        builder = builder.add_extension(basic, critical=True)
    certificate = builder.sign(authority.key, hashes.SHA384())
    with pytest.raises(IdentityError, match="no authority's certificate"):
        pinned(pem(certificate), certificate_fingerprint(certificate), NOW)


def test_a_fingerprint_is_the_one_that_openssl_prints(authority):
    out = subprocess.run(
        ["openssl", "x509", "-in", authority.certificate_path, "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    digest = certificate_fingerprint(authority.certificate)
    assert out.strip().split("=")[1].replace(":", "").lower() == digest.hex()


@given(st.binary(max_size=300))
def test_any_bytes_for_a_certificate_are_an_identity_error(data):
    for text in (data, b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----\n"):
        with pytest.raises(IdentityError):
            pinned(text, bytes(32), NOW)


def test_a_server_without_a_certificate_is_told_what_makes_one(authority, tmp_path):
    with pytest.raises(IdentityError, match="federation create"):
        read_server(tmp_path / "nowhere", authority.certificate, NOW)
