"""W3C Trace Context: which trace a request belongs to, from a client's call to a host's report.

A ``traceparent`` names a trace (16 bytes) and one span of it (8 bytes). Invariant: each request is
one span, named by its own id: the last half of its UUID; and a request that comes with no trace
begins the one whose name is its whole UUID. So nothing has to be drawn, and whoever knows the one
knows the other. What is malformed is as if it had not been sent, as the specification asks.
See https://www.w3.org/TR/trace-context/.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

type TraceParent = Annotated[str, Meta(max_length=55)]
type TraceState = Annotated[str, Meta(max_length=512)]

STATE_CHARS_MAX = 512
STATE_MEMBERS_MAX = 32
# Later versions may append to this, and only after a dash.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_KEY = r"[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13}"
# Printable but for comma and equals sign, up to 256, the last no blank.
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"({_KEY})=({_VALUE})")
_KNOWN_FLAGS = 0b11  # sampled; and that the trace's id is random
_NEW_FLAGS = "01"
_UUID_HEX = re.compile(r"[0-9a-f]{32}\Z")


def begun(request_id: str) -> str:
    """Return the ``traceparent`` of a request that came with none."""
    name = _hex(request_id)
    return f"00-{name}-{name[16:]}-{_NEW_FLAGS}"


def continued(parents: Sequence[str], request_id: str) -> str:
    """Return the ``traceparent`` of a request that came with these, and "" if they are no good.

    There must be exactly one, of a version that can be read, with no id of zeros.
    """
    found = _PARENT.match(parents[0]) if len(parents) == 1 else None
    if found is None:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return ""
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return ""
    return f"00-{trace_id}-{_hex(request_id)[16:]}-{int(flags, 16) & _KNOWN_FLAGS:02x}"


def child(traceparent: str, request_id: str) -> str:
    """Return the ``traceparent`` of a request that follows from another; "" if that has none."""
    if not traceparent:
        return ""
    return f"{traceparent[:36]}{_hex(request_id)[16:]}{traceparent[52:]}"


def trace_id(traceparent: str) -> str:
    """Return the name of the trace, 32 hexadecimal digits; "" if there is none."""
    return traceparent[3:35]


def state(headers: Sequence[str]) -> str:
    """Return ``tracestate`` as it is passed on; "" if it is malformed or too long."""
    members: list[str] = []
    keys: set[str] = set()
    for part in ",".join(headers).split(","):
        member = part.strip(" \t")
        if not member:
            continue  # allowed, and worth nothing
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in keys:
            return ""
        keys.add(found[1])
        members.append(member)
    text = ",".join(members)
    return text if len(members) <= STATE_MEMBERS_MAX and len(text) <= STATE_CHARS_MAX else ""


def _hex(request_id: str) -> str:
    """Return 32 hexadecimal digits that stand for a request, those of its UUID if it has one."""
    text = request_id.removeprefix("req-").replace("-", "")
    if _UUID_HEX.match(text) and text[16:].strip("0"):
        return text
    return hashlib.sha256(request_id.encode()).hexdigest()[:32]
