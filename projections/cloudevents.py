"""The log as CloudEvents 1.0: what each attribute is taken from.

===================  =============================================================================
``id``               a request's own id; a fact's is that of its request, a dot, its ordinal
``source``           ``urn:cumulog:<cell>:<region>:engine``
``type``             ``cumulog.`` and the fact's tag; of a request, ``cumulog.<service>.<noun>.``
                     ``<verb>.requested.v1``
``subject``          ``<project>/<kind>/<id>``; a dash where there is none
``time``             when it happened, as who saw it says: ``observed_at``, ``submitted_at``
``recordedtime``     when it was committed
``sequence``         the ordinal, with zeros, since sequences are compared as text
``correlationid``    the person's request that all this follows from
``causationid``      the event that directly led to this one
``traceparent`` …    of the request (see ``schemas.trace``)
``authtype`` …       who asked, by an opaque id
``partitionkey``     the project
===================  =============================================================================

Invariant: one ordinal gives the same event whenever and by whomever it is asked for. A request id
that came a second time (``IdReused``) gets its ordinal too, so that no id stands for two events.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from projections.answers import Event
from schemas.envelope import action_types
from schemas.errors import IdReused
from schemas.ids import SYSTEM_USER
from schemas.units import Micros
from schemas.webhook import WebhookRedeliveryRequested

TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
PREFIX = "cumulog."
NOTHING = "-"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORD = re.compile(r"[A-Z][a-z0-9]*")


class CloudEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event in structured mode: as JSON it is what CloudEvents' JSON format asks for."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    dataschema: str
    recordedtime: str
    sequence: str
    correlationid: str
    authtype: str
    causationid: str = ""
    traceparent: str = ""
    tracestate: str = ""
    authid: str = ""
    partitionkey: str = ""
    data: msgspec.Raw


class _Client(Struct, frozen=True):
    trace: str = ""
    trace_state: str = ""


class _Request(Struct, frozen=True):
    submitted_at: Micros = 0
    client: _Client = _Client()


class _Asked(Struct, frozen=True):
    request: _Request = _Request()


class _Observed(Struct, frozen=True):
    observed_at: Micros = 0


_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_observed = msgspec.json.Decoder(_Observed).decode
_UNASKED = _Request()


def source(cell: str, region: str) -> str:
    """Return who speaks: it and an event's id are unique together, for ever."""
    return f"urn:cumulog:{cell}:{region}:engine"


def cloud_events(
    events: Iterable[Event], source: str, bodies: Callable[[set[str]], Mapping[str, bytes]]
) -> list[CloudEvent]:
    """Return events as CloudEvents, in their order; bodies are passed on as they are.

    ``bodies`` returns what was asked under the ids of requests: those of facts whose request is
    not among ``events``.
    """
    told = list(events)
    here = {e.request_id: _decode_asked(e.body).request for e in told if e.kind == "request"}
    missing = {e.request_id for e in told if e.request_id not in here}
    if missing:
        here |= {name: _decode_asked(body).request for name, body in bodies(missing).items()}
    return [_cloud_event(e, source, here.get(e.request_id, _UNASKED)) for e in told]


def type_of(event: Event) -> str:
    """Return an event's type without its prefix, which is what filters are compared with."""
    return event.tag if event.kind == "fact" else requested(event.tag)


@cache
def requested(action: str) -> str:
    """Return the type of the request that is this action: CreateServer, server.create."""
    known = action_types().get(action)
    service = known.__module__.rpartition(".")[2] if known is not None else "unknown"
    words = [word.lower() for word in _WORD.findall(action)]
    name = f"{'_'.join(words[1:])}.{words[0]}" if len(words) > 1 else "".join(words)
    return f"{service}.{name}.requested.v1"


def _cloud_event(event: Event, source: str, asked: _Request) -> CloudEvent:
    is_request = event.kind == "request"
    again = event.code == IdReused.code
    kind = type_of(event)
    if is_request:
        happened, cause = asked.submitted_at, event.cause
    else:
        happened, cause = _decode_observed(event.body).observed_at, event.request_id
    return CloudEvent(
        specversion="1.0",
        id=event.request_id if is_request and not again else f"{event.request_id}.{event.ordinal}",
        source=source,
        type=PREFIX + kind,
        subject="/".join(
            part or NOTHING for part in (event.project_id, event.resource_kind, event.resource_id)
        ),
        time=rfc3339(happened or event.at),
        datacontenttype="application/json",
        dataschema=f"urn:cumulog:schema:{kind}",
        recordedtime=rfc3339(event.at),
        sequence=f"{event.ordinal:020}",
        correlationid=event.cause or event.request_id,
        causationid=cause,
        traceparent=asked.client.trace,
        tracestate=asked.client.trace_state,
        authtype=_auth_type(event.user_id),
        authid=event.user_id,
        partitionkey=event.project_id,
        data=event.body,
    )


def _auth_type(user_id: str) -> str:
    if user_id == SYSTEM_USER:
        return "system"
    return "user" if user_id else "service_account"


def rfc3339(at: Micros) -> str:
    """Return a moment as RFC 3339 has it, in UTC, with its microseconds."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


decode_redelivery = msgspec.json.Decoder(WebhookRedeliveryRequested).decode
_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def encode(events: CloudEvent | list[CloudEvent]) -> bytes:
    """Return an event, or a batch of them, in CloudEvents' JSON format."""
    return _encode(events)
