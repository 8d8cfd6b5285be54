"""The edge's application: every service under its prefix, and what operators ask of the process.

Litestar answers what is asked rarely; services are plain ASGI and are reached without its router,
which would cost more than most of their answers (see ``docs/performance.md``).
"""

from http import HTTPStatus
from time import monotonic, perf_counter
from typing import Any

import structlog
import uuid_utils
from litestar import Litestar, Request, Response, get
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.types import Message, Scope

from api.compute import service as compute
from api.cors import Cors
from api.edge import Edge
from api.errors import (
    AnswerBroken,
    ClientGone,
    Problem,
    internal,
    problem_of,
    render_native,
)
from api.exchange import Call, Header, encode
from api.freshness import WAIT_S
from api.identity import service as identity
from api.image import service as image
from api.metrics import Scrape
from api.native import service as native
from api.network import service as network
from api.openapi import document
from api.routing import CLOSE, Service
from schemas.errors import Rejected

REQUEST_ID = b"x-openstack-request-id"
SURFACES = tuple(area.surface() for area in (identity, compute, image, network, native))
log = structlog.get_logger(__name__)

LATE_S = 10.0  # how long after a late write this node says that it is not ready


class Api(Litestar):
    """The application. What lies under a service's prefix goes straight to that service."""

    edge: Edge
    cors: Cors
    services: dict[str, Service]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand a request to its service, and all else to Litestar."""
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        client, connections = scope["client"], self.edge.connections
        limits = self.edge.limits
        connections.begin(client)
        limits.under_way += 1
        try:
            if self.cors:
                headers = self.cors.preflight(scope["method"], scope["headers"])
                if headers is not None:
                    await self._answer_preflight(scope, receive, send, headers)
                    return
                send = self.cors.telling(scope["headers"], send)
            service = self.services.get(scope["path"][1:].partition("/")[0])
            if service is not None:
                await service(scope, receive, send)
            else:
                await self._answer_probe(scope, receive, send)
        except AnswerBroken as broken:
            await _apologise(send, broken.request_id)
        except ClientGone:
            raise  # The server closes what nobody reads.
        except Exception:
            request_id = _request_id()
            log.exception("request_broken", request_id=request_id, path=scope["path"][:200])
            await _apologise(send, request_id)
        finally:
            limits.under_way -= 1
            connections.end(client)

    async def _answer_preflight(
        self, scope: Any, receive: Any, send: Any, headers: list[Header]
    ) -> None:
        """Tell a browser what a page of another origin may send."""
        call = Call(self.edge, "process", scope, receive)
        headers.append((REQUEST_ID, call.request_id.encode("ascii")))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        self.edge.count("process", "OPTIONS", 204, 0.0)
        self.edge.access.note(call, 204, 0.0)

    async def _answer_probe(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is asked of the process, and tell of it as services do."""
        started = perf_counter()
        call = Call(self.edge, "process", scope, receive)
        status = 0

        async def heard(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.edge.closing.is_set():
                    message["headers"] = [*message["headers"], CLOSE]
                call.request_id = dict(message["headers"])[REQUEST_ID].decode("ascii")
            await send(message)

        try:
            try:
                call.check_head()
                self.edge.limits.probe(call.origin)
            except Rejected as error:
                await _tell(heard, problem_of(error), call)
            else:
                await super().__call__(scope, receive, heard)
        finally:
            self.edge.access.note(call, status, perf_counter() - started)


def create_app(edge: Edge) -> Api:
    """Return the application of one edge."""
    scrape = Scrape(edge)

    @get("/", sync_to_thread=False)
    def index() -> dict[str, Any]:
        """Say what is here."""
        return {
            "name": "cumulog",
            "services": ["/identity", "/compute", "/image", "/network"],
            "native": "/v1",
            "description": "/openapi.json",
        }

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, Any]]:
        """Say whether this node should be given requests: 503 while it lags or has no engine."""
        ordinal = edge.position()
        reasons = []
        if not edge.bus.connected:
            reasons.append("the bus is not connected")
        if ordinal == 0:
            reasons.append("the read model is empty")
        if monotonic() - edge.late_at < LATE_S:
            reasons.append("the read model lags behind the log")
        if not edge.freshness.is_fresh(WAIT_S):
            reasons.append("the read model is not known to hold all of the log")
        if edge.closing.is_set():
            reasons.append("the process is stopping")
        body = {"ready": not reasons, "ordinal": ordinal, "reasons": reasons}
        return Response(body, status_code=503 if reasons else 200)

    @get("/metrics")
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return what is counted, as Prometheus' text or as OpenMetrics."""
        if not scrape.may(request.headers.get("authorization", "")):
            raise NotAuthorizedException(headers={"WWW-Authenticate": "Bearer"})
        text, media_type = await scrape.exposition(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    app = Api(
        route_handlers=[index, healthz, readyz, metrics],
        before_send=[_identify],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
        openapi_config=None,
        logging_config=None,
    )
    app.edge = edge
    app.cors = Cors(edge.config.cors_origins)
    served = {surface.name: Service(edge, surface) for surface in SURFACES}
    app.services = {s.prefix[1:] or "v1": served[s.name] for s in SURFACES}
    app.services["openapi.json"] = served["native"]
    edge.described = {
        "/openapi.json": encode(document(SURFACES)),
        "/v1/openapi.json": encode(document(SURFACES[-1:])),
    }
    return app


async def _apologise(send: Any, request_id: str) -> None:
    """Answer what no service could, not even with an error.

    Fails if an answer was begun: the server then breaks it off, so that nobody takes it for whole.
    """
    headers = [
        (REQUEST_ID, request_id.encode("ascii")),
        (b"content-type", b"application/problem+json"),
        CLOSE,
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": render_native(internal(), request_id, "")})


async def _tell(send: Any, problem: Problem, call: Call) -> None:
    """Refuse what was asked of the process."""
    headers = [
        (REQUEST_ID, call.request_id.encode("ascii")),
        (b"content-type", b"application/problem+json"),
    ]
    if "retry_after" in problem.fields:
        headers.append((b"retry-after", b"%d" % int(problem.fields["retry_after"])))
    body = render_native(problem, call.request_id, call.path)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _identify(message: Message, _scope: Scope) -> None:
    """Give what Litestar answers a request id too, errors included."""
    if message["type"] == "http.response.start":
        headers = [*message.get("headers", ())]
        if not any(name == REQUEST_ID for name, _ in headers):
            headers.append((REQUEST_ID, _request_id().encode("ascii")))
        message["headers"] = headers


def _refuse(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Say what was wrong as the services do."""
    request_id = _request_id()
    path = request.url.path
    reason = f"{request.method} {path[:200]} cannot be answered"
    problem = Problem(
        status=error.status_code,
        code=HTTPStatus(error.status_code).phrase.replace(" ", ""),
        reason=reason,
    )
    return Response(
        render_native(problem, request_id, path),
        status_code=error.status_code,
        media_type="application/problem+json",
        headers={**(error.headers or {}), REQUEST_ID.decode(): request_id},
    )


def _fail(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Leave it to whoever answers for all: Litestar would tell nobody."""
    raise error


def _request_id() -> str:
    return f"req-{uuid_utils.uuid7()}"
