"""What the read functions return where a resource alone is not the answer.

Plain frozen data, encodable by msgspec as it stands. Times are microseconds since the epoch, UTC.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.compute import Server
from schemas.operation import Operation

type EventKind = Literal["request", "fact"]
type OperationStatus = Literal["running", "succeeded", "failed", "cancelled", "timed_out"]


class MarkerNotFound(LookupError):
    """A page was asked for after something that the asker cannot see."""


class BadPattern(ValueError):
    """A name or address filter is not a regular expression that can be matched in bounded time."""


class BadSort(ValueError):
    """A list was asked for in the order of something that it cannot be ordered by."""


class Position(Struct, frozen=True, kw_only=True):
    """How far a read model has come: the last ordinal of the last commit it holds.

    ``seq`` is that commit's place in the stream, ``hash`` its link of the chain, ``at`` its time.
    All zero and empty before the first commit.
    """

    ordinal: int
    seq: int
    hash: str
    at: int


class Address(Struct, frozen=True, kw_only=True):
    """An address of a server: a port's fixed address with its network's name."""

    network_id: str
    network_name: str
    port_id: str
    mac_address: str
    ip_address: str
    ip_version: int = 4


class ServerView(Struct, frozen=True, kw_only=True):
    """A server with its addresses, its ports' in the order in which they were plugged.

    ``ordinal`` is the last that changed any of it: with the same server id it is always the same
    view, so that what was rendered from it can be kept.
    """

    ordinal: int
    server: Server
    addresses: tuple[Address, ...] = ()


class InstanceAction(Struct, frozen=True, kw_only=True):
    """Something a person did to a server (os-instance-actions).

    ``action`` is Nova's word (create, start, stop, reboot, resize, …). ``finish_at`` and ``result``
    (Success, Error) are None while it is under way.
    """

    server_id: str
    request_id: str
    action: str
    user_id: str
    project_id: str
    start_at: int
    finish_at: int | None
    result: str | None
    message: str = ""


class OperationState(Struct, frozen=True, kw_only=True):
    """An operation and how it stands. ``cause`` says why it ended without success."""

    operation: Operation
    status: OperationStatus
    ended_at: int | None = None
    cause: str = ""


class Event(Struct, frozen=True, kw_only=True):
    """One ordinal of the log: a request with its verdict, or a fact.

    ``tag`` is the action's name or the fact's tag. ``request_id`` is the request's own, or that of
    the request the fact followed from; ``cause`` is the person's request that led to it, where it
    is another (an agent's report, a passed deadline). ``outcome`` is of requests: accepted or
    refused, then with ``code``. ``body`` is the JSON of the log, byte for byte: ``{"request": …,
    "verdict": …}`` or the fact.
    """

    ordinal: int
    kind: EventKind
    tag: str
    resource_kind: str
    resource_id: str
    project_id: str
    user_id: str
    request_id: str
    cause: str
    at: int
    outcome: str
    code: str
    body: msgspec.Raw


class RequestAlarm(Struct, frozen=True, kw_only=True):
    """A request id that stands at two ordinals of the log, which must never be.

    ``first`` is where it stands first, ``ordinal`` where it came again: with ``other_content``
    (refused then, or forged), or the same request of a person, ``done_twice``.
    """

    ordinal: int
    first: int
    request_id: str
    what: Literal["other_content", "done_twice"]


class Why(Struct, frozen=True, kw_only=True):
    """All that led to a resource's being as it is: its events, and those beside them, in order."""

    resource_kind: str
    resource_id: str
    project_id: str
    events: tuple[Event, ...]
