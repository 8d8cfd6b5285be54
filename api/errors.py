"""Refusals, rendered in the shape that each service's clients expect.

Invariant: every error names the request id, has one sentence saying what was wrong and, where there
is something to do about it, one saying what. Nothing about the inside (paths, stack, SQL) is told.
"""

from collections.abc import Callable
from http import HTTPStatus

import msgspec
from msgspec import Struct

from schemas.envelope import Outcome, Refused
from schemas.errors import InvalidInput, Rejected

encode = msgspec.json.Encoder().encode


class MethodNotAllowed(Rejected):
    """The path is known, the method is not."""

    code = "MethodNotAllowed"
    status = 405


class NotAcceptable(Rejected):
    """No version that was asked for is offered."""

    code = "NotAcceptable"
    status = 406
    hint = "Read the versions on offer from the service's root."


class BodyTooLarge(Rejected):
    """The body is over the limit."""

    code = "BodyTooLarge"
    status = 413
    hint = "Send less at once."


class BodyTooSlow(Rejected):
    """The body stopped coming."""

    code = "BodyTooSlow"
    status = 408


class TooManyStreams(Rejected):
    """The caller holds as many streams as one may."""

    code = "TooManyStreams"
    status = 429
    hint = "Close one that is open."


class TooManyRequests(Rejected):
    """The caller asks more often than it may. ``retry_after`` is in whole seconds."""

    code = "TooManyRequests"
    status = 429
    hint = "Wait as long as Retry-After says, then go on more slowly."


class UriTooLong(Rejected):
    """Path and query are over the limit."""

    code = "UriTooLong"
    status = 414
    hint = "Ask for less at once, or send it in a body."


class UnsupportedMediaType(Rejected):
    """The body's type is not one this call reads."""

    code = "UnsupportedMediaType"
    status = 415


class NotOffered(Rejected):
    """Part of the protocol that this cloud does not offer (yet)."""

    code = "NotOffered"
    status = 501


class ClientGone(Exception):
    """The client closed its connection; nobody is left to answer."""


class AnswerBroken(Exception):
    """An answer could not be sent, or not wholly, which the log tells under the request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


class Problem(Struct, frozen=True, kw_only=True):
    """Why a call failed, before it takes a service's shape."""

    status: int
    code: str
    reason: str
    hint: str = ""
    fields: dict[str, str | int] = {}

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def text(self, request_id: str) -> str:
        """Return reason, hint and request id as one message."""
        parts = [_sentence(self.reason)]
        if self.hint:
            parts.append(self.hint)
        return f"{' '.join(parts)} (request id {request_id})"


class Denied(Exception):
    """The engine refused; ``problem`` says why."""

    def __init__(self, verdict: Refused) -> None:
        super().__init__(verdict.reason)
        self.problem = Problem(
            status=verdict.status,
            code=verdict.code,
            reason=verdict.reason,
            hint=verdict.hint,
            fields=verdict.fields,
        )


def denied(outcome: Outcome) -> Denied:
    """Return what to raise for a refusal.

    One without an ordinal was not even read as a request: a value is not of its schema. Its reason
    then says where in the request; our clients know the action only.
    """
    verdict = outcome.verdict
    assert isinstance(verdict, Refused), "only a refusal is denied"
    if outcome.ordinal == 0:
        reason = verdict.reason.replace("`$.action", "`$").removesuffix(" - at `$`")
        verdict = msgspec.structs.replace(
            verdict, reason=f"a value is not as expected: {reason}", hint=InvalidInput.hint
        )
    return Denied(verdict)


def problem_of(error: Rejected) -> Problem:
    """Return what a refusal made at the edge says."""
    return Problem(
        status=error.status,
        code=error.code,
        reason=error.reason,
        hint=error.hint,
        fields=error.fields,
    )


def internal() -> Problem:
    """Return the problem of an error of ours; the log has the rest under the request id."""
    return Problem(
        status=500,
        code="InternalError",
        reason="Something went wrong on our side",
        hint="Try again; if it persists, tell the operator the request id.",
    )


def decoding_reason(error: Exception) -> str:
    """Return why JSON was not read, without quoting what was sent."""
    if isinstance(error, msgspec.ValidationError):
        return f"is not as expected: {error}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"is not JSON: {error}"


type Render = Callable[[Problem, str, str], bytes]  # what, request id, path


def render_identity(problem: Problem, request_id: str, _path: str) -> bytes:
    """Keystone's shape."""
    return encode(
        {
            "error": {
                "code": problem.status,
                "title": problem.title,
                "message": problem.text(request_id),
            }
        }
    )


_FAULTS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def render_compute(problem: Problem, request_id: str, _path: str) -> bytes:
    """Nova's shape: one key, chosen by status."""
    fault: dict[str, str | int] = {
        "code": problem.status,
        "message": problem.text(request_id),
    }
    if problem.status in {413, 429}:
        fault["retryAfter"] = problem.fields.get("retry_after", 0)
    return encode({_FAULTS.get(problem.status, "computeFault"): fault})


def render_image(problem: Problem, request_id: str, _path: str) -> bytes:
    """Glance's shape."""
    return encode(
        {
            "message": problem.text(request_id),
            "code": f"{problem.status} {problem.title}",
            "title": problem.title,
        }
    )


_NEUTRON_TYPES = {
    "NoRoute": "HTTPNotFound",
    "MethodNotAllowed": "HTTPMethodNotAllowed",
    "SubnetOverlap": "InvalidInput",
    "AddressInUse": "IpAddressInUse",
    "NoAddressLeft": "IpAddressGenerationFailure",
    "InternalError": "HTTPInternalServerError",
}


_NEUTRON_THINGS = {
    "networks": "Network",
    "subnets": "Subnet",
    "ports": "Port",
    "security-groups": "SecurityGroup",
    "security-group-rules": "SecurityGroupRule",
    "extensions": "Extension",
}


def render_network(problem: Problem, request_id: str, path: str) -> bytes:
    """Neutron's shape; 401 comes as the token middleware says it."""
    if problem.status == 401:
        return render_identity(problem, request_id, path)
    kind = _NEUTRON_TYPES.get(problem.code, problem.code)
    if problem.code in {"NotFound", "InUse"}:
        thing = next((t for c, t in _NEUTRON_THINGS.items() if f"/{c}" in path), "Resource")
        kind = thing + problem.code
    return encode(
        {"NeutronError": {"type": kind, "message": problem.text(request_id), "detail": ""}}
    )


def render_native(problem: Problem, request_id: str, _path: str) -> bytes:
    """A problem document (RFC 9457)."""
    return encode(
        {
            **problem.fields,
            "type": f"urn:cumulog:error:{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "code": problem.code,
            "detail": _sentence(problem.reason),
            "hint": problem.hint,
            "request_id": request_id,
        }
    )


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
