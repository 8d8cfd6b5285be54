"""Pages of other origins: which of them a browser lets read our answers.

Invariant: an origin is named to the browser only if the configuration lists it, and never with
credentials: a caller is who its token says, which a page has to send itself. A preflight is
answered without a token, since a browser sends none.
"""

import re
from collections.abc import Iterable

from api.exchange import Header, Send

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
SENT = (
    b"accept, content-type, idempotency-key, if-match, if-none-match, last-event-id,"
    b" openstack-api-version, range, traceparent, tracestate, x-auth-token, x-cumulog-as-of,"
    b" x-cumulog-dry-run, x-cumulog-min-ordinal, x-openstack-nova-api-version,"
    b" x-openstack-request-id, x-subject-token"
)
SHOWN = (
    b"content-range, etag, link, location, openstack-api-version, retry-after, traceparent,"
    b" x-cumulog-awaited, x-cumulog-ordinal, x-openstack-request-id, x-subject-token"
)
AGE_S = 600
_ORIGIN = re.compile(
    r"https?://[a-z0-9.-]+(:[0-9]{1,5})?\Z|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?\Z"
)
_VARY: Header = (b"vary", b"origin")


class BadOrigins(Exception):
    """An allowed origin is not written as browsers write it."""


class Cors:
    """The origins that may read answers."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """Take origins such as ``https://dashboard.example``; ``*`` is not one.

        Raises:
            BadOrigins: one is none.
        """
        self._allowed = frozenset(origin.encode() for origin in allowed)
        for origin in allowed:
            if not _ORIGIN.match(origin):
                raise BadOrigins(
                    f"cors_origins: {origin!r} is no origin (scheme://host[:port], in lower case)"
                )

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def preflight(self, method: str, sent: Iterable[Header]) -> list[Header] | None:
        """Return the headers that answer a preflight; None if this is none, or not allowed."""
        if method != "OPTIONS":
            return None
        headers = dict(sent)
        origin = headers.get(b"origin", b"")
        if b"access-control-request-method" not in headers or origin not in self._allowed:
            return None
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", SENT),
            (b"access-control-max-age", b"%d" % AGE_S),
            (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
        ]

    def telling(self, sent: Iterable[Header], send: Send) -> Send:
        """Return a ``send`` that tells the browser whether the page may read the answer."""
        origin = next((value for name, value in sent if name == b"origin"), b"")
        if origin in self._allowed:
            added = [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", SHOWN),
                _VARY,
            ]
        else:
            added = [_VARY]  # What is kept for one origin must not be shown to another.

        async def tell(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                assert isinstance(headers, list), "answers have their headers in lists"
                message = message | {"headers": [*headers, *added]}
            await send(message)

        return tell
