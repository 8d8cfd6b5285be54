"""Keys that are kept outside the log: owners' sealing keys, and the ring that signs tokens.

A key is made once, whoever asks first; it never changes; destroyed, it is erased from the disk and
never comes back under the same id. The bucket follows the layout of a NATS key-value bucket
(``KV_KEYS-<cell>``, NATS ADR-8), so that the ``nats`` tool can list it.
"""

import os
import re
import time
from datetime import UTC, datetime

import msgspec
from cryptography.fernet import Fernet
from msgspec import Struct

from engine.bus.client import STATUS, Bus, BusError, Message
from engine.bus.stored import ApiError, decode_ack
from engine.log.stream import NOT_FOUND, StreamApiError, call, ensure_stream
from engine.sealing import KEY_BYTES
from schemas.errors import NotFound

TIMEOUT_S = 5.0
CACHE_S = 60.0
CACHED_MAX = 10_000
WRONG_LAST_SEQUENCE = 10071
NO_MESSAGE = 10037
TOKEN_RING = "token.ring"  # noqa: S105  # a name
TOKEN_KEYS_MAX = 4
TIME = "Nats-Time-Stamp"
TOMBSTONE = "KV-Operation"


class KeyMissing(NotFound):
    """There is no such key: it was never made, or has been destroyed."""

    code = "KeyMissing"


class TokenKeys(Struct, frozen=True, kw_only=True):
    """The ring of Fernet keys (urlsafe base64) that signs and opens tokens.

    The first signs. The last has not signed yet and will next, so that every edge knows it by
    then; those between have signed. ``seq`` tells one ring from another.
    """

    keys: tuple[bytes, ...]
    seq: int
    made_at: datetime


class _Stored(Struct, frozen=True):
    seq: int  # 0: nothing there
    value: bytes  # empty: destroyed
    at: datetime = datetime.fromtimestamp(0, UTC)


class _Message(Struct, frozen=True):
    seq: int
    data: bytes = b""
    time: datetime = datetime.fromtimestamp(0, UTC)


class _Found(Struct, frozen=True):
    message: _Message | None = None
    error: ApiError | None = None


_decode_found = msgspec.json.Decoder(_Found).decode
_decode_ring = msgspec.json.Decoder(list[str]).decode


