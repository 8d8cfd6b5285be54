"""Which handler answers which path, and the one way every request goes.

Paths are matched as they were sent: nothing is collapsed, redirected or completed, since clients
rely on ``/servers/`` not being ``/servers`` (an empty id is a 404). Invariant: every answer has a
request id and the read model's ordinal; every error has its service's shape; nothing an unexpected
error says leaves the process.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any, TypedDict, Unpack
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from api import past
from api.access_rules import permitted
from api.dry_run import Tried
from api.edge import Edge
from api.errors import (
    AnswerBroken,
    ClientGone,
    Denied,
    MethodNotAllowed,
    Problem,
    Render,
    internal,
    problem_of,
)
from api.exchange import Answer, Call, Header, Receive, Scope, Send, Version
from api.microversions import HIGHEST, LOWEST, Versions, parse, written
from api.refusals import record
from api.repetition import changed
from api.request_log import READS, tell
from engine.bus.client import BusError
from projections.answers import BadPattern, BadSort, MarkerNotFound
from schemas.envelope import action_types
from schemas.errors import Forbidden, Rejected, Unavailable
from schemas.identity import AccessRule

type Handler = Callable[[Call], Awaitable[Answer]]
type Decorate = Callable[[Call], list[Header]]

# Read and dropped before an early answer, so that a client which only writes gets to read it.
DRAIN_BYTES = 16 * 2**20
DRAIN_S = 5.0
CLOSE: Header = (b"connection", b"close")  # has a client go elsewhere; HTTP/2 has its own way
EVENTS = b"text/event-stream"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


PUBLIC = "public"  # as an action: anybody may, without a token
ANY_ACTION = "*"  # as an action: the one that the body names
JSON_TYPE = "application/json"
ENGINE_ACTIONS = frozenset({ANY_ACTION, *action_types()})


class Route(Struct, frozen=True, kw_only=True):
    """What answers one method of one path, and what is promised of it.

    Documents, validation and coverage are made from this; a handler reads no other body than the
    one declared here.
    """

    handler: Handler
    path: str  # below the service's prefix; "{}" stands for any one segment
    actions: tuple[str, ...]  # what the policy is asked for; any of them may be what is done
    body: msgspec.json.Decoder[Any] | None = None  # what reads the JSON body
    shape: Any = None  # the body's type for documents, where the decoder's says too little
    takes: tuple[str, ...] = (JSON_TYPE,)  # media types of the body
    gives: str = JSON_TYPE  # media type of a successful answer
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()  # that this call needs, beside those of its service
    status: tuple[int, ...] = (200,)  # of success; 501 where the call is known and not offered
    bare: tuple[int, ...] = ()  # of these statuses, beside 204, those that come without a body
    partly: bool = False  # 501 is answered to some requests
    present: bool = False  # tells of the present alone: it cannot be asked as of a moment
    first: Version = LOWEST  # microversions that have this route
    last: Version = HIGHEST
    older: "Route | None" = None  # the same path and method in earlier microversions

    @property
    def public(self) -> bool:
        """Whether it needs no token."""
        return PUBLIC in self.actions

    @property
    def mutates(self) -> bool:
        """Whether what it does is decided by the engine, and in the log."""
        return not ENGINE_ACTIONS.isdisjoint(self.actions)

    def at(self, version: Version) -> "Route | None":
        """Return what answers at a microversion; None if nothing does."""
        route: Route | None = self
        while route is not None and not route.first <= version <= route.last:
            route = route.older
        return route


class Declared(TypedDict, total=False):
    """What a route may say of itself beyond its action; see ``Route``."""

    body: msgspec.json.Decoder[Any] | None
    shape: Any
    takes: tuple[str, ...]
    gives: str
    query: tuple[str, ...]
    headers: tuple[str, ...]
    bare: tuple[int, ...]
    partly: bool
    present: bool


class Node:
    """One step of the path: known words, or anything."""

    __slots__ = ("any", "methods", "words")

    def __init__(self) -> None:
        self.words: dict[str, Node] = {}
        self.any: Node | None = None
        self.methods: dict[str, Route] = {}


class Routes:
    """The paths of one service, relative to its prefix."""

    def __init__(self) -> None:
        self._root = Node()

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        action: str | tuple[str, ...],
        *,
        status: int | tuple[int, ...] = 200,
        since: str = "",
        until: str = "",
        **declared: Unpack[Declared],
    ) -> None:
        """Let ``handler`` answer ``method`` on ``path``; ``{}`` stands for any one segment.

        ``action`` is what the policy calls it: an engine action's type, ``service:things:read``,
        or PUBLIC. A path may be answered by one route up to a microversion (``until``) and by
        another from the next one on (``since``), each with its own body and status.
        """
        node = self._root
        for word in path.split("/")[1:]:
            if word == "{}":
                node.any = node.any or Node()
                node = node.any
            else:
                node = node.words.setdefault(word, Node())
        first, last = parse(since) if since else LOWEST, parse(until) if until else HIGHEST
        assert first is not None, f"{since} is no version"
        assert last is not None, f"{until} is no version"
        older = node.methods.get(method)
        assert older is None or older.last < first, f"{method} {path} is routed twice"
        node.methods[method] = Route(
            handler=handler,
            path=path,
            actions=(action,) if isinstance(action, str) else action,
            status=(status,) if isinstance(status, int) else status,
            first=first,
            last=last,
            older=older,
            **declared,
        )

    def find(self, path: str) -> tuple[dict[str, Route], tuple[str, ...]] | None:
        """Return the methods of a path and what stood where it says ``{}``; None if unknown."""
        node = self._root
        args: tuple[str, ...] = ()
        head, *words = path.split("/")
        if head:
            return None  # its prefix was sent in another form than the one that is cut off
        for word in words:
            known = node.words.get(word)
            if known is not None:
                node = known
            elif node.any is not None and word:
                node = node.any
                args += (unquote(word),)
            else:
                return None
        return (node.methods, args) if node.methods else None

    def listing(self) -> list[tuple[str, str, Route]]:
        """Return every (method, path, route), newer microversions first."""

        def walk(node: Node, path: str) -> Iterator[tuple[str, str, Route]]:
            for method, newest in node.methods.items():
                route: Route | None = newest
                while route is not None:
                    yield method, path, route
                    route = route.older
            for word, below in node.words.items():
                yield from walk(below, f"{path}/{word}")
            if node.any is not None:
                yield from walk(node.any, f"{path}/{{}}")

        return list(walk(self._root, ""))


class Surface(Struct, frozen=True, kw_only=True):
    """What one service answers and how, whichever edge serves it.

    ``decorate`` adds headers to every answer.
    """

    name: str
    prefix: str
    routes: Routes
    render: Render
    versions: Versions | None = None
    decorate: Decorate | None = None
    error_type: bytes = b"application/json"


class Service:
    """One service of one edge, as an ASGI application under its prefix."""

    def __init__(self, edge: Edge, surface: Surface) -> None:
        self.name = surface.name
        self.routes = surface.routes
        self.versions = surface.versions
        self._edge = edge
        self._render = surface.render
        self._decorate = surface.decorate
        self._prefix = surface.prefix
        self._cut = len(surface.prefix)
        self._error_type = surface.error_type
        self._tells_reads = edge.config.log_level == "debug"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started = perf_counter()
        call = Call(self._edge, self.name, scope, receive)
        problem: Problem | None = None
        ended: Exception | None = None
        status, code, streams = 0, "", False
        self._edge.active[self.name] += 1
        try:
            try:
                answer = await self._answer(call)
            except Tried as tried:
                answer = tried.answer
            except Exception as error:  # noqa: BLE001  # told below, if it is an error of ours
                ended, problem = error, self._problem(call, error)
                await record(call, problem)
                answer = self._failed(call, problem)
            if not call.consumed and call.method in _WITH_BODY:
                await call.drain(DRAIN_BYTES, DRAIN_S)
            status, code = answer.status, problem.code if problem is not None else ""
            streams = answer.stream is not None
            if streams:  # It may last for days: told of as it begins.
                self._edge.access.note(call, status, perf_counter() - started)
            await self._send(call, answer, send)
        except ClientGone:
            code = "AnswerUnread"
            raise
        except Exception as error:
            status, code, ended = 500, "AnswerBroken", error
            raise AnswerBroken(call.request_id) from error
        finally:
            seconds = perf_counter() - started
            self._edge.active[self.name] -= 1
            self._edge.count(self.name, call.method, status, seconds)
            if not streams:
                self._edge.access.note(call, status, seconds)
            if self._tells_reads or status >= 400 or call.method not in READS:
                tell(call, status, seconds, code=code, error=ended)

    def _problem(self, call: Call, error: Exception) -> Problem:
        """Return what whoever asked is told of what ended the request."""
        match error:
            case ClientGone():
                # It may only have broken its own body off, malformed chunks say, and still read.
                call.consumed = True
                return Problem(status=400, code="BodyBroken", reason=str(error))
            case Rejected():
                return problem_of(error)
            case Denied():
                return error.problem
            case MarkerNotFound():
                status = 404 if self.name == "network" else 400
                return Problem(status=status, code="MarkerNotFound", reason=str(error))
            case BadPattern() | BadSort():
                return Problem(status=400, code="InvalidInput", reason=str(error))
            case BusError():
                return problem_of(Unavailable("the engine cannot be reached"))
            case _:
                return internal()

    async def _answer(self, call: Call) -> Answer:
        edge = self._edge
        refused: Rejected | None = None
        if self.versions is not None:
            call.microversion = self.versions.minimum
            try:
                call.microversion = self.versions.asked(call)
            except Rejected as error:
                refused = error  # Told to those who may be told: not instead of a 401.
            call.version = written(call.microversion)
        call.check_head()
        edge.limits.request(call.origin)
        found = self.routes.find(call.path[self._cut :])
        if found is not None:
            methods, call.args = found
            route = methods.get(call.method)
            if route is None and call.method == "HEAD":
                route = methods.get("GET")
            if route is not None:
                route = route.at(call.microversion)
            call.route = route
            if route is not None and route.public:
                if call.as_of:
                    past.require_askable(call, route)
                if call.method == "POST":
                    return await self._sign_in(route, call)
                return await route.handler(call)
        call.principal, call.position = await edge.authenticate(call)
        if call.principal.rules is not None:
            self._check_rules(call, call.principal.rules)
        edge.limits.project(call.principal.project_id or call.principal.user_id)
        if refused is not None:
            raise refused
        if found is None:
            raise _no_route(call)
        if route is None:
            allowed = ", ".join(sorted(m for m, r in methods.items() if r.at(call.microversion)))
            if not allowed or call.method in methods:
                raise _no_route(call)  # As in a version that never had it.
            raise MethodNotAllowed(f"{call.method} is not one of {allowed}", allow=allowed)
        if edge.past:
            past.require_readable(call, route)
        _ask_policy(call, route)
        if call.as_of:
            await _go_back(call, route)
        if call.method not in READS and route.mutates:
            answer = await changed(call, route)
        else:
            answer = await route.handler(call)
        if not (call.rule or call.ordinal):  # the engine's decision has an ordinal
            raise UndecidedError(f"{call.method} {route.path} was answered without a decision")
        if answer.content_type == EVENTS and edge.closing.is_set():
            raise Unavailable("this process is stopping")
        return answer

    def _check_rules(self, call: Call, rules: tuple[AccessRule, ...]) -> None:
        """Let pass only what the rules of the caller's application credential name.

        Raises:
            Forbidden: none names this call.
        """
        if not permitted(rules, self.name, call.method, call.path, self._prefix):
            raise Forbidden(
                f"no access rule of the application credential allows {call.method} on this path"
            )

    async def _sign_in(self, route: Route, call: Call) -> Answer:
        """Answer what is asked without a token and is worth guessing."""
        limits = self._edge.limits
        limits.sign_in(call.origin)
        await self._edge.freshness.need()
        answer = await route.handler(call)
        if answer.status < 400:
            limits.signed_in(call.origin)
        return answer

    def _failed(self, call: Call, problem: Problem) -> Answer:
        headers: list[Header] = []
        if problem.status == 401:
            call.reason = call.reason or problem.reason
            uri = f'Keystone uri="{call.base}/identity"'
            headers.append((b"www-authenticate", uri.encode("latin-1")))
        if problem.status == 405:
            headers.append((b"allow", str(problem.fields.get("allow", "")).encode("latin-1")))
        if problem.status in {429, 503}:
            headers.append((b"retry-after", b"%d" % int(problem.fields.get("retry_after", 1))))
        body = self._render(problem, call.request_id, call.path)
        return Answer(problem.status, body, content_type=self._error_type, headers=headers)

    async def _send(self, call: Call, answer: Answer, send: Send) -> None:
        request_id = call.request_id.encode("ascii")
        headers: list[Header] = [
            (b"x-openstack-request-id", request_id),
            (b"x-cumulog-ordinal", b"%d" % (call.position or self._edge.position())),
            (b"traceparent", call.trace.encode("ascii")),
            *answer.headers,
        ]
        if call.awaited:
            headers.append((b"x-cumulog-awaited", b"%d" % call.awaited))
        if self.versions is not None:
            headers += self.versions.headers(call.microversion)
        if self._decorate is not None:
            headers += self._decorate(call)
        if self._edge.closing.is_set():
            headers.append(CLOSE)
        bare = answer.status in {204, 205, 304} or call.method == "HEAD"
        if not bare:
            headers.append((b"content-type", answer.content_type))
        if answer.stream is None and not bare:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.stream is not None and not bare:
            waits = answer.content_type == EVENTS  # and does nothing else, perhaps for days
            self._edge.limits.under_way -= waits
            try:
                await self._stream(call, answer.stream, send)
            finally:
                self._edge.limits.under_way += waits
            return
        await send({"type": "http.response.body", "body": b"" if bare else answer.body})

    async def _stream(self, call: Call, chunks: AsyncGenerator[bytes], send: Send) -> None:
        """Send pieces as fast as the client takes them, for as long as it takes any."""
        gone = call.gone()
        unread_s = self._edge.config.unread_s
        try:
            async for chunk in chunks:
                if gone.done():
                    return
                async with asyncio.timeout(unread_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError as error:
            raise ClientGone("the answer is not read") from error
        finally:
            gone.cancel()
            await chunks.aclose()


def _ask_policy(call: Call, route: Route) -> None:
    """Ask the policy for what a route declares, so that no handler can forget to.

    Where the body chooses among several actions, this asks whether there is any to choose, and the
    handler asks for the one; of anything at all (``ANY_ACTION``) the engine decides.

    Raises:
        Forbidden: the caller may not.
    """
    actions = route.actions
    if len(actions) > 1:
        if not any(map(call.may, actions)):
            call.allow(actions[0])
    elif actions[0] != ANY_ACTION:
        call.allow(actions[0])


async def _go_back(call: Call, route: Route) -> None:
    """Have a call answered as of the moment that it asks for, if it was allowed then too.

    Raises:
        InvalidInput: this cannot be asked about the past, or there is no such moment.
        Forbidden: it was not allowed then.
    """
    past.require_askable(call, route)
    await past.enter(call)
    call.need_again()
    _ask_policy(call, route)


class UndecidedError(RuntimeError):
    """A handler answered a request that nobody had decided about: a fault of ours."""


def _no_route(call: Call) -> Exception:
    return NoRoute(f"there is nothing at {call.method} {call.path[:200]}")


class NoRoute(Rejected):
    """No such path."""

    code = "NoRoute"
    status = 404
