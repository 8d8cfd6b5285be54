"""One-time codes by time (TOTP, RFC 6238): six digits, SHA-1, steps of 30 s, one step of leeway.

A user's secrets are its credentials of type ``totp``, whose blob is base32. Invariant: a code that
was taken is not taken again, nor one of an earlier step. That is remembered by this edge alone, in
bounded memory: with several edges a code that is overheard is good at another for up to 90 s.
"""

import base64
import binascii
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from api.sealing_inbound import open_sealed
from engine.bus.keys import KeyMissing
from engine.sealing import SealBroken
from schemas.identity import User
from schemas.units import SECOND, Micros

if TYPE_CHECKING:
    from api.edge import Edge

TYPE = "totp"
DIGITS = 6
STEP_S = 30
LEEWAY = 1  # steps, for clocks that differ
SECRETS_MAX = 8  # of one user that are tried


async def is_code_of(edge: "Edge", user: User, passcode: str, at: Micros) -> bool:
    """Return whether a code is one of the user's now, and was not taken before. Takes it."""
    if not user.enabled or not is_passcode(passcode):
        return False
    for credential in edge.reader.credentials(user_id=user.user_id, kind=TYPE)[:SECRETS_MAX]:
        try:
            secret = base32(await open_sealed(edge, credential.blob))
        except (KeyMissing, SealBroken, binascii.Error, ValueError):
            continue  # what cannot be read lets nobody in
        step = matching_step(secret, passcode, at)
        if step is not None:
            return edge.used_codes.take(credential.credential_id, step)
    return False


def is_passcode(text: str) -> bool:
    """Say whether a text can be a code at all."""
    return len(text) == DIGITS and text.isascii() and text.isdigit()


def base32(blob: bytes) -> bytes:
    """Return the secret that is written as base32, in either case, with or without padding.

    Raises:
        binascii.Error: it is not.
    """
    text = blob.decode("ascii").replace(" ", "").rstrip("=").upper()
    return base64.b32decode(text + "=" * (-len(text) % 8))


def matching_step(secret: bytes, passcode: str, at: Micros) -> int | None:
    """Return the step whose code this is, around a time; None if it is of none of them."""
    totp = TOTP(secret, DIGITS, SHA1(), STEP_S, enforce_key_length=False)  # noqa: S303  # RFC 6238
    now_step = at // (STEP_S * SECOND)
    found = None
    for step in range(now_step - LEEWAY, now_step + LEEWAY + 1):
        if compare_digest(totp.generate(step * STEP_S), passcode.encode()):
            found = step
    return found
