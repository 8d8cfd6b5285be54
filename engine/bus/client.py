"""The bus: publish, request and subscribe, over nats-py.

The only module beside ``engine/log`` that knows NATS. A lost connection comes back by itself for as
long as the process lives; what waited for an answer is told at once (``Disconnected``), since the
answer will not come, though the request may have been carried out. An answer is sent to inboxes and
to nothing else: the asker chooses the subject, and must not choose one that only we may use. For
the same reason what a stream answers is heard on inboxes only: JetStream publishes where its asker
tells it to, and would speak there for somebody who may not.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Self

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from engine.bus.connection import Connection
from engine.bus.errors import (
    BusError,
    BusTimeout,
    Disconnected,
    FellSilent,
    NoResponders,
    NotPermitted,
)
from engine.bus.packing import MAGIC, packed, unpacked
from engine.bus.subscription import (
    LOST,
    STATUS,
    Handler,
    Message,
    Subscription,
    deaf_to_streams,
)
from engine.bus.waiting import SIGN, ManyAnswers, OneAnswer, Waiter
from engine.log.addresses import addresses, trust
from schemas.config import Config
from schemas.subjects import Subjects

__all__ = [
    "REQUEST_HEADER",
    "STATUS",
    "TRACE_HEADER",
    "Bus",
    "BusError",
    "BusTimeout",
    "Disconnected",
    "FellSilent",
    "Handler",
    "Message",
    "NoResponders",
    "NotPermitted",
    "Subscription",
]

log = structlog.get_logger(__name__)

# On questions that are asked for somebody: for which request, and in which trace.
REQUEST_HEADER = "Cumulog-Request"
TRACE_HEADER = "traceparent"
CONNECT_S = 30.0
RECONNECT_WAIT_S = 0.1
PENDING_BYTES_MAX = 32 * 1024 * 1024
# A server that leaves three pings without an answer is left for another.
PING_S = 2
DIAL_S = 2
CLOSE_S = 2.0
INBOXES = "_INBOX"
# Answers go to an inbox, or to what the server puts for one that is in another account.
ANSWERS = (INBOXES, "_R_.")
FLUSH_S = 10.0
NO_RESPONDERS = "503"
STORE_USERS = ("engine", "admin")


class Bus:
    """A connection to the broker, as one user of one cell.

    ``on_reconnect`` callbacks run, in order, each time the connection is back.
    """

    def __init__(
        self, *, url: str, user: str, password: str, cell: str, authority: str = ""
    ) -> None:
        self.url = url
        self.authority = authority
        self.user = user
        self.password = password
        self.cell = cell
        self.subjects = Subjects(cell=cell)
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self.closed = asyncio.Event()
        # For streams: a connection of its own for whoever may enter their account.
        self.store: Bus = self
        self._client = Connection()
        self._closing = False
        self._inbox = ""
        self._waiting: dict[str, Waiter] = {}
        self._tokens = itertools.count(1)
        self._refused: list[str] = []
        self._login_refused: asyncio.Future[None] | None = None
        self._why = ""  # not connected

    @classmethod
    async def configured(cls, config: Config, name: str, *, store: bool = False) -> Self:
        """Connect as a process's configuration says. As ``connect``."""
        return await cls.connect(
            config.nats_url,
            user=config.nats_user,
            password=config.nats_password,
            authority=config.nats_ca,
            name=name,
            cell=config.cell,
            store=store,
        )

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        user: str,
        password: str,
        name: str,
        cell: str,
        store: bool = False,
        authority: str = "",
        timeout_s: float = CONNECT_S,
    ) -> Self:
        """Connect, trying again until ``timeout_s`` has passed; then reconnect for ever.

        ``url`` may name several servers, separated by commas: one of them is taken, and another
        when it is lost. With ``authority``, a PEM file, nothing is said but under TLS and to
        servers that it vouches for.
        ``name`` is what the broker shows. ``engine`` and ``admin`` get a second connection,
        ``bus.store``, to the account that holds the streams (see ``engine.log.accounts``); with
        ``store``, they get that one alone.

        Raises:
            NotPermitted: user or password are wrong.
            BusTimeout: nobody answered whom we trust.
            OSError: the authority's file cannot be read.
        """
        bus = cls(
            url=url,
            user=f"{user}-store" if store else user,
            password=password,
            cell=cell,
            authority=authority,
        )
        await bus._connect(name, timeout_s)
        if user in STORE_USERS and not store:
            try:
                bus.store = await cls.connect(
                    url,
                    user=user,
                    password=password,
                    name=name,
                    cell=cell,
                    store=True,
                    authority=authority,
                    timeout_s=timeout_s,
                )
            except BaseException:
                await bus.close()
                raise
        return bus

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream API; for ``engine`` only."""
        return self._client.jetstream() if self.store is self else self.store.jetstream

    @property
    def connected(self) -> bool:
        """Whether the connection is up now."""
        return self._client.is_connected

    @property
    def server_version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        reply: str = "",
    ) -> None:
        """Send and forget. While the connection is away, it waits in a bounded buffer.

        Raises:
            BusError: the payload is too big, the buffer is full, or the bus is closed.
        """
        try:
            await self._client.publish(subject, payload, reply, headers)
        except LOST as error:
            raise BusError(f"cannot publish to {subject}: {error}") from error

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
        silent_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """Ask and return the answer.

        With ``silent_s`` whoever answers is to give signs of life meanwhile (``engine.bus.life``),
        and is given up on after so long without one.

        Raises:
            BusTimeout, Disconnected: it may have been carried out, or not.
            NoResponders, NotPermitted: it was not carried out.
        """
        message = await self.ask(
            subject, payload, timeout_s=timeout_s, silent_s=silent_s, headers=headers
        )
        answer = message.payload
        if not answer.startswith(MAGIC):
            return answer
        try:
            return await unpacked(answer)
        except ValueError as error:
            raise BusError(f"the answer on {subject} cannot be read: {error}") from error

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
        silent_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Message:
        """Ask and return the answer with its headers. As ``request``, and raises so."""
        token = str(next(self._tokens))
        waiter = OneAnswer(subject, silent_s)
        if silent_s is not None:
            headers = {**(headers or {}), SIGN: "wanted"}
        self._waiting[token] = waiter
        timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, token)
        try:
            await self.publish(subject, payload, headers, reply=self._inbox + token)
            message = Message(self, await waiter.future)
        finally:
            timer.cancel()
            waiter.close()
            self._waiting.pop(token, None)
        if message.headers and message.headers.get(STATUS) == NO_RESPONDERS:
            raise NoResponders(f"nobody answers on {subject}")
        return message

    async def ask_many(
        self, subject: str, payload: bytes, *, timeout_s: float
    ) -> AsyncGenerator[Message]:
        """Ask, and yield answers for as long as the caller wants more.

        ``timeout_s`` bounds the wait for each. Raises as ``request``.
        """
        token = str(next(self._tokens))
        waiter = ManyAnswers(subject)
        self._waiting[token] = waiter
        try:
            await self.publish(subject, payload, reply=self._inbox + token)
            while True:
                try:
                    async with asyncio.timeout(timeout_s):
                        answer = await waiter.queue.get()
                except TimeoutError:
                    raise BusTimeout(f"no answer from {subject} in {timeout_s} s") from None
                if isinstance(answer, Exception):
                    raise answer
                message = Message(self, answer)
                if message.headers.get(STATUS) == NO_RESPONDERS:
                    raise NoResponders(f"nobody answers on {subject}")
                yield message
        finally:
            self._waiting.pop(token, None)

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", concurrency: int = 1
    ) -> Subscription:
        """Hand each message on ``subject`` to ``handler``; of a ``queue`` group, to one member.

        Messages are handled one after another, in order; or up to ``concurrency`` at once. A
        handler that fails is logged and loses its own message only. When this returns, the server
        knows of the interest.

        Raises:
            NotPermitted: the user may not listen there.
        """
        heard = handler if subject.startswith(INBOXES) else deaf_to_streams(handler)
        subscription = Subscription(self, heard, concurrency)
        try:
            await subscription.start(self._client, subject, queue)
            await self._client.settle(FLUSH_S)
        except LOST as error:
            raise BusError(f"cannot subscribe to {subject}: {error}") from error
        refusal = f'subscription to "{subject.lower()}"'
        if any(refusal in refused for refused in self._refused):
            self._refused = [refused for refused in self._refused if refusal not in refused]
            await subscription.stop()
            raise NotPermitted(f"{self.user} may not subscribe to {subject}")
        return subscription

    async def respond(self, reply: str, payload: bytes) -> None:
        """Answer on ``reply``, if an answer is awaited and goes to an inbox."""
        if not reply:
            return
        if not reply.startswith(ANSWERS):
            log.warning("answer_not_sent", reply=reply, why="not an inbox")
            return
        await self.publish(reply, await packed(payload))

    async def sign(self, reply: str) -> None:
        """Tell who waits for an answer on ``reply`` that it is being worked on."""
        if reply.startswith(ANSWERS):
            await self.publish(reply, b"", {SIGN: "of life"})

    def new_inbox(self) -> str:
        """Return a fresh subject that only this user may listen to."""
        return self._client.new_inbox()

    async def flush(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the server has taken everything that was sent.

        Raises:
            BusTimeout: it did not say so in time.
        """
        try:
            await self._client.settle(timeout_s)
        except LOST as error:
            raise BusTimeout(f"not flushed in {timeout_s} s") from error

    async def close(self) -> None:
        """Send what is buffered and close. Can be repeated."""
        self._closing = True
        if self._client.is_connected:
            with contextlib.suppress(*LOST, BusError):
                await self._client.settle(CLOSE_S)
        self._drop_waiting(Disconnected("the bus was closed"))
        # Closed while the connection is away, nats-py writes to the transport that is gone.
        with contextlib.suppress(*LOST, TypeError, RuntimeError):
            await self._client.close()
        self.closed.set()
        if self.store is not self:
            await self.store.close()

    async def _connect(self, name: str, timeout_s: float) -> None:
        self._login_refused = asyncio.get_running_loop().create_future()
        servers = [f"nats://{at.host}:{at.port}" for at in addresses(self.url)]
        secure = trust(self.authority)
        tls = {"tls": secure, "tls_handshake_first": True} if secure else {}
        connecting = asyncio.create_task(
            self._client.connect(
                servers,
                user=self.user,
                password=self.password,
                name=name,
                inbox_prefix=f"_INBOX_{self.user}",
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # passed to sleep
                connect_timeout=DIAL_S if len(servers) > 1 else 5,
                ping_interval=PING_S,
                pending_size=PENDING_BYTES_MAX,
                **tls,  # type: ignore[arg-type]  # of a dictionary
            )
        )
        waiting = {connecting, self._login_refused}
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await self._client.close()
            where = ",".join(server.removeprefix("nats://") for server in servers)
            if self._login_refused.done():
                raise NotPermitted(f"{where} refused the password of {self.user}")
            raise BusTimeout(f"no answer from {where} in {timeout_s} s{self._why}")
        connecting.result()
        self._login_refused = None
        self._inbox = self._client.new_inbox() + "."
        await self._client.subscribe(self._inbox + "*", cb=self._on_answer, pending_bytes_limit=0)

    async def _on_answer(self, message: Msg) -> None:
        waiter = self._waiting.get(message.subject.rpartition(".")[2])
        if waiter is not None:
            waiter.take(message)

    def _expire(self, token: str) -> None:
        if waiter := self._waiting.get(token):
            waiter.take(BusTimeout(f"no answer from {waiter.subject} in time"))

    def _drop_waiting(self, error: BusError) -> None:
        for waiter in list(self._waiting.values()):
            waiter.take(error)

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        self._why = f": {error}" if text else self._why
        if "authorization violation" in text:
            log.error("login_refused", user=self.user)
            if self._login_refused and not self._login_refused.done():
                self._login_refused.set_result(None)
        elif "permissions violation" in text:
            log.error("not_permitted", user=self.user, error=text)
            self._refused.append(text)
            del self._refused[:-100]
            # The server lowers nothing, but nats-py does; compare so.
            if found := re.search(r'publish to "([^"]+)"', text):
                for waiter in list(self._waiting.values()):
                    if waiter.subject.lower() == found[1]:
                        waiter.take(
                            NotPermitted(f"{self.user} may not publish to {waiter.subject}")
                        )
        elif not isinstance(error, OSError) and not isinstance(error, nats.errors.UnexpectedEOF):
            # Lost connections and vain attempts to dial are told of once, below.
            log.warning("bus_error", user=self.user, error=str(error) or type(error).__name__)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.warning("bus_disconnected", user=self.user)
        self._drop_waiting(Disconnected("the connection was lost"))

    async def _on_reconnected(self) -> None:
        log.info("bus_reconnected", user=self.user)
        for callback in list(self.on_reconnect):
            try:
                await callback()
            except Exception:
                log.exception("on_reconnect_failed", user=self.user)

    async def _on_closed(self) -> None:
        self.closed.set()
