"""The courier's process: a sender for each webhook, and answers about how they stand.

It follows the read model of its node, as an edge does, and wakes whom the news concerns. One slow
receiver keeps nobody else waiting: there are more slots than one project may hold.
"""

import asyncio
import contextlib
import os
import ssl
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
import uuid_utils
from msgspec import Struct

from engine.bus.client import Bus, BusError, Message
from engine.bus.keys import Keys
from engine.bus.metrics import Reading, told
from engine.bus.service import submit_as_courier
from projections.cloudevents import source
from projections.courier.addresses import networks
from projections.courier.book import Book, Dead, Progress
from projections.courier.post import Line
from projections.courier.sender import Pace, Sender, Shared
from projections.reader import Reader
from projections.runner import read_model_path, until_stopped
from schemas.config import REGION, Config
from schemas.envelope import Actor, Client, Request
from schemas.errors import Unavailable
from schemas.ids import SYSTEM_USER
from schemas.metrics import encode_told
from schemas.units import Ordinal
from schemas.webhook import GiveUpWebhook, Webhook

SLOTS = 64  # deliveries at once
PROJECT_SLOTS = 4  # of one project
NEWS = 1000
POLL_S = 1.0  # announcements may be lost
ASKED_MAX = 1000
KIND = "webhook"

log = structlog.get_logger(__name__)


class StateAsk(Struct, frozen=True):
    """How do these webhooks stand?"""

    ids: tuple[str, ...]


class DeadAsk(Struct, frozen=True):
    """What was given up of this one?"""

    id: str
    limit: int = 100


_decode_state_ask = msgspec.json.Decoder(StateAsk).decode
_decode_dead_ask = msgspec.json.Decoder(DeadAsk).decode


async def run(config: Config) -> None:
    """Be the cell's courier until SIGTERM or SIGINT."""
    # Names are resolved in threads, of libuv's where uvloop runs: as many as there are deliveries,
    # and none for long, so that those who have slow name servers wait for themselves alone.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(SLOTS))
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    bus = await Bus.configured(config, f"courier-{config.node}")
    reader = Reader(read_model_path(config))
    book = Book(Path(config.state_dir) / "webhooks" / "book.sqlite")
    courier = Courier(config, bus, reader, book)
    try:
        await until_stopped(courier.run())
    finally:
        await bus.close()
        reader.close()
        book.close()


