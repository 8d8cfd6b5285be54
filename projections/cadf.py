"""The audit log as CADF 1.0 (DMTF DSP0262): what each field is taken from.

====================  ==========================================================================
``id``                a UUID made of the request, and of whether it is still open
``eventTime``         when it ended: with its operation, if it began one, else when it was decided
``eventType``         ``control`` where the policy or a token forbade it, else ``activity``
``action``            of CADF's words, by the action's verb; ours after a slash
``outcome``           ``pending`` while its operation runs, then ``success`` or ``failure``
``initiator``         who asked: a user, by an opaque id; a host; the cloud itself
``target``            what it was about, of whichever kind
``observer``          the edge that took it
``reason``            the HTTP status, and the policy's entry that allowed or forbade it
``tags``              request, ordinal, cause, project, and how many were alike
``attachments``       SHA-256 of the request and verdict as they lie in the log
====================  ==========================================================================

Invariant: one request gives the same record whenever it is asked for, but for a first one while it
was ``pending``, which has an id of its own. No secret is in it, and no name of a person.
"""

import hashlib
import re
import uuid

from msgspec import Struct

from projections.answers import OperationState
from projections.asked import Asked
from projections.cloudevents import rfc3339

EVENT = "http://schemas.dmtf.org/cloud/audit/1.0/event"
UNKNOWN = "unknown"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cumulog:cadf")
_VERB = re.compile(r"[A-Z][a-z0-9]*")

# By the first word of an action. What is after the slash is ours.
ACTIONS = {
    "Add": "update/add",
    "Assign": "update/assign",
    "Bootstrap": "deploy/bootstrap",
    "Close": "configure/close",
    "Confirm": "update/confirm",
    "Correct": "update/correct",
    "Create": "create",
    "Define": "configure/define",
    "Delete": "delete",
    "Elect": "update/elect",
    "End": "delete/end",
    "Give": "disable/give_up",
    "Grant": "create/grant",
    "Imply": "create/imply",
    "Issue": "deploy/issue",
    "Mark": "update/mark",
    "Pass": "notify/deadline",
    "Publish": "deploy/publish",
    "Reboot": "start/reboot",
    "Redeliver": "send/redeliver",
    "Refuse": "deny",
    "Register": "enable/register",
    "Remove": "update/remove",
    "Rename": "update/rename",
    "Report": "notify/report",
    "Reset": "configure/reset",
    "Resize": "update/resize",
    "Revert": "update/revert",
    "Revoke": "revoke",
    "Roll": "update/roll",
    "Set": "configure",
    "Sign": "authenticate/login",
    "Start": "start",
    "Stop": "stop",
    "Update": "update",
    "Upload": "update/upload",
    "Use": "authenticate/use",
    "Void": "undeploy/void",
    "Withdraw": "undeploy/withdraw",
}
METHODS = {
    "GET": "read",
    "HEAD": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
}
KINDS = {
    "access_rule": "data/security/policy",
    "alarm": "service/oss",
    "application_credential": "data/security/credential",
    "billing": "service/bss",
    "budget": "service/bss",
    "credential": "data/security/credential",
    "customer": "service/bss",
    "domain": "data/security/domain",
    "endpoint": "data/security/endpoint",
    "flavor": "data/template",
    "group": "data/security/group",
    "host": "compute/node",
    "identity_provider": "data/security/identity",
    "image": "service/storage/image",
    "invoice": "service/bss",
    "keypair": "data/security/key",
    "leader": "service/oss",
    "log": "data/file/log",
    "mapping": "data/security/identity",
    "meter": "service/bss/metering",
    "network": "network",
    "password_policy": "data/security/policy",
    "period": "service/bss",
    "policy": "data/security/policy",
    "port": "network/connection",
    "price_list": "service/bss/metering",
    "project": "data/security/project",
    "quota": "data/config",
    "region": "data/security/region",
    "role": "data/security/role",
    "security_group": "data/security/policy",
    "server": "compute/machine",
    "service": "data/security/service",
    "subnet": "network",
    "system": "service/oss",
    "token": "data/security/credential",
    "trust": "data/security/trust",
    "user": "service/security/account/user",
    "webhook": "service/oss",
}
# What is about no resource is about a service: by the API that was asked.
SERVICES = {
    "compute": "service/compute",
    "identity": "service/security",
    "image": "service/storage/image",
    "network": "service/network",
}
OUTCOMES = {
    "running": "pending",
    "succeeded": "success",
    "failed": "failure",
    "cancelled": "failure",
    "timed_out": "failure",
}


