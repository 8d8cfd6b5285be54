"""What an edge's log says of requests: one line for each that changes something or fails.

Invariant: a line has ids, never what was sent. Neither query nor body nor headers are logged, so no
password or token can be; and whoever has no valid token writes no line above debug.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from schemas.trace import trace_id

if TYPE_CHECKING:
    from api.exchange import Call

READS = frozenset({"GET", "HEAD", "OPTIONS"})
PATH_CHARS_MAX = 200

log = structlog.get_logger(__name__)


def tell(
    call: "Call", status: int, seconds: float, *, code: str = "", error: Exception | None = None
) -> None:
    """Log an answered request.

    ``code`` says why it failed; ``error`` is what ended it, and is told with its stack if the
    fault is ours.
    """
    if status >= 500:
        stack = {"exc_info": error} if error is not None else {}
        log.error("request_failed", **_line(call, status, seconds, code), **stack)
    elif status == 401:
        log.debug("request_unauthorized", **_line(call, status, seconds, code))
    elif status >= 400:
        log.info("request_refused", **_line(call, status, seconds, code))
    elif call.method in READS:
        log.debug("request_read", **_line(call, status, seconds, code))
    else:
        log.info("request_done", **_line(call, status, seconds, code))


def _line(call: "Call", status: int, seconds: float, code: str) -> Mapping[str, object]:
    principal = call.principal
    line: dict[str, object] = {
        "request_id": call.request_id,
        "trace_id": trace_id(call.trace),
        "api": call.api,
        "method": call.method[:16],
        "path": call.path[:PATH_CHARS_MAX],
        "status": status,
        "ms": round(seconds * 1000, 3),
    }
    if code:
        line["code"] = code
    if call.rule:
        line["rule"] = call.rule
    if principal is not None:
        line["user_id"] = principal.user_id
        line["project_id"] = principal.project_id
    return line
