"""What JetStream answers when a message was to be stored: where it is, or what stood in the way."""

import msgspec
from msgspec import Struct


class ApiError(Struct, frozen=True):
    """What JetStream says instead of an answer."""

    err_code: int = 0
    description: str = ""

    def __str__(self) -> str:
        return f"{self.description} ({self.err_code})"


class Ack(Struct, frozen=True):
    """The sequence of what was stored; with an error, it was not."""

    seq: int = 0
    error: ApiError | None = None


decode_ack = msgspec.json.Decoder(Ack).decode
