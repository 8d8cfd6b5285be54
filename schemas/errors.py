"""Why a request is refused.

A refusal is an answer, not an accident: it is recorded with its code, and no fact follows. The code
never changes its meaning; ``status`` is the HTTP status its service's clients expect; ``hint`` says
what to do next. The API renders each in the shape of the service asked.
"""

from typing import ClassVar


class Rejected(Exception):
    """The request was understood and refused. ``fields`` hold what a program may want to read."""

    code: ClassVar[str] = "Rejected"
    status: ClassVar[int] = 400
    hint: ClassVar[str] = ""

    def __init__(self, reason: str, /, **fields: str | int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fields: dict[str, str | int] = fields


class InvalidInput(Rejected):
    """A value is malformed or out of range."""

    code = "InvalidInput"
    status = 400
    hint = "Correct the value named in the message and send the request again."


class UnknownReference(InvalidInput):
    """The body names something that is not there, or not the caller's."""

    code = "UnknownReference"
    hint = "List what exists, and use an id from that list."


class NotFound(Rejected):
    """There is no such thing, or the caller may not know of it."""

    code = "NotFound"
    status = 404
    hint = "List what exists, and use an id from that list."


class Forbidden(Rejected):
    """The caller's roles do not allow the action."""

    code = "Forbidden"
    status = 403
    hint = "Ask an administrator for the role named in the message."


class Unauthorized(Rejected):
    """The actor is gone, disabled, or its token was revoked."""

    code = "Unauthorized"
    status = 401
    hint = "Get a new token."


class Conflict(Rejected):
    """The state of something else stands in the way."""

    code = "Conflict"
    status = 409
    hint = "Read the state, resolve what the message names, and try again."


class Duplicate(Conflict):
    """The name or id is taken."""

    code = "Duplicate"
    hint = "Choose another name."


class InUse(Conflict):
    """Something still uses it."""

    code = "InUse"
    hint = "Remove what uses it first."


class IncorrectServerState(Conflict):
    """The server's state does not allow the action."""

    code = "IncorrectServerState"
    hint = "Read the state with `cumulog server show`; try again once it has settled."


class IncorrectImageState(Conflict):
    """The image's state does not allow the action."""

    code = "IncorrectImageState"
    hint = "Read the state with `cumulog image show`."


class SubnetOverlap(InvalidInput):
    """The range overlaps with another subnet of the network (Neutron answers 400)."""

    code = "SubnetOverlap"
    hint = "Choose a range that is free on this network."


class AddressInUse(Conflict):
    """The address belongs to another port."""

    code = "AddressInUse"
    hint = "Choose another address, or none to be given one."


class NoAddressLeft(Conflict):
    """The subnet's allocation pools are used up."""

    code = "NoAddressLeft"
    hint = "Delete ports that are no longer needed, or add a subnet."


class QuotaExceeded(Rejected):
    """A limit of the project or the user stands in the way (Nova answers 403).

    ``resource`` names the quota; ``used`` is held, ``asked`` would come, ``limit`` is allowed.
    """

    code = "QuotaExceeded"
    status = 403
    hint = "Delete what is no longer needed, or ask an administrator for a higher quota."


class OverQuota(QuotaExceeded):
    """The same, of a request to the network service (Neutron answers 409)."""

    code = "OverQuota"
    status = 409


class ContentQuotaExceeded(QuotaExceeded):
    """The same, of a request to the image service (Glance answers 413)."""

    code = "ContentQuotaExceeded"
    status = 413


class LimitBelowUse(InvalidInput):
    """A limit was to be no lower than what is used, and would be."""

    code = "LimitBelowUse"
    hint = "Choose a higher limit, or force it: what is held stays."


class ClockAhead(Rejected):
    """A time that is claimed lies in the future of the log."""

    code = "ClockAhead"
    status = 400
    hint = "Set the clock of the machine that sent this, and have it kept by NTP."


class TooOld(Rejected):
    """The request was submitted so long ago that nobody knows if it is a repetition."""

    code = "TooOld"
    status = 400
    hint = "Look at what is there, then ask anew; if it keeps happening, set the edge's clock."


class IdReused(Conflict):
    """The id of one request came with the content of another: something is broken, or forged."""

    code = "IdReused"
    hint = "Tell the operator: `cumulog audit show` has both requests."


class KeyReused(Conflict):
    """The idempotency key was used with another body."""

    code = "KeyReused"
    hint = "Use a new Idempotency-Key for a new request."


class Unavailable(Rejected):
    """The engine cannot answer now: it is starting, full, or not the leader."""

    code = "Unavailable"
    status = 503
    hint = "Try again in a second."
