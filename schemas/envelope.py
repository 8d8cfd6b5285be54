"""What one message of the log holds: requests, verdicts, facts.

``Commit`` is one turn of the decider, all or nothing. Each record is a request with its verdict and
its facts; the request takes an ordinal, then each of its facts. Encoded as JSON with sorted keys
(equal to RFC 8785 for our shapes), so that digests can be checked with any JSON program.
"""

from types import UnionType
from typing import Annotated, Any, Literal, TypeAliasType

import msgspec
from msgspec import Meta, Struct

from schemas.access import AccessAction
from schemas.alarm import AlarmAction, AlarmFact
from schemas.billing import BillingAction, BillingFact
from schemas.compute import ComputeAction, ComputeFact
from schemas.engine import EngineAction, EngineFact
from schemas.host import HostAction, HostFact
from schemas.identity import IdentityAction, IdentityFact
from schemas.ids import FreeId, GivenHostId, Id, RequestId
from schemas.image import ImageAction, ImageFact
from schemas.metering import MeterAction, MeterFact
from schemas.network import NetworkAction, NetworkFact
from schemas.operation import OperationAction, OperationFact
from schemas.policy import PolicyAction, PolicyFact
from schemas.quota import QuotaAction, QuotaFact
from schemas.samples import SamplesAction, SamplesFact
from schemas.trace import TraceParent, TraceState
from schemas.units import Micros, Ordinal
from schemas.webhook import WebhookAction, WebhookFact

type Action = (
    IdentityAction
    | ComputeAction
    | ImageAction
    | NetworkAction
    | HostAction
    | OperationAction
    | BillingAction
    | QuotaAction
    | EngineAction
    | PolicyAction
    | AccessAction
    | WebhookAction
    | MeterAction
    | AlarmAction
    | SamplesAction
)
type Fact = (
    IdentityFact
    | ComputeFact
    | ImageFact
    | NetworkFact
    | HostFact
    | OperationFact
    | BillingFact
    | QuotaFact
    | EngineFact
    | PolicyFact
    | WebhookFact
    | MeterFact
    | AlarmFact
    | SamplesFact
)


class Actor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks. For an agent, ``host_id`` is taken from its subject, never from a body.

    An edge asks in its own name (``user_id`` is its node's) only for whom nobody knows yet.

    A user's token has the scope of a project, of a domain, of the system, or none. It may have been
    given for an application credential or a trust, which then bound its roles.
    """

    kind: Literal["user", "agent", "system", "edge"]
    user_id: str = ""
    project_id: str = ""
    domain_id: str = ""  # of the scope, not the user's own
    system: bool = False
    application_credential_id: str = ""
    trust_id: str = ""
    roles: tuple[str, ...] = ()
    audit_id: Annotated[str, Meta(max_length=64)] = ""  # the token's, never the token
    issued_at: Micros = 0  # the token's
    host_id: GivenHostId | None = None

    @property
    def scope(self) -> Literal["system", "domain", "project", ""]:
        """What the token is for; "" if nothing in particular."""
        if self.system:
            return "system"
        if self.project_id:
            return "project"
        return "domain" if self.domain_id else ""


class Client(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the request came from, by which API, and in which trace (see ``schemas.trace``)."""

    address: Annotated[str, Meta(max_length=64)] = ""
    agent: Annotated[str, Meta(max_length=255)] = ""
    api: Annotated[str, Meta(max_length=32)] = ""  # compute, image, …, native
    version: Annotated[str, Meta(max_length=32)] = ""
    edge: Annotated[str, Meta(max_length=64)] = ""
    trace: TraceParent = ""  # W3C traceparent; its span is this request
    trace_state: TraceState = ""  # W3C tracestate, as it came


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wish, as it was made. ``key`` and ``digest`` make a repetition harmless."""

    request_id: Id  # "req-" and a UUID
    actor: Actor
    action: Action
    submitted_at: Micros
    client: Client = Client()
    key: FreeId | None = None
    # SHA-256 (hex) of what was asked: the body under ``key``; without one the engine's own, over
    # the action and on whose behalf it is.
    digest: Annotated[str, Meta(max_length=64)] = ""
    cause: str = ""  # the request that led to this one


class Accepted(Struct, frozen=True, kw_only=True, tag="accepted", tag_field="verdict"):
    """The facts beside this verdict hold. ``reply`` is what the asker is told (ids).

    ``rule`` is the entry of the policy that allowed it, as ``ACTION: ENTRY``.
    """

    reply: dict[str, Any] = {}
    rule: str = ""


class Refused(Struct, frozen=True, kw_only=True, tag="refused", tag_field="verdict"):
    """Nothing changed. See ``schemas.errors`` for the codes.

    ``rule`` is the entry of the policy that would have allowed it, or the entries that all do not.
    """

    code: str
    status: int
    reason: str
    hint: str = ""
    fields: dict[str, str | int] = {}
    rule: str = ""


type Verdict = Accepted | Refused


class Record(Struct, frozen=True, kw_only=True):
    """One request, what was decided, and what follows from it. ``salt`` hides it in proofs."""

    salt: str
    request: Request
    verdict: Accepted | Refused
    facts: tuple[Fact, ...] = ()


class Commit(Struct, frozen=True, kw_only=True):
    """One turn of the decider: one message, one fsync.

    ``first`` is the ordinal of the first request; ``prev`` and ``hash`` are the chain (hex
    SHA-256); ``at`` is the engine's clock and never decreases.
    """

    commit: str
    first: Ordinal
    prev: str
    hash: str
    epoch: int
    at: Micros
    records: tuple[Record, ...]


class Outcome(Struct, frozen=True, kw_only=True):
    """What the engine answers to a submitted request, after the durable ack.

    ``ordinal`` is the last one of its record: a reader that has reached it sees everything.
    ``repeated`` says that an earlier request with the same key is answered once more; ``recorded``
    that the request has a record in the log, where it or that earlier one is found.
    """

    request_id: RequestId
    ordinal: Ordinal
    verdict: Accepted | Refused
    repeated: bool = False
    recorded: bool = True


encoder = msgspec.json.Encoder(order="sorted")
encode = encoder.encode
decode_request = msgspec.json.Decoder(Request).decode
decode_commit = msgspec.json.Decoder(Commit).decode
decode_outcome = msgspec.json.Decoder(Outcome).decode
decode_action = msgspec.json.Decoder(Action).decode


def fact_types() -> dict[str, type[Struct]]:
    """Return every fact type by its tag."""
    return {str(t.__struct_config__.tag): t for t in members(Fact)}


def action_types() -> dict[str, type[Struct]]:
    """Return every action type by its name."""
    return {str(t.__struct_config__.tag): t for t in members(Action)}


def members(union: Any) -> list[type[Struct]]:
    """Return the types of a union of unions, in order."""
    if isinstance(union, TypeAliasType):
        return members(union.__value__)
    if isinstance(union, UnionType):
        return [member for part in union.__args__ for member in members(part)]
    return [union]
