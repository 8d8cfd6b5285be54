"""Bearer tokens: what one says, sealed so that only this cloud can have said it (Fernet).

A token holds ids, times and an audit id; rights are looked up at each use, so that taking one away
counts at once. Invariant: a token that does not decrypt under a key of the ring is nobody's.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from time import monotonic

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msgspec import Struct

from engine.bus.keys import TokenKeys
from schemas.units import HOUR, Micros

LIFETIME: int = 12 * HOUR
TOKEN_CHARS_MAX = 4096
REFRESH_S = 2.0  # how old the ring may be that an edge goes by

type KeySource = Callable[[], Awaitable[TokenKeys]]


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. Its scope is a project, a domain, the system, or nothing."""

    user_id: str
    audit_id: str
    issued_at: Micros
    expires_at: Micros
    methods: tuple[str, ...]
    project_id: str = ""
    domain_id: str = ""
    system: bool = False
    parent_audit_id: str = ""  # of the token that it was got with
    application_credential_id: str = ""
    trust_id: str = ""
    idp_id: str = ""  # the identity provider that has vouched for the user, and how it spoke
    protocol_id: str = ""


class Receipt(Struct, frozen=True, kw_only=True):
    """What a receipt says: who has proven to be a user by some of the methods that are needed.

    Neither can stand for the other: a token has no ``receipt_id``, a receipt no ``audit_id``.
    """

    receipt_id: str
    user_id: str
    issued_at: Micros
    expires_at: Micros
    methods: tuple[str, ...]


_decode = msgspec.json.Decoder(Token).decode
decode_receipt = msgspec.json.Decoder(Receipt).decode
_encode = msgspec.json.Encoder().encode


def _is_plain(text: str) -> bool:
    """Return whether a text is base64 in the one form that it has, so that a token has one too."""
    try:
        return urlsafe_b64encode(urlsafe_b64decode(text)).decode("ascii") == text
    except ValueError:  # it is not base64, or not even ASCII
        return False


class TokenRing:
    """Seals and opens tokens with a ring of keys: the first signs, all open."""

    def __init__(self, source: KeySource) -> None:
        """``source`` returns the ring as it is now."""
        self._source = source
        self._fernet: MultiFernet | None = None
        self._asked_at = float("-inf")
        self.seq = 0  # of the ring; another number, another ring

    async def refresh(self) -> bool:
        """Read the ring again, at most every few seconds; return whether it changed."""
        now = monotonic()
        if now - self._asked_at < REFRESH_S:
            return False
        self._asked_at = now
        ring = await self._source()
        if ring.seq == self.seq:
            return False
        self._fernet = MultiFernet([Fernet(key) for key in ring.keys])
        self.seq = ring.seq
        return True

    def seal(self, value: Struct) -> str:
        """Return a token, or what else only this cloud can have said, as its holder carries it."""
        assert self._fernet is not None, "the ring was never read"
        return self._fernet.encrypt(_encode(value)).decode("ascii")

    async def open(self, text: str) -> Token | None:
        """Return what a token says, or None if it is not one of ours."""
        return await self.open_as(text, _decode)

    async def open_as[T](self, text: str, decode: Callable[[bytes], T]) -> T | None:
        """Return what was sealed as ``decode`` reads it, or None if it is not one of ours."""
        if len(text) > TOKEN_CHARS_MAX or not _is_plain(text):
            return None
        value = self._open(text, decode)
        if value is None and await self.refresh():
            value = self._open(text, decode)
        return value

    def _open[T](self, text: str, decode: Callable[[bytes], T]) -> T | None:
        if self._fernet is None:
            return None
        try:
            return decode(self._fernet.decrypt(text.encode("ascii")))
        except (InvalidToken, msgspec.DecodeError):
            return None
