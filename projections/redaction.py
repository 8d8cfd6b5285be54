"""The log's JSON as people read it: without the ciphertext of what it holds sealed.

Invariant: of a sealed value only the id of its key is shown. Whoever may read a project's events
need not hold what could be opened, should its key ever leave the house.
"""

from typing import Any

import msgspec

from projections.answers import Event

_SEALED = {"key_id", "wrapped_key", "nonce", "ciphertext"}
_MARK = b'"ciphertext"'

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def without_ciphertext(body: msgspec.Raw) -> msgspec.Raw:
    """Return JSON with each sealed value reduced to the id of its key."""
    # Most of the log holds no secret: it is passed on byte for byte, without being decoded.
    if _MARK not in bytes(body):
        return body
    return msgspec.Raw(_encode(reduced(_decode(body))))


def shown(event: Event) -> Event:
    """Return an event whose body has no ciphertext."""
    body = without_ciphertext(event.body)
    return event if body is event.body else msgspec.structs.replace(event, body=body)


def reduced(value: Any) -> Any:
    """Return JSON's data with each sealed value reduced to the id of its key."""
    match value:
        case dict() if value.keys() == _SEALED:
            return {"key_id": value["key_id"]}
        case dict():
            return {name: reduced(item) for name, item in value.items()}
        case list() | tuple():
            return [reduced(item) for item in value]
        case _:
            return value
