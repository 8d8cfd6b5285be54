"""Any action, submitted as an event; and how operations stand."""

from typing import Any

import msgspec

from api.dry_run import try_out
from api.errors import denied
from api.exchange import Answer, Call, json_answer
from api.native.customers import need_known_zone
from api.pagination import flag, page_of
from api.routing import ANY_ACTION, Routes
from api.sealing_inbound import seal_action
from api.writing import send
from schemas.billing import CreateCustomer, UpdateCustomer
from schemas.envelope import Action, Refused, action_types, decode_action
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import RevokeToken

OPERATIONS_BY = ("resource_id", "project", "project_id", "request_id", "running", "limit", "marker")

READ = "log:events:read"

_object = msgspec.json.Decoder(dict[str, Any])


async def submit(call: Call) -> Answer:
    """POST /v1/actions: 202 if an operation follows, else 200. ``?dry_run=1`` changes nothing.

    ``cause`` names the request that led to this one, as one that is undone did.
    """
    call.dry_run = flag(call, "dry_run") or False
    action = await _action(call)
    call.cause = _cause(call)
    if call.dry_run:
        return await try_out(call, action)
    outcome = await send(call, action)
    verdict = outcome.verdict
    if isinstance(verdict, Refused):
        raise denied(outcome)
    body = {
        "request_id": outcome.request_id,
        "ordinal": outcome.ordinal,
        "verdict": "accepted",
        "reply": verdict.reply,
        "repeated": outcome.repeated,
    }
    return json_answer(body, 202 if "operation_id" in verdict.reply else 200)


async def _action(call: Call) -> Action:
    """Return the body as an action, its secrets sealed.

    Raises:
        InvalidInput: it is none, or has fields that its type does not know.
        Forbidden: it is one that only another call may make, or would end another user's token.
    """
    body = await call.decode(_object)
    kind = body.get("type")
    if not isinstance(kind, str) or kind not in action_types():
        raise InvalidInput("type must name an action; GET /openapi.json lists them")
    _need_call(call, kind, body)
    sealed = await seal_action(call.edge, call.principal.project, body)
    try:
        action: Action = decode_action(msgspec.json.encode(sealed))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the action is not as expected: {error}") from error
    unknown = sorted(unknown_keys(sealed, action))
    if unknown:
        raise InvalidInput(f"{kind} has no {', '.join(unknown)[:200]}")
    if isinstance(action, CreateCustomer | UpdateCustomer):
        need_known_zone(action)
    if isinstance(action, RevokeToken) and not call.allow("RevokeToken").any:
        token = call.principal.token
        if (action.audit_id, action.expires_at) != (token.audit_id, token.expires_at):
            raise Forbidden("another token is ended by its holder, or by an administrator")
    return action


def _cause(call: Call) -> str:
    """Return the request that is named as the cause, "" if none is.

    Raises:
        InvalidInput: it is none whose record the caller may read.
    """
    named = call.param("cause")
    if not named:
        return ""
    reach = call.edge.policy().reach(READ, call.principal.scope, call.principal.role_set)
    project_id = None if reach is not None and reach.any else call.principal.project_id
    if reach is None or not call.edge.reader.was_asked(named, project_id=project_id):
        raise InvalidInput("cause names no request that you may see")
    return named


# A sealed value that somebody sends may be another's, and would be opened for them.
_WITH_SECRETS = {
    "CreateApplicationCredential": "POST /identity/v3/users/{id}/application_credentials",
    "CreateCredential": "POST /identity/v3/credentials",
    "UpdateCredential": "PATCH /identity/v3/credentials/{id}",
}


