"""Secrets as they lie in the log: ciphertext, and the id of the key that opens it."""

import msgspec


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A value encrypted at the edge.

    ``key_id`` names the owner's key in the ``KEYS`` bucket, outside the log. The value is encrypted
    with AES-256-GCM under a data key of its own, and that key is wrapped by the owner's (NIST SP
    800-38D). Destroying the owner's key erases the value and breaks no hash of the log.

    ``wrapped_key``, ``nonce`` and ``ciphertext`` are base64.
    """

    key_id: str
    wrapped_key: str
    nonce: str
    ciphertext: str
