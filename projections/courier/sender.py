"""Brings one webhook up to date: its project's events, in the order of the log, one at a time.

Invariant: an event is sent only once the one before it was taken or given up, and each is sent at
least once, whatever is killed when. What cannot be delivered is tried again after a pause that
grows, up to a bound; then it is put aside where its owner sees it, and the next one is sent.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from engine.bus.client import BusError
from engine.bus.keys import KeyMissing, Keys
from engine.bus.metrics import counter
from engine.sealing import SealBroken, unseal
from projections import cloudevents
from projections.answers import Event
from projections.courier import signature
from projections.courier.addresses import AddressRefused, target_of
from projections.courier.book import Book, Dead, Progress
from projections.courier.post import Failed, Line, Reply
from projections.reader import Reader
from projections.redaction import shown
from schemas.errors import Unavailable
from schemas.units import SECOND, Micros
from schemas.webhook import Webhook, WebhookCreated, WebhookRedeliveryRequested

BATCH = 16
FIRST_FACTS = 16  # among so many events about it is that it was made
AGAIN_S = 5.0  # when something of ours does not answer
GONE = 410
CREATED = str(WebhookCreated.__struct_config__.tag)
REDELIVERY = str(WebhookRedeliveryRequested.__struct_config__.tag)

DELIVERIES = counter("cumulog_webhook_deliveries_total")
_DELIVERED, _FAILED, _DEAD = map(DELIVERIES.labels, ("delivered", "failed", "given_up"))

log = structlog.get_logger(__name__)

type GiveUp = Callable[[Webhook, str], Awaitable[None]]


class Pace(Struct, frozen=True, kw_only=True):
    """How long and how often something is tried."""

    timeout_s: float
    attempts: int
    backoff_s: float
    backoff_max_s: float
    give_up: int  # events in a row, after which the webhook is disabled


class Shared(Struct, frozen=True, kw_only=True):
    """What the senders of one courier have in common."""

    reader: Reader
    book: Book
    keys: Keys
    source: str  # of the CloudEvents
    pace: Pace
    slots: asyncio.Semaphore
    give_up: GiveUp


class Sender:
    """One webhook's deliveries."""

    def __init__(
        self, webhook_id: str, shared: Shared, line: Line, project_slots: asyncio.Semaphore
    ) -> None:
        self.webhook_id = webhook_id
        self.news = asyncio.Event()  # something of its project, or about it, is in the log
        self.told = True  # something about it is
        self._shared = shared
        self._line = line
        self._project_slots = project_slots
        self._tried: Micros = 0  # which version of the webhook the failures are of

    async def run(self) -> None:
        """Send until the webhook is gone."""
        try:
            while await self._go_on():
                pass
        finally:
            await self._line.close()

    async def _go_on(self) -> bool:
        """Do one thing, or wait for something to do; False once the webhook is gone."""
        self.news.clear()
        shared = self._shared
        try:
            webhook = shared.reader.webhook(self.webhook_id)
            if webhook is None:
                shared.book.forget(self.webhook_id)
                return False
            progress = self._progress(webhook)
            project = shared.reader.project(webhook.project_id)
            if not webhook.enabled or project is None or not project.enabled:
                await self._line.close()
                await self.news.wait()
                return True
            event = self._next(webhook, progress)
        except Unavailable as error:  # the read model is being switched
            log.info("webhook_waits", webhook=self.webhook_id, why=error.reason)
            await asyncio.sleep(AGAIN_S)
            return True
        if event is None:
            await self._wait(None)
        elif (left := progress.next_at - _now()) > 0:
            await self._wait(left / SECOND)
        else:
            await self._send(webhook, progress, event)
        return True

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.news.wait()
        except TimeoutError:
            pass

    def _progress(self, webhook: Webhook) -> Progress:
        """Return how far it has come, with what was asked about it meanwhile."""
        shared, ident = self._shared, self.webhook_id
        progress = shared.book.find(ident)
        if progress is None:
            about = shared.reader.events(limit=FIRST_FACTS, resource_id=ident)
            made = next(event.ordinal for event in about if event.tag == CREATED)
            progress = Progress(after=made, heard=made)
            shared.book.save(ident, progress)
        if self._tried != webhook.updated_at:
            # A change, or our start: what failed before may do now.
            if self._tried:
                progress.failures, progress.next_at, progress.in_a_row = 0, 0, 0
                shared.book.save(ident, progress)
            self._tried = webhook.updated_at
        if self.told:
            self._hear(progress)
        return progress

    def _hear(self, progress: Progress) -> None:
        """Do what was asked by events about the webhook itself."""
        shared, ident = self._shared, self.webhook_id
        self.told = False
        while found := shared.reader.events(after=progress.heard, resource_id=ident):
            for event in found:
                progress.heard = event.ordinal
                if event.tag != REDELIVERY:
                    continue
                asked = cloudevents.decode_redelivery(event.body)
                progress.failures, progress.next_at, progress.in_a_row = 0, 0, 0
                if asked.after is None:
                    shared.book.send_again(ident)
                else:
                    # Back only: what was not sent yet is not passed over.
                    progress.after = min(asked.after, progress.after)
                    shared.book.rewind(ident, progress)
            shared.book.save(ident, progress)

    def _next(self, webhook: Webhook, progress: Progress) -> Event | None:
        """Return what is to be sent now; None if there is nothing."""
        reader, book = self._shared.reader, self._shared.book
        if (again := book.again(self.webhook_id)) is not None:
            found = reader.events(after=again - 1, limit=1, project_id=webhook.project_id)
            if found and found[0].ordinal == again:
                return found[0]
            book.revive(self.webhook_id, again, progress)  # there is no such event any more
        # Without a filter the next one is the one; with one, it may be far.
        limit = BATCH if webhook.types else 1
        while True:
            found = reader.events(after=progress.after, limit=limit, project_id=webhook.project_id)
            for event in found:
                if not webhook.types or cloudevents.type_of(event).startswith(webhook.types):
                    return event
                progress.after = event.ordinal
            if not found:
                return None
            book.save(self.webhook_id, progress)

    async def _send(self, webhook: Webhook, progress: Progress, event: Event) -> None:
        try:
            key = await self._shared.keys.get_key(webhook.secret.key_id)
            secret = signature.secret_bytes(unseal(key, webhook.secret).decode())
        except (KeyMissing, SealBroken):
            await self._disable(webhook, "its secret cannot be opened any more")
            return
        except BusError as error:
            log.warning("webhook_waits", webhook=self.webhook_id, why=str(error))
            await self._wait(AGAIN_S)
            return
        told = cloudevents.cloud_events(
            [shown(event)], self._shared.source, self._shared.reader.asked
        )
        body = cloudevents.encode(told[0])
        headers = [
            ("Content-Type", f"{cloudevents.TYPE}; charset=utf-8"),
            ("User-Agent", "cumulog-courier/1"),
            *signature.headers(secret, told[0].id, int(time.time()), body),
        ]
        try:
            # A project whose receivers are slow waits for itself before it makes others wait.
            async with self._project_slots, self._shared.slots:
                reply = await self._line.post(
                    target_of(webhook.url), headers, body, timeout_s=self._shared.pace.timeout_s
                )
        except (Failed, AddressRefused) as error:
            self._failed(progress, event, str(error))
        else:
            if 200 <= reply.status < 300:
                self._delivered(progress, event)
                return
            if reply.status == GONE:
                await self._disable(webhook, "its receiver has answered that it is gone (410)")
                return
            self._failed(progress, event, f"the receiver answered {reply.status}", reply)
        if progress.in_a_row >= self._shared.pace.give_up:
            cause = f"{progress.in_a_row} events in a row were not taken: {progress.error}"
            await self._disable(webhook, cause)

    def _delivered(self, progress: Progress, event: Event) -> None:
        _DELIVERED.inc()
        progress.delivered += 1
        progress.delivered_at = _now()
        progress.failures, progress.next_at, progress.in_a_row, progress.error = 0, 0, 0, ""
        if event.ordinal > progress.after:
            progress.after = event.ordinal
            self._shared.book.save(self.webhook_id, progress)
        else:
            self._shared.book.revive(self.webhook_id, event.ordinal, progress)

    def _failed(
        self, progress: Progress, event: Event, why: str, reply: Reply | None = None
    ) -> None:
        _FAILED.inc()
        pace = self._shared.pace
        progress.failures += 1
        progress.error = why
        log.info(
            "webhook_failed",
            webhook=self.webhook_id,
            attempt=progress.failures,
            why=why,
            project_id=event.project_id,
            request_id=event.request_id,
        )
        if progress.failures < pace.attempts:
            asked_s = reply.retry_after_s if reply is not None else None
            pause_s = backoff_s(pace, progress.failures, asked_s)
            progress.next_at = _now() + round(pause_s * SECOND)
            self._shared.book.save(self.webhook_id, progress)
            return
        _DEAD.inc()
        dead = Dead(ordinal=event.ordinal, at=_now(), attempts=progress.failures, error=why)
        progress.after = max(progress.after, event.ordinal)
        progress.failures, progress.next_at = 0, 0
        progress.in_a_row += 1
        self._shared.book.give_up(self.webhook_id, progress, dead)
        log.warning("webhook_gave_up", webhook=self.webhook_id, ordinal=event.ordinal, why=why)

    async def _disable(self, webhook: Webhook, cause: str) -> None:
        """Have the webhook disabled, as a fact; it ends here once that is in the read model."""
        try:
            await self._shared.give_up(webhook, cause)
        except (Unavailable, BusError) as error:
            log.warning("webhook_not_disabled", webhook=self.webhook_id, why=str(error))
        await self._wait(AGAIN_S)


def backoff_s(pace: Pace, failures: int, asked_s: int | None) -> float:
    """Return how long to wait after so many failures: doubled each time, bounded, and spread."""
    pause_s: float = min(pace.backoff_max_s, pace.backoff_s * 2 ** min(failures - 1, 32))
    pause_s *= random.uniform(0.5, 1.0)
    return max(pause_s, min(asked_s, pace.backoff_max_s)) if asked_s is not None else pause_s


def _now() -> Micros:
    return time.time_ns() // 1000