def _need_call(call: Call, kind: str, body: dict[str, Any]) -> None:
    """Refuse actions whose claims only this edge can make, after checks of its own.

    Raises:
        Forbidden: the message names the call to use instead.
    """
    if kind == "RefuseRequest":
        raise Forbidden("what an edge refuses, it records by itself")
    if kind == "IssueInvoice":
        raise Forbidden(
            "an invoice is issued with POST /v1/invoices/{id}/issue, which derives its month anew"
        )
    if kind == "CreateWebhook":
        raise Forbidden("a webhook is made with POST /v1/webhooks, which looks where it leads")
    if kind == "UpdateWebhook" and (body.get("url") or body.get("secret")):
        raise Forbidden("a webhook's url and secret are changed with PATCH /v1/webhooks/{id}")
    if kind in _WITH_SECRETS and (body.get("blob") or body.get("secret")):
        raise Forbidden(f"what is secret in {kind} is sealed by {_WITH_SECRETS[kind]}")
    if kind == "UploadImage":
        raise Forbidden("an image's content is sent with PUT /image/v2/images/{id}/file")
    if kind == "UpdateUser" and body.get("password") is not None and _is_own(call, body):
        raise Forbidden(
            "a user changes its own password with POST /identity/v3/users/{id}/password, which "
            "asks for the old one"
        )
    password = body.get("password")
    if (password and isinstance(password, str)) or isinstance(body.get("oidc"), dict):
        call.allow(kind)  # before a secret costs a hash, and a key that is kept


def _is_own(call: Call, body: dict[str, Any]) -> bool:
    """Return whether the caller may change this user only as being it, if at all."""
    reach, caller = call.allow("UpdateUser"), call.principal
    if reach.any:
        return False
    own = body.get("user_id") == caller.user_id
    return not reach.domain or (own and caller.user.domain_id != caller.token.domain_id)


def unknown_keys(sent: object, understood: object, path: str = "") -> set[str]:
    """Return the paths of keys that were sent and not understood."""
    if isinstance(understood, msgspec.Struct):
        understood = _fields(understood)  # also those that say what is so without them
    if isinstance(sent, dict) and isinstance(understood, dict):
        missing = {f"{path}{k}" for k in sent.keys() - understood.keys()}
        for key in sent.keys() & understood.keys():
            missing |= unknown_keys(sent[key], understood[key], f"{path}{key}.")
        return missing
    if isinstance(sent, list) and isinstance(understood, list | tuple):
        found: set[str] = set()
        for at, (one, other) in enumerate(zip(sent, understood, strict=False)):
            found |= unknown_keys(one, other, f"{path}{at}.")
        return found
    return set()


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    config = value.__struct_config__
    names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    fields = {said: getattr(value, name) for said, name in names}
    return fields if config.tag_field is None else fields | {config.tag_field: config.tag}


def own_project(call: Call) -> str | None:
    """Return whose records are read: the caller's project's, or any for who may read all.

    Raises:
        Forbidden: the policy says no, or lets the caller read its own project's alone.
    """
    assert call.route is not None, "called by what answers a route"
    (action,) = call.route.actions
    reach = call.allow(action)
    asked = call.param("project") or call.param("project_id") or None
    if reach.any:
        return asked
    if not reach.project:
        raise Forbidden("this needs a token scoped to a project")
    project_id = call.principal.project_id
    if asked not in {None, project_id}:
        raise Forbidden("another project's records are not this project's to read")
    return project_id


async def show_operation(call: Call) -> Answer:
    """GET /v1/operations/{id}."""
    state = call.edge.reader.operation(call.args[0], project_id=own_project(call))
    if state is None:
        raise NotFound(f"there is no operation {call.args[0][:64]!r}")
    return json_answer(state)


async def list_operations(call: Call) -> Answer:
    """GET /v1/operations: newest first; ``next_marker`` is the next page's ``marker``."""
    page = page_of(call)
    states = call.edge.reader.operations(
        resource_id=call.param("resource_id") or None,
        project_id=own_project(call),
        request_id=call.param("request_id") or None,
        running=flag(call, "running"),
        marker=page.marker,
        limit=page.limit,
    )
    body: dict[str, Any] = {"operations": states}
    if states and len(states) == page.limit:
        body["next_marker"] = states[-1].operation.operation_id
    return json_answer(body)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    read = "log:operations:read"
    routes.add(
        "POST", "/v1/actions", submit, ANY_ACTION, body=_object, shape=Action, status=(200, 202),
        query=("dry_run", "cause"),
    )  # fmt: skip
    routes.add("GET", "/v1/operations", list_operations, read, query=OPERATIONS_BY)
    routes.add("GET", "/v1/operations/{}", show_operation, read)
