import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import IdentityError, StorageError
from fedsys.trust import keyfiles
from fedsys.trust.identity import (
    issue_server,
    make_authority,
)
from fedsys.trust.keys import (
    PublicKeys,
    make_keys,
    read_keys,
    read_node_public,
    read_signing_public,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
        assert str(error.value).isprintable()
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
