import os
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import IdentityError, StorageError, UsageError
from fedsys.trust import fingerprints, keyfiles
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
from fedsys.trust.keys import (
    PublicKeys,
    make_keys,
    read_keys,
    read_node_public,
    read_signing_public,
)
from fedsys.trust.names import check_address, check_host, check_name

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "home" / "authority", "eu-credit", NOW)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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


# --- keys ----------------------------------------------------------------------------------------


def test_keys_read_back_and_their_public_halves_fit(tmp_path):
    made = make_keys(tmp_path / "keys")
    read = read_keys(tmp_path / "keys")
    assert read.public == made.public and read.public.spoken == made.public.spoken
    assert read_node_public(made.public.node) == made.node.public_key()
    assert read_signing_public(made.public.signing) == made.signing.public_key()
    assert (tmp_path / "keys" / "node.pub").read_text().strip() == made.public.node


def test_one_fingerprint_stands_for_both_keys(tmp_path):
    a, b = make_keys(tmp_path / "a").public, make_keys(tmp_path / "b").public
    mixed = [PublicKeys(a.node, b.signing), PublicKeys(b.node, a.signing)]
    assert len({one.spoken for one in [a, b, *mixed]}) == 4


def test_flower_reads_the_node_key(tmp_path):
    supernode = pytest.importorskip("flwr.supernode.cli.flower_supernode")
    register = pytest.importorskip("flwr.cli.supernode.register")
    import argparse

    keys = make_keys(tmp_path / "keys")
    arguments = argparse.Namespace(
        auth_supernode_private_key=str(keys.node_path), auth_supernode_public_key=None
    )
    private, public = supernode._try_setup_client_authentication(arguments)
    assert public == keys.node.public_key()
    assert private.private_numbers() == keys.node.private_numbers()
    assert register.try_load_public_key(tmp_path / "keys" / "node.pub") == keys.node_public
    supernode._validate_public_keys_ed25519({"fpk_x": keys.public.signing})


@pytest.mark.parametrize(
    "wrong", ["", "ssh-ed25519 AAAA", "x" * 2000, "ssh-rsa AAAAB3Nza", "\ud800"]
)
def test_a_line_that_is_no_key_is_refused(wrong):
    with pytest.raises(IdentityError):
        read_node_public(wrong.encode("utf-8", "replace").decode())
    with pytest.raises(IdentityError):
        read_signing_public(wrong.encode("utf-8", "replace").decode())


@given(st.text(max_size=200))
def test_any_text_for_a_public_key_is_an_identity_error(text):
    for prefix in ("", "ssh-ed25519 ", "ecdsa-sha2-nistp384 "):
        with pytest.raises(IdentityError):
            read_signing_public(prefix + text)


def test_keys_of_other_kinds_are_refused(tmp_path):
    keys = make_keys(tmp_path / "keys")
    with pytest.raises(IdentityError, match="not an Ed25519"):
        read_signing_public(keys.public.node)
    with pytest.raises(IdentityError, match="P-384"):
        read_node_public(keys.public.signing)
    small = ec.generate_private_key(ec.SECP256R1()).public_key()
    line = small.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with pytest.raises(IdentityError, match="P-384"):
        read_node_public(line.decode())
    (tmp_path / "keys" / "node.key").write_bytes((tmp_path / "keys" / "signing.key").read_bytes())
    with pytest.raises(IdentityError, match="P-384"):
        read_keys(tmp_path / "keys")


# --- files ---------------------------------------------------------------------------------------


