"""A site's own keys: the one by which Flower knows its node, and the one with which it signs.

The node's key is EC P-384 and the signing key Ed25519; both lie in OpenSSH's format, which is what
`flower-supernode --auth-supernode-private-key`, `flwr supernode register` and its lists of trusted
entities read. They are made where they are used and never leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsys.errors import IdentityError
from fedsys.trust import fingerprints
from fedsys.trust.keyfiles import place, read_secret

NODE, SIGNING = "node", "signing"


@dataclass(frozen=True)
class SiteKeys:
    """A site's keys as they lie in its folder.

    node_path: of the private key, for Flower's command line. node_public: its public part as a PEM,
    which is how Flower's server stores it.
    """

    folder: Path
    node: ec.EllipticCurvePrivateKey
    signing: Ed25519PrivateKey

    @property
    def node_path(self) -> Path:
        return self.folder / f"{NODE}.key"

    @property
    def node_public(self) -> bytes:
        return self.node.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def public(self) -> PublicKeys:
        """What the other side gets to know."""
        return PublicKeys(
            public_line(self.node.public_key()), public_line(self.signing.public_key())
        )


@dataclass(frozen=True)
class PublicKeys:
    """The public halves, as lines in OpenSSH's format."""

    node: str
    signing: str

    @property
    def fingerprint(self) -> bytes:
        """[32] bytes, of both keys: one reading aloud vouches for both."""
        node, signing = read_node_public(self.node), read_signing_public(self.signing)
        return fingerprints.fingerprint(_raw(node) + _raw(signing))

    @property
    def spoken(self) -> str:
        """The fingerprint to read aloud."""
        return fingerprints.spoken(self.fingerprint)


def make_keys(folder: Path) -> SiteKeys:
    """Makes a site's keys in a new folder. Raises IdentityError where there are some."""
    node, signing = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
    place(
        folder,
        {
            f"{NODE}.key": private_bytes(node),
            f"{NODE}.pub": public_line(node.public_key()).encode() + b"\n",
            f"{SIGNING}.key": private_bytes(signing),
            f"{SIGNING}.pub": public_line(signing.public_key()).encode() + b"\n",
        },
    )
    return SiteKeys(folder, node, signing)


def read_keys(folder: Path) -> SiteKeys:
    """A site's keys. Raises IdentityError where they are missing, damaged or open to others."""
    node, signing = _private(folder / f"{NODE}.key"), _private(folder / f"{SIGNING}.key")
    if not isinstance(node, ec.EllipticCurvePrivateKey) or not _is_p384(node.public_key()):
        raise IdentityError(f"{folder / NODE}.key: not an EC P-384 key, which Flower's nodes need")
    if not isinstance(signing, Ed25519PrivateKey):
        raise IdentityError(f"{folder / SIGNING}.key: not an Ed25519 key")
    return SiteKeys(folder, node, signing)


def read_node_public(line: str) -> ec.EllipticCurvePublicKey:
    """A node's public key out of its line. Raises IdentityError."""
    key = _public(line)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p384(key):
        raise IdentityError("node key: not an EC P-384 public key in OpenSSH's format")
    return key


def read_signing_public(line: str) -> Ed25519PublicKey:
    """A signing key's public part out of its line. Raises IdentityError."""
    key = _public(line)
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("signing key: not an Ed25519 public key in OpenSSH's format")
    return key


def public_line(key: ec.EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    """A public key in OpenSSH's format, without a comment."""
    data = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return data.decode()


def private_bytes(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """A private key in OpenSSH's format, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _raw(key: ec.EllipticCurvePublicKey | Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _is_p384(key: ec.EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, ec.SECP384R1)


def _private(path: Path) -> object:
    data = read_secret(path)
    try:
        return serialization.load_ssh_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(
            f"{path}: not a private key in OpenSSH's format without a password: "
            "put the site's own back from its backup, or enrol anew"
        ) from None


def _public(line: str) -> object:
    try:
        if len(line) > 1000:
            raise ValueError
        return serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError("public key: not in OpenSSH's format") from None
