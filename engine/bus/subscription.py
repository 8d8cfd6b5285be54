"""What is heard on the bus: messages, and the interest in them.

A handler that fails loses its own message and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

log = structlog.get_logger(__name__)

LOST = (nats.errors.Error, OSError)  # what nats-py raises
PENDING_BYTES_MAX = 128 * 1024 * 1024
STATUS = "Status"
# Put there by the server when a request comes from another account.
ASKER = "Nats-Request-Info"


class Responder(Protocol):
    """Whoever can send an answer: the bus."""

    async def respond(self, reply: str, payload: bytes) -> None:
        """Send it."""
        ...

    async def sign(self, reply: str) -> None:
        """Tell that it is being worked on."""
        ...


class Message:
    """A received message. ``reply`` is empty when no answer is awaited."""

    __slots__ = ("_bus", "headers", "payload", "reply", "subject")

    def __init__(self, bus: Responder, message: Msg) -> None:
        self._bus = bus
        self.subject = message.subject
        self.reply = message.reply
        self.payload = message.data
        self.headers: dict[str, str] = message.headers or {}

    async def respond(self, payload: bytes) -> None:
        """Answer the asker; see ``Bus.respond``."""
        await self._bus.respond(self.reply, payload)

    async def sign(self) -> None:
        """Tell the asker that the answer is being worked on; see ``engine.bus.life``."""
        await self._bus.sign(self.reply)


Handler = Callable[[Message], Awaitable[None]]


def deaf_to_streams(handler: Handler) -> Handler:
    """Return a handler that never sees what a stream answers; all that has headers of NATS' own."""

    async def hear(message: Message) -> None:
        if any(
            name == STATUS or (name.startswith("Nats-") and name != ASKER)
            for name in message.headers
        ):
            log.warning("stream_answer_dropped", subject=message.subject)
        else:
            await handler(message)

    return hear


class Subscription:
    """Interest in a subject, from ``start`` until ``stop``."""

    def __init__(self, bus: Responder, handler: Handler, concurrency: int) -> None:
        self._bus = bus
        self._handler = handler
        self._slots = asyncio.Semaphore(concurrency) if concurrency > 1 else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription: NatsSubscription | None = None

    async def start(self, client: Client, subject: str, queue: str) -> None:
        """Ask for messages. Raises what ``LOST`` holds."""
        self._subscription = await client.subscribe(
            subject,
            queue,
            cb=self._handle if self._slots is None else self._begin,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    async def stop(self) -> None:
        """End the interest and what is under way. Can be repeated."""
        if self._subscription is not None:
            with contextlib.suppress(*LOST):  # closed, or stopped before
                await self._subscription.unsubscribe()
        for task in self._tasks:
            task.cancel()

    async def _handle(self, message: Msg) -> None:
        try:
            await self._handler(Message(self._bus, message))
        except Exception:
            log.exception("handler_failed", subject=message.subject)

    async def _begin(self, message: Msg) -> None:
        assert self._slots is not None, "chosen only with slots"
        await self._slots.acquire()
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        assert self._slots is not None, "as above"
        self._tasks.discard(task)
        self._slots.release()