def test_every_file_is_for_its_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        home = tmp_path / "home"
        authority = make_authority(home / "authority", "eu-credit", NOW)
        issue_server(home / "server", authority, ["a.example"], NOW)
        make_keys(home / "keys")
    finally:
        os.umask(before)
    for path in [home, *home.rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert not list(home.rglob(".*"))


def test_keys_are_never_overwritten(tmp_path):
    keys = make_keys(tmp_path / "keys")
    before = {path: path.read_bytes() for path in keys.folder.iterdir()}
    with pytest.raises(IdentityError, match="never overwritten"):
        make_keys(tmp_path / "keys")
    assert before == {path: path.read_bytes() for path in keys.folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(IdentityError, match="never overwritten"):
        make_keys(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path, loose):
    keys = make_keys(tmp_path / "keys")
    keys.node_path.chmod(loose)
    with pytest.raises(IdentityError, match=f"mode {loose:04o}.*chmod 600 {keys.node_path}"):
        read_keys(tmp_path / "keys")
    keys.node_path.chmod(0o400)
    read_keys(tmp_path / "keys")


def test_a_key_of_another_user_is_refused(tmp_path, monkeypatch):
    keys = make_keys(tmp_path / "keys")
    owner = keys.node_path.stat().st_uid or 4711
    if os.geteuid() == 0:
        os.chown(keys.node_path, owner, -1)
    monkeypatch.setattr(keyfiles.os, "geteuid", lambda: owner + 1)
    with pytest.raises(IdentityError, match="belongs to another user"):
        read_keys(keys.folder)
    monkeypatch.setattr(keyfiles.os, "geteuid", lambda: owner)
    read_keys(keys.folder)


def test_a_folder_in_which_others_may_write_is_refused(tmp_path):
    keys = make_keys(tmp_path / "keys")
    keys.folder.chmod(0o770)
    with pytest.raises(IdentityError, match=f"chmod 700 {keys.folder}"):
        read_keys(keys.folder)


def test_a_link_counts_as_what_it_leads_to(tmp_path):
    keys = make_keys(tmp_path / "keys")
    (tmp_path / "linked").mkdir(mode=0o700)
    for path in keys.folder.iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path)
    assert read_keys(tmp_path / "linked").public == keys.public
    keys.node_path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        read_keys(tmp_path / "linked")


def test_missing_damaged_and_strange_key_files_are_one_line(tmp_path):
    with pytest.raises(IdentityError, match="No such file"):
        read_keys(tmp_path / "none")
    keys = make_keys(tmp_path / "keys")
    for data in (b"", b"\xff" * 10, keys.node_path.read_bytes()[:100], bytes(keyfiles.SIZE + 1)):
        keys.node_path.write_bytes(data)
        with pytest.raises(IdentityError) as error:
            read_keys(tmp_path / "keys")
        assert "\n" not in str(error.value)
    keys.node_path.unlink()
    keys.node_path.mkdir()
    with pytest.raises(IdentityError):
        read_keys(tmp_path / "keys")


def test_a_folder_that_cannot_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfiles.os, "rename", full)
    with pytest.raises(StorageError, match="make room"):
        make_keys(tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


# --- fingerprints and names ----------------------------------------------------------------------


def test_spoken_fingerprints_are_as_written_by_hand():
    assert fingerprints.spoken(bytes(32)) == "0000-0000-0000-0000-0000"
    assert fingerprints.spoken(b"\xff" * 32) == "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ"
    # 00000 00001 00010 00011 00100 ...: every letter once up to 19
    bits = "".join(f"{n:05b}" for n in range(20)).ljust(104, "0")
    digest = int(bits, 2).to_bytes(13, "big") + bytes(19)
    assert fingerprints.spoken(digest) == "0123-4567-89AB-CDEF-GHJK"


@given(st.binary(min_size=32, max_size=32), st.integers(0, 19))
def test_what_is_heard_is_compared_without_case_and_look_alikes(digest, place):
    said = fingerprints.spoken(digest)
    assert fingerprints.heard(said.lower().replace("-", " ").replace("0", "o"), digest)
    letters = said.replace("-", "")
    other = "2" if letters[place] != "2" else "3"
    assert not fingerprints.heard(letters[:place] + other + letters[place + 1 :], digest)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a..b", "a b", "x" * 64, "ä"])
def test_names_that_are_not_safe_everywhere_are_refused(name):
    with pytest.raises(UsageError):
        check_name(name, "bank")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "", "a_b", "-x.org", "1.2.3", "a..b", "*.x"]
)
def test_hosts_that_nobody_can_connect_to_are_refused(host):
    with pytest.raises(UsageError):
        check_host(host)


@pytest.mark.parametrize(
    "text, plain",
    [("FL.example.org:8443", "fl.example.org:8443"), ("[2001:DB8::1]:1", "[2001:db8::1]:1")],
)
def test_addresses_have_a_plain_form(text, plain):
    assert check_address(text) == plain


@given(st.text(max_size=80))
def test_any_text_for_an_address_is_one_or_a_usage_error(text):
    try:
        plain = check_address(text)
    except UsageError:
        return
    assert check_address(plain) == plain
