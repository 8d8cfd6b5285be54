"""What an agent needs of the world above it: the engine and the edges, over whatever bus.

The agent knows no bus. ``run.py`` gives it one; tests give it an engine in memory.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from schemas.compute import ReportServerState
from schemas.envelope import Outcome
from schemas.host import RegisterHost, ReportDrift
from schemas.ids import RequestId
from schemas.operation import ReportOperation
from schemas.samples import ReportSamples
from schemas.work import (
    ConsoleAsk,
    ConsoleReply,
    DesiredState,
    Heartbeat,
    MetadataAsk,
    MetadataReply,
    WorkItem,
)

type Report = RegisterHost | ReportDrift | ReportOperation | ReportServerState | ReportSamples
type AcceptWork = Callable[[WorkItem], None]
type AnswerConsole = Callable[[ConsoleAsk], Awaitable[ConsoleReply]]


class UpstreamError(Exception):
    """The engine did not answer, or could not. Ask again a little later."""


class Upstream(Protocol):
    """The engine and the edges, as this host's agent sees them."""

    async def submit(self, report: Report, request_id: RequestId, trace: str = "") -> Outcome:
        """Submit a report. Under the same id it is taken once, however often. UpstreamError.

        ``trace`` is its traceparent, if it belongs to a trace.
        """
        ...

    async def desired_state(self) -> DesiredState:
        """Ask for all that this host shall have. UpstreamError."""
        ...

    async def ask_metadata(self, ask: MetadataAsk) -> MetadataReply:
        """Ask an edge what to answer a guest. UpstreamError."""
        ...

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Say that this host lives. Lost ones do not matter. UpstreamError."""
        ...

    async def listen(
        self,
        accept: AcceptWork,
        console: AnswerConsole,
        on_gap: Callable[[], None],
    ) -> None:
        """Begin to pass on work items and console requests.

        ``on_gap`` is called whenever items may have been missed. Returns once nothing that is
        dispatched from now on can be missed without it.
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...
