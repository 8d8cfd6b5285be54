"""Sends work items to hosts after their commits are durable.

Items are hints: a host converges on its desired state without them, only later. So what cannot be
sent is logged and left to the host's next reconciliation, and nothing here holds up a commit.
"""

import asyncio
from collections.abc import Awaitable, Callable
from zlib import crc32

import structlog

from engine.bus.client import BusError
from schemas.work import WorkItem

SENDERS = 8
WAITING_MAX = 100_000

logger = structlog.get_logger(__name__)


class Dispatcher:
    """A queue of work items and the tasks that empty it; one host's items keep their order."""

    def __init__(self, send_work: Callable[[WorkItem], Awaitable[None]]) -> None:
        """``send_work`` sends one item, and may raise BusError."""
        self._send_work = send_work
        self._queues: list[asyncio.Queue[WorkItem]] = [
            asyncio.Queue(WAITING_MAX // SENDERS) for _ in range(SENDERS)
        ]

    def send(self, item: WorkItem) -> None:
        """Queue an item; never waits."""
        queue = self._queues[crc32(item.operation.host_id.encode()) % SENDERS]
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            logger.warning("work_left_to_reconciliation", operation=item.operation.operation_id)

    async def run(self) -> None:
        """Send items for ever."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._run(queue))

    async def _run(self, queue: asyncio.Queue[WorkItem]) -> None:
        while True:
            item = await queue.get()
            try:
                await self._send_work(item)
            except BusError as error:
                logger.warning(
                    "work_not_sent", operation=item.operation.operation_id, error=str(error)
                )
