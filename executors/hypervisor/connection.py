"""One connection to libvirt, shared by all, and opened anew when it is lost.

Every call blocks a thread of a bounded pool and has a deadline. libvirt's events come from one
thread of the process, and are passed on into the event loop. This module and ``libvirt_host`` are
the only ones that know libvirt.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import libvirt
import structlog

from executors.errors import HypervisorError
from executors.hypervisor.daemon import Daemon
from executors.waiting import in_thread

log = structlog.get_logger(__name__)

_THREADS = 16
_OPEN_S = 120.0
_KEEPALIVE_S = 5
_KEEPALIVE_COUNT = 6
_REOPEN_FIRST_S = 0.1
_REOPEN_MOST_S = 5.0

type Lifecycle = Callable[[str, int, int], None]  # domain name, event, detail


class ConnectionLost(HypervisorError):
    """The daemon went away during a call, which may or may not have been carried out."""


class _Events:
    """libvirt's event loop: one for the process, set up before the first connection."""

    lock = threading.Lock()
    running = False

    @classmethod
    def ensure(cls) -> None:
        with cls.lock:
            if cls.running:
                return
            # Errors are raised; what libvirt would print besides is noise.
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=cls._loop, name="libvirt-events", daemon=True).start()
            cls.running = True

    @staticmethod
    def _loop() -> None:
        while True:
            with contextlib.suppress(libvirt.libvirtError):
                libvirt.virEventRunDefaultImpl()


class Connection:
    """The way to the daemon; starts it, and starts it again, if it is not there."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="libvirt")
        self._connection: libvirt.virConnect | None = None
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_lifecycle: Lifecycle = lambda _name, _event, _detail: None
        self._on_reopened: Callable[[], None] = lambda: None
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self, on_lifecycle: Lifecycle, on_reopened: Callable[[], None]) -> None:
        """Connect. Events then go to ``on_lifecycle``; after a loss ``on_reopened`` is called.

        Raises:
            HypervisorError: the daemon does not start.
        """
        self._loop = asyncio.get_running_loop()
        self._on_lifecycle = on_lifecycle
        self._on_reopened = on_reopened
        await self._ensure()

    async def close(self) -> None:
        """Disconnect. The daemon and its guests run on."""
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(_quietly, connection.close)
        self._threads.shutdown(wait=False)

    async def call[T](
        self,
        work: Callable[[libvirt.virConnect], T],
        *,
        deadline_s: float,
        again: bool = True,
    ) -> T:
        """Run ``work`` with the connection, in a thread.

        ``again`` says that it may be repeated if the daemon goes away meanwhile.

        Raises:
            ConnectionLost: the daemon went away (twice, if ``again``).
            HypervisorError: libvirt refused, or did not answer by the deadline.
        """
        try:
            return await self._once(work, deadline_s)
        except ConnectionLost:
            if not again:
                raise
            return await self._once(work, deadline_s)

    async def _once[T](self, work: Callable[[libvirt.virConnect], T], deadline_s: float) -> T:
        connection = self._connection or await self._ensure()

        def guarded() -> T:
            try:
                return work(connection)
            except libvirt.libvirtError as error:
                if not _is_alive(connection):
                    raise ConnectionLost("the libvirt daemon went away") from error
                raise HypervisorError(error.get_error_message() or str(error)) from error

        try:
            return await in_thread(self._threads, guarded, deadline_s=deadline_s)
        except ConnectionLost:
            self._lost(connection)
            raise

    async def _ensure(self) -> libvirt.virConnect:
        async with self._opening:
            if self._closed:
                raise HypervisorError("the connection to libvirt was closed")
            if self._connection is None:
                self._connection = await in_thread(
                    self._threads, self._open_blocking, deadline_s=_OPEN_S
                )
            return self._connection

    def _open_blocking(self) -> libvirt.virConnect:
        self._daemon.ensure()
        _Events.ensure()
        try:
            connection = libvirt.open(self._daemon.uri())
            connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._closed_event, None)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle_event, None
            )
        except libvirt.libvirtError as error:
            raise HypervisorError("the libvirt daemon does not answer") from error
        return connection

    # In libvirt's thread

    def _closed_event(self, connection: libvirt.virConnect, reason: int, _: object) -> None:
        self._pass_on(lambda: self._lost(connection, reason))

    def _lifecycle_event(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _: object,
    ) -> None:
        name = domain.name()
        self._pass_on(lambda: self._on_lifecycle(name, event, detail))

    def _pass_on(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
            self._loop.call_soon_threadsafe(call)

    # In the event loop

    def _lost(self, connection: libvirt.virConnect, reason: int = -1) -> None:
        # Callbacks hold the connection as a new object around the same handle: compare by state.
        current = self._connection
        if self._closed or current is None or (current is not connection and _is_alive(current)):
            return
        log.warning("libvirt.lost", reason=reason)
        self._connection = None
        self._threads.submit(_quietly, current.close)
        if self._reopening is None or self._reopening.done():
            assert self._loop is not None
            self._reopening = self._loop.create_task(self._reopen())

    async def _reopen(self) -> None:
        pause_s = _REOPEN_FIRST_S
        while not self._closed:
            try:
                await self._ensure()
            except HypervisorError as error:
                log.warning("libvirt.unreachable", why=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _REOPEN_MOST_S)
            else:
                self._on_reopened()
                return


def _is_alive(connection: libvirt.virConnect) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _quietly(call: Callable[[], object]) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        call()
