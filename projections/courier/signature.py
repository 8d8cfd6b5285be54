"""Signatures by which a receiver knows that a request is ours (https://www.standardwebhooks.com).

``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over id, time and body, joined by
dots, under a secret that only the receiver and we have.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

from schemas.errors import InvalidInput

PREFIX = "whsec_"
SECRET_BYTES = 32
# As the specification bounds them.
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64


def new_secret() -> str:
    """Return a fresh secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def secret_bytes(text: str) -> bytes:
    """Return what a secret stands for.

    Raises:
        InvalidInput: it is none; it is not quoted.
    """
    if not text.startswith(PREFIX):
        raise InvalidInput(f"a secret is {PREFIX} and base64")
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidInput(f"a secret is {PREFIX} and base64") from None
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise InvalidInput(
            f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, in base64"
        )
    return secret


def headers(secret: bytes, message_id: str, at_s: int, body: bytes) -> list[tuple[str, str]]:
    """Return the headers that say which message it is, when it was sent, and that it is ours."""
    signed = b"%b.%d.%b" % (message_id.encode(), at_s, body)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(at_s)),
        ("webhook-signature", f"v1,{base64.b64encode(digest).decode()}"),
    ]