class Host(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whence somebody asked."""

    address: str = ""
    agent: str = ""


class Resource(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who, on what, or seen by whom."""

    id: str
    typeURI: str  # noqa: N815  # CADF's name
    name: str = ""
    project_id: str = ""
    host: Host | None = None


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why it came out as it did."""

    reasonType: str = ""  # noqa: N815  # CADF's names
    reasonCode: str = ""  # noqa: N815
    policyType: str = ""  # noqa: N815
    policyId: str = ""  # noqa: N815


class Attachment(Struct, frozen=True, kw_only=True):
    """Something beside the record: here, a digest."""

    name: str
    typeURI: str  # noqa: N815  # CADF's name
    content: str


class CadfEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record: as JSON it is what CADF asks for."""

    typeURI: str  # noqa: N815  # CADF's names
    id: str
    eventType: str  # noqa: N815
    eventTime: str  # noqa: N815
    action: str
    outcome: str
    initiator: Resource
    target: Resource
    observer: Resource
    name: str
    reason: Reason | None = None
    tags: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def cadf_event(
    asked: Asked, cell: str, *, recorded: bytes = b"", operation: OperationState | None = None
) -> CadfEvent:
    """Return a request as a CADF record.

    Args:
        asked: the request, of the log or of ACCESS.
        cell: whose request it is; ids are unique together with it.
        recorded: the request and its verdict as they lie in the log, if they do.
        operation: what it began, if it did, and how that stands.
    """
    outcome = "failure" if asked.outcome == "refused" else "success"
    ended_at = asked.at
    if outcome == "success" and operation is not None:
        outcome, ended_at = OUTCOMES[operation.status], operation.ended_at or asked.at
    stands = "open" if outcome == "pending" else "ended"
    name = f"{cell}/{asked.source}/{asked.edge}/{asked.request_id}/{asked.ordinal}/{asked.at}"
    forbidden = asked.status in {401, 403} or asked.code == "Forbidden"
    return CadfEvent(
        typeURI=EVENT,
        id=str(uuid.uuid5(_NAMESPACE, f"{name}/{stands}")),
        eventType="control" if forbidden else "activity",
        eventTime=rfc3339(ended_at),
        action=action_of(asked),
        outcome=outcome,
        initiator=_initiator(asked, cell),
        target=_target(asked, cell),
        observer=Resource(
            id=str(uuid.uuid5(_NAMESPACE, f"{cell}/{asked.edge}")),
            typeURI=SERVICES.get(asked.api, "service/oss"),
            name=f"{cell}/{asked.edge}" if asked.edge else cell,
        ),
        name=asked.tag or f"{asked.method} {asked.route}".strip() or UNKNOWN,
        reason=_reason(asked, operation, forbidden=forbidden),
        tags=tuple(_tags(asked)),
        attachments=(_digest(recorded),) if recorded else (),
    )


def action_of(asked: Asked) -> str:
    """Return what was done, in CADF's words."""
    if asked.dry_run:
        return "evaluate"
    word = _VERB.match(asked.tag)
    if word is not None:
        return ACTIONS.get(word[0], UNKNOWN)
    if asked.method == "POST" and asked.route.endswith("/auth/tokens"):
        return "authenticate/login"
    if asked.tag and METHODS.get(asked.method, UNKNOWN) != "read" and asked.tag.endswith(":read"):
        return "read"  # asked for by POST, as a check is
    action = METHODS.get(asked.method, UNKNOWN)
    return "read/list" if action == "read" and asked.route and not asked.about else action


def _initiator(asked: Asked, cell: str) -> Resource:
    host = Host(address=asked.address, agent=asked.agent) if asked.address else None
    if asked.actor == "agent":
        return Resource(id=asked.host_id or UNKNOWN, typeURI="compute/node", host=host)
    if asked.actor in {"system", "edge"}:
        return Resource(id=asked.user_id or cell, typeURI="service/oss", host=host)
    return Resource(
        id=asked.user_id or UNKNOWN,
        typeURI="service/security/account/user" if asked.user_id else UNKNOWN,
        host=host,
    )


def _target(asked: Asked, cell: str) -> Resource:
    if asked.resource_id:
        kind = KINDS.get(asked.resource_kind, UNKNOWN)
        return Resource(id=asked.resource_id, typeURI=kind, project_id=asked.project_id)
    service = asked.tag.partition(":")[0] if ":" in asked.tag else asked.api
    kind = SERVICES.get(service, "service/oss")
    return Resource(id=cell, typeURI=kind, project_id=asked.project_id)


def _reason(asked: Asked, operation: OperationState | None, *, forbidden: bool) -> Reason | None:
    policy = {"policyType": "urn:cumulog:policy", "policyId": asked.rule} if asked.rule else {}
    if operation is not None and operation.cause:
        return Reason(reasonType="operation", reasonCode=operation.cause, **policy)
    if asked.status:
        return Reason(reasonType="HTTP", reasonCode=str(asked.status), **policy)
    if forbidden and not policy:
        return Reason(reasonType="HTTP", reasonCode="403")
    return Reason(**policy) if policy else None


def _tags(asked: Asked) -> list[str]:
    told = {
        "request": asked.request_id,
        "correlation": asked.cause or asked.request_id,
        "ordinal": str(asked.ordinal) if asked.ordinal else "",
        "project": asked.project_id,
        "code": asked.code,
        "alike": str(asked.count) if asked.count > 1 else "",
    }
    return [f"{name}?value={value}" for name, value in told.items() if value]


def _digest(body: bytes) -> Attachment:
    return Attachment(
        name="sha256 of request and verdict",
        typeURI="text/plain",
        content=hashlib.sha256(body).hexdigest(),
    )
