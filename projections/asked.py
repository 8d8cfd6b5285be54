"""A request as the audit log shows it, whether the log has it or ``ACCESS``."""

from typing import Literal

import msgspec
from msgspec import Struct

from projections.access import Found
from projections.answers import Event
from projections.redaction import shown
from schemas.access import Gathered
from schemas.envelope import Client


class Asked(Struct, frozen=True, kw_only=True):
    """What was asked, by whom, whence, and what came of it.

    ``source`` "log": what the feed says of it, with ``body``. "access": counted; there ``tag`` is
    what the policy calls it, ``count`` how many were alike within a second, and ``resource_id``
    what the path named; ``actor`` is "" where nobody was let in. Times are microseconds since
    1970; durations are in microseconds.
    """

    source: Literal["log", "access"]
    at: int
    ordinal: int
    tag: str
    resource_kind: str
    resource_id: str
    project_id: str
    user_id: str
    request_id: str
    cause: str
    outcome: str
    code: str
    actor: str
    host_id: str = ""
    roles: tuple[str, ...]
    address: str
    agent: str
    api: str
    version: str
    edge: str
    rule: str
    reason: str = ""
    kind: Literal["request"] = "request"
    method: str = ""
    route: str = ""
    about: tuple[str, ...] = ()
    status: int = 0
    count: int = 1
    total_us: int | None = None
    max_us: int | None = None
    dry_run: bool = False
    repeated: bool = False
    gathered: Gathered = ""
    body: msgspec.Raw | None = None


class _Actor(Struct, frozen=True):
    kind: str
    host_id: str | None = None
    roles: tuple[str, ...] = ()


class _Request(Struct, frozen=True):
    actor: _Actor
    client: Client = Client()


class _Verdict(Struct, frozen=True):
    rule: str = ""
    reason: str = ""
    status: int = 0


class _Body(Struct, frozen=True):
    request: _Request
    verdict: _Verdict


_OF_EVENT = (
    "at", "ordinal", "tag", "resource_kind", "resource_id", "project_id", "user_id", "request_id",
    "cause", "outcome", "code",
)  # fmt: skip

_decode_body = msgspec.json.Decoder(_Body).decode


def of_log(event: Event, took: Found | None) -> Asked:
    """Return a request of the log, with what ACCESS knows of how it was answered, if it does."""
    said = _decode_body(event.body)
    client, verdict = said.request.client, said.verdict
    entry = took.entry if took is not None else None
    return Asked(
        source="log",
        **{name: getattr(event, name) for name in _OF_EVENT},
        actor=said.request.actor.kind,
        host_id=said.request.actor.host_id or "",
        roles=said.request.actor.roles,
        address=client.address,
        agent=client.agent,
        api=client.api,
        version=client.version,
        edge=client.edge,
        rule=verdict.rule,
        reason=verdict.reason,
        method=entry.method if entry else "",
        route=entry.route if entry else "",
        status=entry.status if entry else verdict.status,
        total_us=entry.total_us if entry else None,
        max_us=entry.max_us if entry else None,
        body=shown(event).body,
    )


def of_access(found: Found) -> Asked:
    """Return an entry of ACCESS."""
    entry = found.entry
    return Asked(
        source="access",
        at=entry.at,
        ordinal=entry.ordinal,
        tag=entry.action,
        resource_kind="",
        resource_id=entry.about[0] if entry.about else "",
        project_id=entry.project_id,
        user_id=entry.user_id,
        request_id=entry.request_id,
        cause="",
        outcome="refused" if entry.status >= 400 else "accepted",
        code="",
        actor="user" if entry.user_id else "",
        roles=entry.roles,
        address=entry.address,
        agent=entry.agent,
        api=entry.api,
        version=entry.version,
        edge=found.edge,
        rule=entry.rule,
        reason=entry.reason,
        method=entry.method,
        route=entry.route,
        about=entry.about,
        status=entry.status,
        count=entry.count,
        total_us=entry.total_us,
        max_us=entry.max_us,
        dry_run=entry.dry_run,
        repeated=entry.repeated,
        gathered=entry.gathered,
    )
