"""Bodies with one thing in them: attributes that are known, and others that are kept with it.

Invariant: what is known is checked here by its type, what is not by the engine's schema; neither
can stand in for the other, since a name is known or it is not.
"""

from typing import Any

import msgspec
from msgspec import Struct, defstruct

from api.errors import decoding_reason
from api.exchange import Call
from schemas.errors import InvalidInput

# What a thing shows of itself and nobody sets: clients send back what they were shown.
SHOWN = frozenset({"id", "links"})


class Attributes[T: Struct]:
    """What may be sent of one kind of thing, under its name."""

    def __init__(self, name: str, kind: type[T]) -> None:
        self.name = name
        self.kind = kind
        fields = msgspec.structs.fields(kind)
        self._known = {field.encode_name for field in fields}
        title = kind.__name__.strip("_")
        loose = defstruct(
            f"{title}Object", [(name, dict[str, Any])], frozen=True, forbid_unknown_fields=True
        )
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(loose)
        self.shape: Any = defstruct(f"{title}Body", [(name, kind)], frozen=True)

    async def read(self, call: Call) -> tuple[T, dict[str, Any]]:
        """Return what is sent: the known attributes, and all others.

        Raises:
            InvalidInput: it is not of this shape, or names another thing than the path does.
        """
        given = dict(getattr(await call.decode(self.decoder), self.name))
        ident = given.get("id")
        if ident is not None and call.args and ident not in call.args:
            raise InvalidInput("the id is that of the path, and does not change")
        known = {key: value for key, value in given.items() if key in self._known}
        others = {k: v for k, v in given.items() if k not in self._known and k not in SHOWN}
        try:
            return msgspec.convert(known, self.kind), others
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{self.name} {decoding_reason(error)}") from error
