"""Tells stream ``ACCESS`` what this edge answered: counted by the second, and never waited for.

What is alike within a second becomes one entry, and the entries of a second one message.
Invariants: no request waits for the broker; memory and what a second writes are bounded, whoever
asks and however often; what finds no room in any message is counted as ``lost``, and told with the
next. Those who show no credential have an allowance of bytes of their own, and no user or address
takes another's place: what is over a limit is gathered, its number kept.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import uuid_utils

from engine.bus.access import append_access
from engine.bus.client import Bus, BusError
from schemas.access import AccessBatch, AccessEntry, Gathered, encode
from schemas.units import Micros

if TYPE_CHECKING:
    from api.exchange import Call

TICK_S = 1.0
RETRY_S = 0.2
CLOSE_S = 2.0
# Within a second: kinds of requests told apart, in all and of one user, or address of nobody's.
ENTRIES_MAX = 2048
NOBODY_MAX = 256
OF_USER_MAX = 512
OF_ADDRESS_MAX = 32
GATHERED_MAX = 512
BYTES_MAX = 1 * 2**20
# What those who show no credential may write, in bytes: at once, and each second in the long run.
ALLOWANCE_MAX = 256 * 2**10
ALLOWANCE_PER_S = 128
# Messages that wait for the broker.
WAITING_BYTES_MAX = 8 * 2**20
# About what an entry takes besides its texts.
ENTRY_BYTES = 220
GUEST_BYTES = 400
AGENT_MAX = 128
ABOUT_MAX = 64

type _Key = tuple[object, ...]

log = structlog.get_logger(__name__)


class AccessLog:
    """Counts for one edge process."""

    def __init__(self, bus: Bus, edge: str, *, clock: Callable[[], Micros]) -> None:
        self._bus = bus
        self._edge = edge
        self._clock = clock
        self._boot = secrets.token_hex(8)
        self._number = 0
        self._stopping = False
        self._began: Micros = clock()
        self._entries: dict[_Key, AccessEntry] = {}
        self._held: dict[_Key, int] = {}  # entries of each user, and of each address of nobody's
        self._users = self._nobody = self._gathered = self._bytes = 0
        self._allowance = float(ALLOWANCE_MAX)
        self._waiting: deque[tuple[str, bytes]] = deque()
        self.waiting_bytes = 0
        self._woken = asyncio.Event()
        self._empty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.lost = 0  # requests that are in no message, and no message has told of
        self.lost_total = 0
        self._lost_since: Micros = 0

    def start(self) -> None:
        """Say that this edge has begun, and go on telling until ``close``."""
        self._tell()
        self._tasks = [asyncio.create_task(work) for work in (self._tick(), self._send())]

    def stop(self) -> None:
        """Say that this edge was told to stop, while it answers what is under way."""
        if not self._stopping:
            self._stopping = True
            self._tell()

    async def close(self) -> None:
        """Tell the rest, say that it is the last, and wait for the broker a moment."""
        self._tell(last=True)
        if not self._tasks:
            return
        ticking, sending = self._tasks
        ticking.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._empty.wait()
        sending.cancel()
        await asyncio.gather(ticking, sending, return_exceptions=True)
        if self._waiting:
            log.warning("access_not_told", messages=len(self._waiting))

    def note(self, call: "Call", status: int, seconds: float) -> None:
        """Count one answered request."""
        principal, route = call.caller, call.route
        path = route.path if route is not None else ""
        address, agent = call.address, call.agent
        if principal is None:
            key: _Key = (address, agent, path, call.method, status, call.reason, call.api)
        else:
            key = (
                principal.user_id,
                principal.project_id,
                path,
                call.args,
                call.method,
                status,
                address,
                agent,
                principal.roles,
                call.rule,
                call.ordinal,
                call.version,
                call.api,
                call.repeated or call.dry_run,
            )
        entry = self._entries.get(key)
        if entry is None:
            entry = self._new(key, call, status, address, agent)
        took_us = int(seconds * 1e6)
        entry.count += 1
        entry.total_us += took_us
        if took_us > entry.max_us:  # noqa: PLR1730  # twice as fast as max
            entry.max_us = took_us

    def note_guest(
        self,
        method: str,
        status: int,
        seconds: float,
        *,
        address: str,
        network_id: str,
        server_id: str = "",
        project_id: str = "",
    ) -> None:
        """Count one answer to a guest, which shows no credential and is known by where it asks.

        What it asks for is not told: it may choose any path.
        """
        key: _Key = ("guest", network_id, address, server_id, status)
        entry = self._entries.get(key)
        if entry is None:
            owner: _Key = ("guest", project_id)
            held = self._held.get(owner, 0)
            room = self._users < ENTRIES_MAX and self._bytes + GUEST_BYTES <= BYTES_MAX
            entry = AccessEntry(
                at=self._clock(),
                request_id=f"req-{uuid_utils.uuid7()}",
                status=status,
                count=0,
                api="metadata",
                project_id=project_id,
            )
            if room and held < OF_USER_MAX:
                entry.method, entry.address = method[:16], address[:64]
                entry.about = (server_id, network_id) if server_id else (network_id[:ABOUT_MAX],)
                self._held[owner] = held + 1
                self._users += 1
                self._bytes += GUEST_BYTES
            elif room:
                key = (*owner, status)
                entry = self._entries.get(key, entry)
                entry.gathered = "owner"
            else:
                key = ("users", status)
                entry = self._entries.get(key, entry)
                entry.gathered, entry.project_id = "users", ""
            self._entries[key] = entry
        took_us = int(seconds * 1e6)
        entry.count += 1
        entry.total_us += took_us
        entry.max_us = max(entry.max_us, took_us)

    def _new(self, key: _Key, call: "Call", status: int, address: str, agent: str) -> AccessEntry:
        """Return an entry of its own for what has none yet, or one that gathers."""
        principal, route = call.caller, call.route
        if len(agent) > AGENT_MAX:
            agent = agent[:AGENT_MAX]
        if route is None:
            path = method = ""  # whoever asks chooses these
        else:
            path, method = route.path, call.method
        if principal is None:
            size = ENTRY_BYTES + len(path) + len(agent) + len(call.reason)
            owner: _Key = (address,)
            held = self._held.get(owner, 0)
            if self._nobody >= NOBODY_MAX or held >= OF_ADDRESS_MAX or size > self._allowance:
                return self._gather(owner, call, status, address)
            self._nobody += 1
            self._allowance -= size
            entry = AccessEntry(
                at=self._clock(),
                request_id=call.request_id,
                status=status,
                count=0,
                api=call.api,
                version=call.version,
                method=method,
                route=path,
                address=address,
                agent=agent,
                reason=call.reason,
            )
        else:
            about = call.args
            size = ENTRY_BYTES + len(path) + len(agent) + len(call.rule)
            for word in about:
                size += len(word)
                if len(word) > ABOUT_MAX:
                    about = tuple([word[:ABOUT_MAX] for word in call.args])
            owner = (principal.user_id, principal.project_id)
            held = self._held.get(owner, 0)
            if self._users >= ENTRIES_MAX or held >= OF_USER_MAX or self._bytes + size > BYTES_MAX:
                return self._gather(owner, call, status, address)
            self._users += 1
            self._bytes += size
            entry = AccessEntry(
                at=self._clock(),
                request_id=call.request_id,
                status=status,
                count=0,
                api=call.api,
                version=call.version,
                method=method,
                route=path,
                about=about,
                user_id=principal.user_id,
                project_id=principal.project_id,
                roles=principal.roles,
                address=address,
                agent=agent,
                action=_action(call),
                rule=call.rule,
                reason=call.reason,
                ordinal=call.ordinal,
                repeated=call.repeated,
                dry_run=call.dry_run,
            )
        self._held[owner] = held + 1
        self._entries[key] = entry
        return entry

    def _gather(self, owner: _Key, call: "Call", status: int, address: str) -> AccessEntry:
        """Return the entry that gathers what is over a limit, of the owner or of all."""
        key: _Key = ("owner", *owner, status)
        entry = self._entries.get(key)
        if entry is not None:
            return entry
        principal = call.caller
        user_id = project_id = ""
        gathered: Gathered = "owner"
        if principal is not None:
            user_id, project_id, address = principal.user_id, principal.project_id, ""
        if self._gathered >= GATHERED_MAX or (principal is None and self._allowance < ENTRY_BYTES):
            gathered = "nobody" if principal is None else "users"
            user_id = project_id = address = ""
            key = (gathered, status)
            entry = self._entries.get(key)
            if entry is not None:
                return entry
        else:
            self._gathered += 1
        if principal is None:
            self._allowance -= ENTRY_BYTES
        entry = self._entries[key] = AccessEntry(
            at=self._clock(),
            request_id=call.request_id,
            status=status,
            count=0,
            user_id=user_id,
            project_id=project_id,
            address=address,
            gathered=gathered,
        )
        return entry

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._allowance = min(ALLOWANCE_MAX, self._allowance + ALLOWANCE_PER_S * TICK_S)
            if self._entries or self.lost:
                self._tell()

    def _tell(self, *, last: bool = False) -> None:
        """Make a message of what was counted and have it sent, if there is room for it."""
        at, until = self._began, self._clock()
        self._began = until
        entries = tuple(self._entries.values())
        self._entries = {}
        self._held.clear()
        self._users = self._nobody = self._gathered = self._bytes = 0
        data = encode(
            AccessBatch(
                edge=self._edge,
                boot=self._boot,
                number=self._number + 1,
                at=at,
                until=until,
                entries=entries,
                lost=self.lost,
                lost_since=self._lost_since,
                stopping=self._stopping,
                last=last,
            )
        )
        if self.waiting_bytes + len(data) > WAITING_BYTES_MAX:
            if not self.lost:
                self._lost_since = at
                log.warning("access_lost", since=at)
            lost = sum(entry.count for entry in entries)
            self.lost += lost
            self.lost_total += lost
            return
        self._number += 1
        self.lost = self._lost_since = 0
        self._waiting.append((f"{self._edge}.{self._boot}.{self._number}", data))
        self.waiting_bytes += len(data)
        self._empty.clear()
        self._woken.set()

    async def _send(self) -> None:
        """Send what waits, in order, each for as long as it takes."""
        told = False
        while True:
            if not self._waiting:
                self._empty.set()
                self._woken.clear()
                await self._woken.wait()
            message_id, data = self._waiting[0]
            if not self._bus.connected:  # what is said now would be kept, and said twice
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await append_access(self._bus, self._edge, message_id, data)
            except BusError as error:
                if not told:
                    log.warning("access_waits", error=str(error))
                told = True
                await asyncio.sleep(RETRY_S)
                continue
            told = False
            self._waiting.popleft()
            self.waiting_bytes -= len(data)


def _action(call: "Call") -> str:
    """Return what the policy calls what was done, or was asked for; "" if that is not known."""
    if call.rule:
        return call.rule.partition(": ")[0]
    actions = call.route.actions if call.route is not None else ()
    return actions[0] if len(actions) == 1 else ""
