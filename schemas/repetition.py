"""Asking the engine whether an idempotency key was used, before anything is done for it."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.ids import FreeId


class Keyed(Struct, frozen=True, kw_only=True):
    """Somebody's key, and the digest of what is asked for under it.

    Answered with the ``Outcome`` that the key stands for, a refusal if it stands for something
    else, or nothing if it was not used.
    """

    user_id: str
    project_id: str
    key: FreeId
    digest: Annotated[str, Meta(max_length=64)]


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Keyed).decode
UNUSED = b"null"