class Courier:
    """All webhooks of a cell."""

    def __init__(self, config: Config, bus: Bus, reader: Reader, book: Book) -> None:
        self._bus = bus
        self._node = config.node
        self._reader = reader
        self._book = book
        self._allow = networks(config.webhook_allow)
        self._tls = ssl.create_default_context()
        self._moved = asyncio.Event()
        self._seen: Ordinal = 0
        self._complete = False  # whether every webhook has its sender
        self._senders: dict[str, Sender] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._by_project: defaultdict[str, set[str]] = defaultdict(set)
        self._project_slots: dict[str, asyncio.Semaphore] = {}
        self._shared = Shared(
            reader=reader,
            book=book,
            keys=Keys(bus),
            source=source(config.cell, REGION),
            pace=Pace(
                timeout_s=config.webhook_timeout_s,
                attempts=config.webhook_attempts,
                backoff_s=config.webhook_backoff_s,
                backoff_max_s=config.webhook_backoff_max_s,
                give_up=config.webhook_give_up,
            ),
            slots=asyncio.Semaphore(SLOTS),
            give_up=self._give_up,
        )

    async def run(self) -> None:
        """Follow the log and send, for ever."""
        await self._listen()
        try:
            while True:
                try:
                    self._look()
                except Unavailable as error:
                    log.info("read_model_not_read", why=error.reason)
                self._moved.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._moved.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _listen(self) -> None:
        subjects = self._bus.subjects

        async def announced(_message: Message) -> None:
            self._moved.set()

        await self._bus.subscribe(subjects.projected(self._node), announced)
        await self._bus.subscribe(subjects.courier("*"), self._on_question)

    def _look(self) -> None:
        """Wake whom the news concerns; at the start, everybody."""
        position = self._reader.position()
        if not position:
            return
        if not self._complete:
            self._follow_all(position)
            self._complete = True
        self._seen = self._seen or position
        while news := self._reader.news(self._seen, NEWS):
            for ordinal, project_id, kind, resource_id in news:
                self._seen = ordinal
                if kind == KIND and resource_id:
                    self._hear(resource_id)
                for webhook_id in self._by_project.get(project_id, ()):
                    self._senders[webhook_id].news.set()

    def _follow_all(self, position: Ordinal) -> None:
        webhooks = {webhook.webhook_id: webhook for webhook in self._reader.webhooks()}
        for webhook_id, webhook in webhooks.items():
            if webhook_id not in self._senders:
                self._follow(webhook)
        for webhook_id in self._book.known():
            progress = self._book.find(webhook_id)
            # A read model that is made anew may not know it yet.
            if webhook_id not in webhooks and progress and progress.heard <= position:
                self._book.forget(webhook_id)

    def _hear(self, webhook_id: str) -> None:
        sender = self._senders.get(webhook_id)
        if sender is not None:
            sender.told = True
            sender.news.set()
        elif (webhook := self._reader.webhook(webhook_id)) is not None:
            self._follow(webhook)

    def _follow(self, webhook: Webhook) -> None:
        project_id = webhook.project_id
        slots = self._project_slots.setdefault(project_id, asyncio.Semaphore(PROJECT_SLOTS))
        line = Line(self._allow, self._tls)
        sender = Sender(webhook.webhook_id, self._shared, line, slots)
        self._senders[webhook.webhook_id] = sender
        self._by_project[project_id].add(webhook.webhook_id)
        task = asyncio.create_task(sender.run(), name=webhook.webhook_id)
        self._tasks[webhook.webhook_id] = task
        task.add_done_callback(lambda done: self._ended(webhook, done))

    def _ended(self, webhook: Webhook, task: asyncio.Task[None]) -> None:
        ident, project_id = webhook.webhook_id, webhook.project_id
        del self._senders[ident], self._tasks[ident]
        self._by_project[project_id].discard(ident)
        if not self._by_project[project_id]:
            del self._by_project[project_id], self._project_slots[project_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            # One that breaks keeps no other from being sent; it is begun anew at the next look.
            log.error("webhook_broke", webhook=ident, exc_info=error)
            self._complete = False

    async def _give_up(self, webhook: Webhook, cause: str) -> None:
        request = Request(
            request_id=f"req-{uuid_utils.uuid7()}",
            actor=Actor(kind="system", user_id=SYSTEM_USER),
            action=GiveUpWebhook(
                webhook_id=webhook.webhook_id, cause=cause[:512], updated_at=webhook.updated_at
            ),
            submitted_at=time.time_ns() // 1000,
            client=Client(api="courier"),
        )
        await submit_as_courier(self._bus, request)
        log.warning("webhook_disabled", webhook=webhook.webhook_id, why=cause)

    async def _on_question(self, message: Message) -> None:
        questions: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            "state": self._state,
            "dead": self._dead,
            "metrics": self._metrics,
        }
        question = questions.get(message.subject.rpartition(".")[2])
        if question is not None:
            with contextlib.suppress(BusError):  # whoever asked asks again
                await message.respond(await question(message.payload))

    async def _state(self, payload: bytes) -> bytes:
        found: dict[str, Progress] = {}
        for webhook_id in _decode_state_ask(payload).ids[:ASKED_MAX]:
            if (progress := self._book.find(webhook_id)) is not None:
                found[webhook_id] = progress
        return msgspec.json.encode(found)

    async def _dead(self, payload: bytes) -> bytes:
        asked = _decode_dead_ask(payload)
        dead: list[Dead] = self._book.dead(asked.id, min(asked.limit, ASKED_MAX))
        return msgspec.json.encode(dead)

    async def _metrics(self, _payload: bytes) -> bytes:
        async def read() -> list[Reading]:
            return [("cumulog_webhooks", (), len(self._senders))]

        return encode_told(await told("courier", read))
