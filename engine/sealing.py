"""Seal secrets so that the log may hold them, and destroying one key erases them.

Each value has a data key of its own; that key is wrapped by the owner's. Nothing here knows where
owners' keys are kept: see ``engine.bus.keys``.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.sealed import Sealed

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D section 8.2.2: random, 96 bits
CONTEXT = b"cumulog.sealed.v1"


class SealBroken(Exception):
    """The value cannot be opened: another key sealed it, or it was altered."""


def seal(key: bytes, key_id: str, plaintext: bytes) -> Sealed:
    """Encrypt ``plaintext`` under a fresh data key, wrapped by the 32-byte ``key`` of its owner."""
    data_key = AESGCM.generate_key(bit_length=8 * KEY_BYTES)
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(
        key_id=key_id,
        wrapped_key=_text(_wrap(key, key_id, data_key)),
        nonce=_text(nonce),
        ciphertext=_text(AESGCM(data_key).encrypt(nonce, plaintext, CONTEXT)),
    )


def unseal(key: bytes, sealed: Sealed) -> bytes:
    """Return the plaintext; ``key`` is the one named by ``sealed.key_id``.

    Raises:
        SealBroken: the key is another's, or the value was altered.
    """
    try:
        data_key = _unwrap(key, sealed)
        nonce = base64.b64decode(sealed.nonce, validate=True)
        ciphertext = base64.b64decode(sealed.ciphertext, validate=True)
        return AESGCM(data_key).decrypt(nonce, ciphertext, CONTEXT)
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise SealBroken(f"cannot open a value sealed by key {sealed.key_id}") from error


def rewrap(key: bytes, sealed: Sealed, other_key: bytes, other_key_id: str) -> Sealed:
    """Return the same value openable by ``other_key``, without its plaintext being seen.

    Raises:
        SealBroken: as ``unseal``.
    """
    try:
        data_key = _unwrap(key, sealed)
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise SealBroken(f"cannot open a value sealed by key {sealed.key_id}") from error
    return Sealed(
        key_id=other_key_id,
        wrapped_key=_text(_wrap(other_key, other_key_id, data_key)),
        nonce=sealed.nonce,
        ciphertext=sealed.ciphertext,
    )


def _wrap(key: bytes, key_id: str, data_key: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data_key, CONTEXT + key_id.encode())


def _unwrap(key: bytes, sealed: Sealed) -> bytes:
    wrapped = base64.b64decode(sealed.wrapped_key, validate=True)
    nonce, rest = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    return AESGCM(key).decrypt(nonce, rest, CONTEXT + sealed.key_id.encode())


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
