"""The lease: which candidate tries to lead. For liveness alone.

One key of a bucket holds who leads. It is taken and kept by compare-and-swap on its revision, so of
several candidates one gets it. Nobody's clock is compared with another's: a candidate takes over
when, on its own clock, it has seen no renewal for a while. A leader that was stopped may wake up
and believe in its lease; what it then writes is refused by the log's fence, which is what safety
stands on. The layout is that of a NATS key-value bucket (NATS ADR-8).
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from engine.bus.client import Bus, BusError, NoResponders
from engine.bus.stored import ApiError, decode_ack
from engine.log.stream import ensure_stream
from schemas.units import Micros

WRONG_LAST_SEQUENCE = 10071, 10164
NO_MESSAGE = 10037
KEY = "leader"
TIMEOUT_S = 1.0
# A leader says so this often; silent for LEASE_S, it is taken to be gone.
RENEW_S = 0.4
LEASE_S = 1.5
LOOK_S = 0.25
RETRY_S = 0.05

log = structlog.get_logger(__name__)


class LeaseUnknown(Exception):
    """The bucket did not answer: it is not known who holds the lease."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who leads, as the bucket has it. ``renewals`` makes every renewal another value."""

    node: str
    candidate: str
    since: Micros
    renewals: int = 0


class Bucket(Protocol):
    """One value under compare-and-swap."""

    async def get(self) -> tuple[int, Holder | None]:
        """Return the revision (0: never written) and the value. LeaseUnknown."""
        ...

    async def put(self, holder: Holder, revision: int) -> int | None:
        """Write if the revision is still this one; return the new one, else None. LeaseUnknown."""
        ...


