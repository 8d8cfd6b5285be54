"""One HTTP request and its answer, as handlers see them.

Invariant: an answer is bytes and headers, ready to be sent; nothing above this layer knows ASGI. A
body is never held beyond the limit its route sets.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
import uuid_utils

from api.errors import (
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    UnsupportedMediaType,
    UriTooLong,
    decoding_reason,
)
from api.forwarded import Origin, base
from engine.domain.context import Reach
from engine.policy import explained
from schemas.envelope import Client, Outcome
from schemas.errors import Forbidden, InvalidInput
from schemas.trace import begun, continued, state

if TYPE_CHECKING:
    from api.auth import Principal
    from api.edge import Edge
    from api.past import Then
    from api.routing import Route

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type Header = tuple[bytes, bytes]
type Version = tuple[int, int]

IDLE_S = 60.0  # how long a client may pause within a body
BODY_S = 120.0  # how long all of a body may take that is read as one

JSON: bytes = b"application/json"
encode = msgspec.json.Encoder().encode

# Headers that may come once only: of two, those in front of us could have read the other one.
_SINGLE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"x-auth-token"}
)

AS_OF, AS_OF_HEADER = "as_of", b"x-cumulog-as-of"
_NOWHERE = Reach(rule="")

# Public routes have no principal; every other has one before its handler runs.
_NOBODY: Any = None


class Answer:
    """What is sent back. ``stream`` replaces ``body`` where it is long or never ends."""

    __slots__ = ("body", "content_type", "headers", "status", "stream")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: bytes = JSON,
        headers: Sequence[Header] = (),
        stream: AsyncGenerator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.stream = stream


def json_answer(value: object, status: int = 200, *, headers: Sequence[Header] = ()) -> Answer:
    """Return an answer whose body is ``value`` as JSON."""
    return Answer(status, encode(value), headers=headers)


class Call:
    """One request as it came in, and what became known about it on the way."""

    __slots__ = (
        "_allowed",
        "_gone",
        "_headers",
        "_origin",
        "_query",
        "_scope",
        "_trace",
        "api",
        "args",
        "as_of",
        "awaited",
        "cause",
        "consumed",
        "digest",
        "dry_run",
        "earlier",
        "edge",
        "key",
        "method",
        "microversion",
        "ordinal",
        "path",
        "position",
        "principal",
        "raw",
        "reach",
        "reason",
        "receive",
        "repeated",
        "request_id",
        "route",
        "rule",
        "then",
        "version",
    )

    def __init__(self, edge: "Edge", api: str, scope: Scope, receive: Receive) -> None:
        self.edge = edge
        self.api = api
        self.method: str = scope["method"]
        raw = scope.get("raw_path")
        self.path: str = raw.decode("latin-1") if raw else scope["path"]
        self.request_id = f"req-{uuid_utils.uuid7()}"
        self.args: tuple[str, ...] = ()
        self.position = 0  # of the read model when the request was authenticated
        self.as_of = ""  # the moment that is asked about; "": the present
        self.then: Then | None = None  # what was so at that moment
        self.awaited = 0  # ordinal that the read model had not reached in time
        self.raw = b""  # the body, once it was read whole
        self.ordinal = 0  # of the request's record in the log; 0: it has none
        self.key = ""  # under which a repetition is known for one
        self.digest = ""  # of what is asked for under it
        self.earlier: Outcome | None = None  # what the key stands for, if it was used before
        self.repeated = False  # whether that is an earlier request's, with the same key
        self.reason = ""  # why nobody was let in
        self.cause = ""  # the request that led to this one
        self.version = ""  # the microversion, written out; "" where there is none
        self.dry_run = False
        self.consumed = False  # whether the body was read to its end
        self.receive = receive
        self.principal: Principal = _NOBODY
        self.microversion: Version = (0, 0)  # it is answered in; (0, 0): the service has none
        self.rule = ""  # of the policy, that let it pass or did not
        self.reach: Reach = _NOWHERE  # how far, with what the policy was asked for last
        self.route: Route | None = None  # None: the path or the method is unknown
        self._allowed = ""  # what the policy was asked for last, and allowed
        self._scope = scope
        self._headers: dict[bytes, bytes] | None = None
        self._origin: Origin | None = None
        self._gone: asyncio.Task[None] | None = None
        self._query: list[tuple[str, str]] | None = None
        self._trace = ""

    def allow(self, action: str) -> Reach:
        """Return how far the caller may go with what the policy calls ``action``.

        A route that declares one action has asked for it before its handler runs.

        Raises:
            Forbidden: not at all; the message says whom it is for.
        """
        if action == self._allowed:
            return self.reach
        then, edge, principal = self.then, self.edge, self.principal
        policy = (edge if then is None else then.now).policy()
        reach = policy.reach(action, principal.scope, principal.role_set)
        if reach is None:
            edge.decisions["deny"] += 1
            self.rule = policy.refusing(action)
            raise Forbidden(explained(policy, action), action=action, rule=self.rule)
        if then is not None:
            reach = then.narrowed(self, action, reach)
            if reach is None:
                reason = f"you may now, but might not then: {explained(then.past.policy(), action)}"
                raise Forbidden(reason, action=action)
        self.edge.decisions["allow"] += 1
        self.rule, self.reach, self._allowed = reach.rule, reach, action
        return reach

    def need_again(self) -> None:
        """Have the policy asked anew: what it is asked about is another now."""
        self._allowed = ""

    def need_still(self) -> None:
        """Ask again for what was allowed last: rules and roles may be others by now.

        Raises:
            Forbidden: it is not allowed any more, or does not reach the same.
        """
        action, reach = self._allowed, self.reach
        self._allowed = ""
        if self.allow(action) != reach:
            raise Forbidden("what may be read has changed; ask anew")

    def may(self, action: str) -> bool:
        """Return whether the policy lets the caller do what it calls ``action``, in any reach."""
        return self.reach_of(action) is not None

    def reach_of(self, action: str) -> Reach | None:
        """Return how far the caller may go with what the policy calls ``action``; None: not at all.

        It is not thereby decided that this call may do it: see ``allow``.
        """
        then, principal = self.then, self.principal
        policy = (self.edge if then is None else then.now).policy()
        reach = policy.reach(action, principal.scope, principal.role_set)
        if reach is None or then is None:
            return reach
        return then.narrowed(self, action, reach)

    @property
    def sight(self) -> str | None:
        """The project whose things the caller may do this with; None: any project's.

        Where it reaches no project's, that is one which nothing belongs to.
        """
        reach = self.reach
        if reach.any:
            return None
        return self.principal.project_id if reach.project else ""

    def header(self, name: bytes) -> str:
        """Return a header's value, "" if it was not sent. ``name`` is in lower case."""
        headers = self._headers
        if headers is None:
            headers = self._headers = dict(self._scope["headers"])
        return headers.get(name, b"").decode("latin-1")

    def headers(self, name: bytes) -> list[str]:
        """Return all values of a header that may be sent more than once."""
        return [v.decode("latin-1") for k, v in self._scope["headers"] if k == name]

    @property
    def trace(self) -> str:
        """The ``traceparent`` of this request: of the trace that it came with, or of a new one."""
        if not self._trace:
            sent = self.header(b"traceparent") and self.headers(b"traceparent")
            self._trace = (sent and continued(sent, self.request_id)) or begun(self.request_id)
        return self._trace

    @property
    def trace_state(self) -> str:
        """The ``tracestate`` that came with the trace; worth nothing without one."""
        sent = self.header(b"tracestate") and self.headers(b"traceparent")
        if not sent or not continued(sent, self.request_id):
            return ""
        return state(self.headers(b"tracestate"))

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs in the order they came, blank values kept.

        Raises:
            InvalidInput: there are more than a thousand.
        """
        if self._query is None:
            raw = self._scope["query_string"]
            try:
                self._query = (
                    parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=1000)
                    if raw
                    else []
                )
            except ValueError as error:
                raise InvalidInput(f"the query cannot be read: {error}") from error
            if self.as_of:  # no filter of any list
                self._query = [pair for pair in self._query if pair[0] != AS_OF]
        return self._query

    @property
    def query_string(self) -> str:
        """The query as it was sent."""
        raw: bytes = self._scope["query_string"]
        return raw.decode("latin-1")

    def param(self, name: str, default: str = "") -> str:
        """Return the last value of a query parameter."""
        value = default
        for key, item in self.query:
            if key == name:
                value = item
        return value

    def params(self, name: str) -> list[str]:
        """Return all values of a query parameter."""
        return [item for key, item in self.query if key == name]

    def check_head(self) -> None:
        """Check what the HTTP server lets pass.

        Raises:
            UriTooLong: path and query are longer than they may be.
            InvalidInput: the host is missing, or a header comes twice that may come once.
        """
        scope = self._scope
        limit = self.edge.config.url_bytes_max
        if len(self.path) + len(scope["query_string"]) > limit:
            raise UriTooLong(f"path and query may have at most {limit} bytes", limit=limit)
        sent = scope["headers"]
        headers = self._headers = dict(sent)
        if len(headers) != len(sent):
            names = [name for name, _ in sent]
            for name in _SINGLE.intersection(headers):
                if names.count(name) > 1:
                    raise InvalidInput(f"the header {name.decode()} may come once only")
        if not headers.get(b"host") and scope["http_version"] != "1":
            raise InvalidInput("the request names no host")
        if b"x-cumulog-as-of" in headers or b"as_of" in scope["query_string"]:
            self._read_as_of()

    def _read_as_of(self) -> None:
        """Take up which moment is asked about.

        Raises:
            InvalidInput: several are named, or none is.
        """
        asked = {*self.params(AS_OF), *self.headers(AS_OF_HEADER)}
        if len(asked) > 1 or "" in asked:
            raise InvalidInput("name one moment (as_of): an ordinal, or a time of ISO 8601")
        if asked:
            self.as_of = asked.pop()
            self._query = None

    @property
    def origin(self) -> Origin:
        """Who sent the request, as far as proxies that are trusted say."""
        if self._origin is None:
            peer = self._scope.get("client")
            self._origin = self.edge.proxies.origin(
                peer[0] if peer else "", self.header(b"x-forwarded-for")
            )
        return self._origin

    @property
    def base(self) -> str:
        """What links begin with, as the client reached us: ``http://host:port``."""
        config = self.edge.config
        if config.public_url:
            return config.public_url.rstrip("/")
        scheme, host, prefix = self._scope["scheme"], self.header(b"host"), ""
        if self.origin.trusted:
            # Each proxy on the way adds its own; the first saw what the client used.
            scheme = self._first(b"x-forwarded-proto").lower() or scheme
            host = self._first(b"x-forwarded-host") or host
            prefix = self._first(b"x-forwarded-prefix")
        return base(scheme, host, prefix) or f"{self._scope['scheme']}://{config.listen}"

    def _first(self, name: bytes) -> str:
        return self.header(name).partition(",")[0].strip()

    @property
    def caller(self) -> "Principal | None":
        """Who calls; None on a public route, and where nobody was let in."""
        return self.principal

    @property
    def address(self) -> str:
        """The address that the request came from."""
        return self.origin.address

    @property
    def agent(self) -> str:
        """What the client says it is, cut short."""
        return self.header(b"user-agent")[:255]

    @property
    def client(self) -> Client:
        """Where the request came from, for the log."""
        return Client(
            address=self.address,
            agent=self.agent,
            api=self.api,
            version=self.version,
            edge=self.edge.config.node,
            trace=self.trace,
            trace_state=self.trace_state,
        )

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """Yield the body piece by piece.

        Raises:
            BodyTooLarge: it is longer than ``limit`` bytes; the rest is not read.
            BodyTooSlow: nothing of it came for too long.
            ClientGone: the client went away before its end.
        """
        announced = self.header(b"content-length")
        if announced and (not announced.isdecimal() or int(announced) > limit):
            raise BodyTooLarge(f"the body may have at most {limit} bytes", limit=limit)
        size = 0
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await self.receive()
            except TimeoutError as error:
                raise BodyTooSlow(f"nothing of the body came for {IDLE_S:.0f} s") from error
            if message["type"] == "http.disconnect":
                raise ClientGone("the body broke off before its end")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"the body may have at most {limit} bytes", limit=limit)
            if chunk:
                yield chunk
            if not message.get("more_body", False):
                self.consumed = True
                return

    async def drain(self, limit: int, timeout_s: float) -> None:
        """Read and drop what is left of the body, up to ``limit`` bytes and for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while limit > 0 and not self.consumed:
                    message = await self.receive()
                    limit -= len(message.get("body", b""))
                    self.consumed = not message.get("more_body", False)

    def gone(self) -> asyncio.Task[None]:
        """Return what is done once the client has gone away; whoever sends the answer ends it.

        There is one for all: of two who listen, the HTTP server tells the second at once.
        """
        if self._gone is None:
            self._gone = asyncio.create_task(self._until_gone())
        return self._gone

    async def _until_gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def body(self) -> bytes:
        """Return the whole body, read once; bounded by the configured limit, and in time.

        Raises:
            BodyTooSlow: it came in dribs and drabs for too long.
        """
        if self.consumed:
            return self.raw
        parts: list[bytes] = []
        deadline = monotonic() + BODY_S
        async for chunk in self.chunks(self.edge.config.body_bytes_max):
            parts.append(chunk)
            if len(parts) > 1 and monotonic() > deadline:
                raise BodyTooSlow(f"the body took longer than {BODY_S:.0f} s")
        self.raw = parts[0] if len(parts) == 1 else b"".join(parts)
        return self.raw

    async def decode[T](self, decoder: msgspec.json.Decoder[T], what: str = "the body") -> T:
        """Return the JSON body as the decoder's type.

        Raises:
            UnsupportedMediaType: the body is said to be something else.
            InvalidInput: it is not JSON, or not of this shape; the reason names the place.
        """
        assert self.route is None or decoder is self.route.body, "a body that was not declared"
        kind = self.header(b"content-type")
        if kind and not kind.lower().startswith("application/json"):
            raise UnsupportedMediaType(f"a JSON body is needed, not {kind[:100]}")
        return decode_body(await self.body(), decoder, what)


def decode_body[T](body: bytes, decoder: msgspec.json.Decoder[T], what: str = "the body") -> T:
    """Return ``body`` decoded.

    Raises:
        InvalidInput: it is not JSON, or not of this shape.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{what} {decoding_reason(error)}") from error