class Keys:
    """The cell's keys. What was read is kept for a minute, so a destroyed key lives that long."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus.store
        self._bucket = bus.subjects.keys_bucket
        self._cache: dict[str, tuple[float, bytes]] = {}

    async def ensure_bucket(self, *, replicas: int = 1) -> None:
        """Create the bucket unless it is there. For ``engine`` and ``admin``."""
        await ensure_stream(
            self._bus,
            {
                "name": f"KV_{self._bucket}",
                "subjects": [f"$KV.{self._bucket}.>"],
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "max_msgs_per_subject": 1,
                "num_replicas": replicas,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "deny_delete": False,  # deleting a message is what erases it from the disk
                "deny_purge": False,
            },
        )

    async def get_key(self, key_id: str) -> bytes:
        """Return the key.

        Raises:
            KeyMissing: it was never made, or has been destroyed.
        """
        if found := self._cached(key_id):
            return found
        stored = await self._read(key_id)
        if not stored.value:
            raise KeyMissing(f"there is no key {key_id}", key_id=key_id)
        return self._keep(key_id, stored.value)

    async def create_key(self, key_id: str) -> bytes:
        """Return the key, making it if it never was. Safe to repeat and to race for.

        Raises:
            KeyMissing: it has been destroyed, and stays so.
        """
        if found := self._cached(key_id):
            return found
        stored = await self._read(key_id)
        if stored.seq == 0:
            key = os.urandom(KEY_BYTES)
            if await self._write(key_id, key, expected=0):
                return self._keep(key_id, key)
            stored = await self._read(key_id)  # somebody was first
        if not stored.value:
            raise KeyMissing(f"key {key_id} was destroyed", key_id=key_id)
        return self._keep(key_id, stored.value)

    async def destroy_key(self, key_id: str) -> None:
        """Erase the key and, with it, all that it sealed. Can be repeated.

        For ``engine`` and ``admin``.
        """
        self._cache.pop(key_id, None)
        stored = await self._read(key_id)
        if stored.seq and not stored.value:
            return
        if stored.seq:
            try:  # Overwritten on disk, not only forgotten: no_erase is false.
                await call(self._bus, f"STREAM.MSG.DELETE.KV_{self._bucket}", {"seq": stored.seq})
            except StreamApiError as error:
                if error.code not in (NOT_FOUND, 10043, 10057):  # raced by another destroyer
                    raise
        await self._write(key_id, b"", expected=None)
        self._cache.pop(key_id, None)

    async def token_keys(self) -> TokenKeys:
        """Return the token key ring as it is now.

        Raises:
            KeyMissing: ``ensure_token_keys`` was never called.
        """
        stored = await self._read(TOKEN_RING)
        if not stored.value:
            raise KeyMissing("there are no keys for tokens", key_id=TOKEN_RING)
        return _ring(stored)

    async def ensure_token_keys(self) -> TokenKeys:
        """Make the token key ring unless it is there, and return it."""
        stored = await self._read(TOKEN_RING)
        if stored.seq == 0:
            await self._write(TOKEN_RING, _written(_fresh(), _fresh()), expected=0)
        return await self.token_keys()

    async def rotate_token_keys(
        self, *, seen: int | None = None, end_tokens: bool = False
    ) -> TokenKeys:
        """Let the next key sign; tokens signed by those kept behind it stay valid.

        ``seen`` makes it happen only if the ring is still that one, ``end_tokens`` keeps no key,
        so that every token there is ends.
        """
        while True:
            stored = await self._read(TOKEN_RING)
            if seen is not None and stored.seq != seen:
                return await self.token_keys()
            ring = _decode_ring(stored.value) if stored.value else []
            if end_tokens:
                rotated = [_fresh()]
            elif len(ring) < 2:
                rotated = [_fresh(), *ring]  # made when no key was chosen in advance
            else:
                rotated = [ring[-1], *ring[:-1]]
            rotated = [*rotated[: TOKEN_KEYS_MAX - 1], _fresh()]
            if await self._write(TOKEN_RING, _written(*rotated), expected=stored.seq):
                return await self.token_keys()

    def _cached(self, key_id: str) -> bytes | None:
        until, value = self._cache.get(key_id, (0.0, b""))
        return value if value and time.monotonic() < until else None

    def _keep(self, key_id: str, value: bytes) -> bytes:
        if len(self._cache) >= CACHED_MAX:
            self._cache.clear()
        self._cache[key_id] = (time.monotonic() + CACHE_S, value)
        return value

    def _subject(self, key_id: str) -> str:
        return f"$KV.{self._bucket}.{_token(key_id)}"

    async def _read(self, key_id: str) -> _Stored:
        subject = f"$JS.API.DIRECT.GET.KV_{self._bucket}.{self._subject(key_id)}"
        stored = _stored(await self._bus.ask(subject, b"", timeout_s=TIMEOUT_S))
        # What a node has does not change but by being destroyed. What it has not, it may not have
        # yet: the bucket's leader knows sooner, and a write over what it does not know is refused.
        return stored if stored.seq else await self._read_at_leader(key_id)

    async def _read_at_leader(self, key_id: str) -> _Stored:
        subject = f"$JS.API.STREAM.MSG.GET.KV_{self._bucket}"
        question = msgspec.json.encode({"last_by_subj": self._subject(key_id)})
        reply = _decode_found(await self._bus.request(subject, question, timeout_s=TIMEOUT_S))
        if reply.message is not None:
            return _Stored(reply.message.seq, reply.message.data, reply.message.time)
        if reply.error is not None and reply.error.err_code == NO_MESSAGE:
            return _Stored(0, b"")
        raise BusError(f"key {key_id}: {reply.error.description if reply.error else 'no answer'}")

    async def _write(self, key_id: str, value: bytes, *, expected: int | None) -> bool:
        """Store a value over the message ``expected`` (0: none); False if another is there."""
        headers = {} if value else {TOMBSTONE: "PURGE", "Nats-Rollup": "sub"}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        answer = await self._bus.ask(
            self._subject(key_id), value, timeout_s=TIMEOUT_S, headers=headers or None
        )
        error = decode_ack(answer.payload).error
        if error is None:
            return True
        if error.err_code == WRONG_LAST_SEQUENCE:
            return False
        raise BusError(f"key {key_id}: {error}")


def _stored(answer: Message) -> _Stored:
    if answer.headers.get(STATUS) == "404":
        return _Stored(0, b"")
    if STATUS in answer.headers:
        raise BusError(f"keys: {answer.headers[STATUS]} {answer.headers.get('Description', '')}")
    return _Stored(
        int(answer.headers["Nats-Sequence"]),
        answer.payload,
        datetime.fromisoformat(answer.headers[TIME]),
    )


def _token(key_id: str) -> str:
    """Write an id as one token of a subject: dots and the like become ``=2E``."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda m: f"={ord(m[0]):02X}", key_id)


def _ring(stored: _Stored) -> TokenKeys:
    keys = tuple(key.encode() for key in _decode_ring(stored.value))
    return TokenKeys(keys=keys, seq=stored.seq, made_at=stored.at)


def _written(*keys: str) -> bytes:
    return msgspec.json.encode(keys)


def _fresh() -> str:
    return Fernet.generate_key().decode()