class Lease:
    """One candidate's view of the lease."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        node: str,
        candidate: str,
        clock: Callable[[], Micros],
        monotonic: Callable[[], float],
        lease_s: float = LEASE_S,
    ) -> None:
        """``node`` is unique among candidates, ``candidate`` to this process of all times.

        ``monotonic`` is its own clock, in seconds.
        """
        self._bucket = bucket
        self._mine = Holder(node=node, candidate=candidate, since=0)
        self._clock = clock
        self._monotonic = monotonic
        self._lease_s = lease_s
        self._revision = 0
        self._renewing = asyncio.Lock()

    async def acquire(self) -> None:
        """Return once the lease is ours; waits for as long as another renews it."""
        revision, seen_at = -1, self._monotonic()
        was_held = False
        while True:
            try:
                found, holder = await self._bucket.get()
                if found != revision:
                    revision, seen_at = found, self._monotonic()
                # Of our own name, it is what we were before we were killed.
                free = not was_held if holder is None else self._is_free(holder)
                was_held |= not free
                if free or self._monotonic() - seen_at >= self._lease_s:
                    mine = msgspec.structs.replace(self._mine, since=self._clock())
                    taken = await self._bucket.put(mine, found)
                    if taken is not None:
                        self._mine, self._revision = mine, taken
                        return
            except LeaseUnknown as error:
                # The bucket's silence says nothing about the leader's.
                seen_at = self._monotonic()
                log.warning("lease_unknown", error=str(error))
            await asyncio.sleep(LOOK_S)

    def _is_free(self, holder: Holder) -> bool:
        return holder.since == 0 or holder.node == self._mine.node

    async def keep(self) -> None:
        """Renew for ever; returns when another has taken the lease."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if not await self._renew():
                    return
            except LeaseUnknown as error:
                # While it is away nobody else can take it either, and the log decides who writes.
                log.warning("lease_not_renewed", error=str(error))

    async def confirm(self) -> bool:
        """Return whether the lease was still ours after this call began; waits to find out.

        A renewal that is stored says so, also of a cluster: it takes a majority, while a node that
        was stopped and wakes up may answer any question with what it knew. Whoever leads next
        takes the lease before anything else.
        """
        while True:
            try:
                if await self._renew(once=True):
                    return True
            except LeaseUnknown as error:
                log.warning("lease_not_confirmed", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return False

    async def _renew(self, *, once: bool = False) -> bool:
        """Renew once, and return False if another has taken the lease; with ``once``, until it is.

        One at a time, since each stands on the revision of the one before.
        """
        async with self._renewing:
            while True:
                renewed = msgspec.structs.replace(self._mine, renewals=self._mine.renewals + 1)
                revision = await self._bucket.put(renewed, self._revision)
                if revision is not None:
                    self._mine, self._revision = renewed, revision
                    return True
                # Ours may have been stored without our hearing of it, or the bucket be new.
                self._revision, holder = await self._bucket.get()
                if holder is not None and holder.candidate != self._mine.candidate:
                    return False
                if not once:
                    return True
                await asyncio.sleep(RETRY_S)

    async def release(self) -> None:
        """Give the lease up, so that the next candidate need not wait. Best effort."""
        given_up = msgspec.structs.replace(self._mine, since=0)
        try:
            await self._bucket.put(given_up, self._revision)
        except LeaseUnknown as error:
            log.info("lease_not_released", error=str(error))


class _Raw(Struct, frozen=True):
    seq: int = 0
    data: bytes = b""


class _Got(Struct, frozen=True):
    message: _Raw | None = None
    error: ApiError | None = None


_decode_got = msgspec.json.Decoder(_Got).decode
_decode_holder = msgspec.json.Decoder(Holder).decode


class LeaseBucket:
    """The bucket on JetStream, in memory: with the broker, the lease is gone too."""

    def __init__(self, bus: Bus, *, replicas: int = 1) -> None:
        self._bus = bus.store
        self._bucket = bus.subjects.lease_bucket
        self._subject = f"$KV.{self._bucket}.{KEY}"
        self._replicas = replicas

    async def ensure(self) -> None:
        """Create the bucket unless it is there. For ``engine`` and ``admin``. BusError."""
        await ensure_stream(
            self._bus,
            {
                "name": f"KV_{self._bucket}",
                "subjects": [f"$KV.{self._bucket}.>"],
                "storage": "memory",
                "retention": "limits",
                "discard": "new",
                "max_msgs_per_subject": 1,
                "num_replicas": self._replicas,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
            },
        )

    async def get(self) -> tuple[int, Holder | None]:
        """See ``Bucket``. Read through the bucket's leader: a replica may lag."""
        request = msgspec.json.encode({"last_by_subj": self._subject})
        try:
            answer = _decode_got(
                await self._bus.request(
                    f"$JS.API.STREAM.MSG.GET.KV_{self._bucket}", request, timeout_s=TIMEOUT_S
                )
            )
            if answer.message is not None:
                return answer.message.seq, _decode_holder(answer.message.data)
            if answer.error is not None and answer.error.err_code == NO_MESSAGE:
                return 0, None
        except (BusError, msgspec.MsgspecError) as error:
            raise LeaseUnknown(str(error)) from error
        await self._ensure_again(LeaseUnknown(answer.error.description if answer.error else ""))
        return 0, None

    async def put(self, holder: Holder, revision: int) -> int | None:
        """See ``Bucket``."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            answer = await self._bus.ask(
                self._subject, msgspec.json.encode(holder), timeout_s=TIMEOUT_S, headers=headers
            )
            ack = decode_ack(answer.payload)
        except NoResponders as error:
            # A broker that was started anew has forgotten the bucket.
            await self._ensure_again(error)
            return None
        except (BusError, msgspec.MsgspecError) as error:
            raise LeaseUnknown(str(error)) from error
        if ack.error is None:
            return ack.seq
        if ack.error.err_code in WRONG_LAST_SEQUENCE:
            return None
        raise LeaseUnknown(f"{ack.error}")

    async def _ensure_again(self, why: Exception) -> None:
        try:
            await self.ensure()
        except BusError as error:
            raise LeaseUnknown(f"{why}; {error}") from error
