"""The bus of an edge that reads the past: whoever could be asked on it knows only the present.

Invariant: nothing is said on it and nothing heard, so that no answer about the past can hold what
was asked of the present, by whatever handler.
"""

from typing import Never

from engine.bus.client import Bus
from schemas.errors import Rejected


class Nobody(Bus):
    """A bus that nobody is on."""

    def __init__(self, cell: str, refusal: type[Rejected], reason: str) -> None:
        """``refusal`` is raised, with its reason, for whatever is said."""
        super().__init__(url="", user="", password="", cell=cell)
        self._refusal = refusal
        self._reason = reason

    @property
    def connected(self) -> bool:
        """Whether all is there that there will be."""
        return True

    async def publish(self, *_: object, **__: object) -> Never:
        """Refuse."""
        raise self._refusal(self._reason)

    async def ask(self, *_: object, **__: object) -> Never:
        """Refuse."""
        raise self._refusal(self._reason)

    async def subscribe(self, *_: object, **__: object) -> Never:
        """Refuse."""
        raise self._refusal(self._reason)
