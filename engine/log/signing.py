"""The key that signs what is said of the log, and the public keys that it was ever signed with.

``keys/checkpoint.key`` is the private key (PEM, mode 0600); ``keys/checkpoint.pub`` holds the
public keys, one PEM block each, the newest last. A key is known by its id: the first 16 hexadecimal
digits of the SHA-256 of the 32 bytes that the public key is. Invariant: a public key is in the list
before anything is signed with it, and never leaves it. Ed25519 is RFC 8032.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

PRIVATE = "checkpoint.key"
PUBLIC = "checkpoint.pub"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)

type PublicKeys = Mapping[str, Ed25519PublicKey]


class KeysUnreadable(Exception):
    """A key file is not what it should be."""


class SigningKeys:
    """The keys of one directory. Several processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def public_file(self) -> Path:
        """Where the public keys are: what an auditor needs."""
        return self._directory / PUBLIC

    def current(self) -> tuple[str, Ed25519PrivateKey]:
        """Return the key to sign with, and its id; the first time it is made.

        Raises:
            KeysUnreadable: the file is damaged.
        """
        path = self._directory / PRIVATE
        if not path.exists():
            with self._locked():
                if not path.exists():
                    self._make()
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeysUnreadable(f"{path}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeysUnreadable(f"{path} is no Ed25519 key")
        return key_id(key.public_key()), key

    def rotate(self) -> str:
        """Make a new key for all that is signed from now on; return its id. The old one is gone."""
        with self._locked():
            return self._make()

    def public(self) -> PublicKeys:
        """Return all public keys there ever were, by id; none if nothing was signed yet.

        Raises:
            KeysUnreadable: the file is damaged.
        """
        return read_public(self.public_pem())

    def public_pem(self) -> bytes:
        """Return the public keys as they lie in the file."""
        try:
            return self.public_file.read_bytes()
        except FileNotFoundError:
            return b""

    def _make(self) -> str:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # The public one first: what is signed can be checked, whenever we are killed.
        _write(self.public_file, self.public_pem() + public, 0o644)
        _write(self._directory / PRIVATE, private, 0o600)
        return key_id(key.public_key())

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def read_public(pem: bytes) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of a file of PEM blocks, by id.

    Raises:
        KeysUnreadable: there is something else in it.
    """
    if _PEM.sub(b"", pem).strip():
        raise KeysUnreadable("not a file of public keys (PEM)")
    keys: dict[str, Ed25519PublicKey] = {}
    for block in _PEM.findall(pem):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeysUnreadable(f"a public key cannot be read: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeysUnreadable("a public key is not of Ed25519")
        keys[key_id(key)] = key
    return keys


def is_signed(key: Ed25519PublicKey, signature: bytes, said: bytes) -> bool:
    """Return whether the signature is the key's over these bytes."""
    try:
        key.verify(signature, said)
    except InvalidSignature:
        return False
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
