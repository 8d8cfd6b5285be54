"""Reports to the engine, each brought home.

A report is sent until the engine has answered it durably; while the engine is away the sender
waits. What is lost with the agent's process is told anew after its next start, because the engine
then names every operation that still waits for a report.
"""

import asyncio
import time
import uuid
from collections.abc import Callable

import structlog

from engine.bus.metrics import counter
from executors.errors import reason
from executors.upstream import Report, Upstream, UpstreamError
from schemas.compute import ReportServerState, StopCause
from schemas.envelope import Outcome, Refused
from schemas.host import DriftFound, ReportDrift
from schemas.ids import ServerId
from schemas.operation import Operation, ReportOperation
from schemas.trace import child, trace_id
from schemas.units import Micros

log = structlog.get_logger(__name__)

_PAUSE_FIRST_S = 0.1
_PAUSE_MOST_S = 5.0
_DRIFT_MOST = 1000  # the schema's bound

OPERATIONS = counter("cumulog_agent_operations_total")

type Clock = Callable[[], Micros]


def wall_clock() -> Micros:
    """Return the time of day in microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


class Reports:
    """Says what happened on this host, in the engine's words."""

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock

    async def send(self, report: Report, trace: str = "") -> Outcome:
        """Submit a report and return the engine's outcome, however long it takes to get one.

        ``trace`` is the traceparent of the request that it answers.
        """
        pause_s = _PAUSE_FIRST_S
        request_id = f"req-{uuid.uuid4()}"
        while True:
            try:
                outcome = await self._upstream.submit(report, request_id, child(trace, request_id))
            except UpstreamError as error:
                log.warning("report.waits", report=type(report).__name__, why=reason(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MOST_S)
                continue
            if isinstance(outcome.verdict, Refused):
                log.warning(
                    "report.refused",
                    report=type(report).__name__,
                    code=outcome.verdict.code,
                    why=outcome.verdict.reason,
                )
            return outcome

    async def succeeded(
        self,
        operation: Operation,
        *,
        running: bool = False,
        observed_at: Micros | None = None,
        virtual_size_bytes: int = 0,
    ) -> None:
        """Report that an operation reached its goal."""
        await self.send(
            ReportOperation(
                operation_id=operation.operation_id,
                generation=operation.generation,
                succeeded=True,
                observed_at=self._clock() if observed_at is None else observed_at,
                running=running,
                virtual_size_bytes=virtual_size_bytes,
            ),
            operation.trace,
        )
        OPERATIONS.labels(operation.kind, "succeeded").inc()
        log.info("operation.succeeded", kind=operation.kind, **about(operation))

    async def failed(self, operation: Operation, cause: str, *, running: bool) -> None:
        """Report that an operation did not reach its goal, and why."""
        await self.send(
            ReportOperation(
                operation_id=operation.operation_id,
                generation=operation.generation,
                succeeded=False,
                observed_at=self._clock(),
                cause=cause[:1000],
                running=running,
            ),
            operation.trace,
        )
        OPERATIONS.labels(operation.kind, "failed").inc()
        log.warning("operation.failed", kind=operation.kind, why=cause, **about(operation))

    async def ended(
        self, server_id: ServerId, boot: int, cause: StopCause, observed_at: Micros
    ) -> None:
        """Report that a server stopped running without having been asked to, and since when."""
        await self.send(
            ReportServerState(
                server_id=server_id,
                boot=boot,
                running=False,
                observed_at=observed_at,
                cause=cause,
            )
        )

    async def drift(self, found: list[DriftFound]) -> None:
        """Report differences that were put right; nothing if there were none."""
        for first in range(0, len(found), _DRIFT_MOST):
            part = tuple(found[first : first + _DRIFT_MOST])
            await self.send(ReportDrift(drift=part, observed_at=self._clock()))


def about(operation: Operation) -> dict[str, str]:
    """Return what a line of the log says of an operation, so that its request can be followed."""
    return {
        "operation": operation.operation_id,
        "resource": operation.resource_id,
        "project_id": operation.project_id,
        "request_id": operation.request_id,
        "trace_id": trace_id(operation.trace),
    }
