"""What all tests share: a real broker for the session, and a cell of its own for each test."""

import contextlib
import gc
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from hypothesis import settings

from engine.bus.client import Bus
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.stream import StreamApiError, call, ensure_log
from tests.nodes import Cluster, started

# How long an example takes says more about the machine than about the code.
settings.register_profile("cumulog", deadline=None)
settings.load_profile("cumulog")

# The default draws all variables of all frames of an error, in the event loop: for seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

_cells = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the files that have slow tests first, so that none of them is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open() -> Iterator[None]:
    """Let what a file of tests leaves open be told there, and not wherever memory is tidied."""
    yield
    gc.collect()


class Nats:
    """A cell on the session's broker. Everything here is done as the administrator.

    One account holds streams and talk alike, so one connection does for all; what each user may do
    is tested where the permissions are.
    """

    def __init__(self, running: server.NatsServer) -> None:
        self.server = running
        self.url = running.url
        self.user = "admin-store"
        self.password = running.credentials["admin-store"]
        self.cell = f"t{os.getpid()}-{next(_cells)}"
        self._stack = contextlib.AsyncExitStack()

    async def connect(self, name: str = "test") -> Bus:
        """Return a new connection, closed after the test."""
        bus = await Bus.connect(
            self.url, user=self.user, password=self.password, name=name, cell=self.cell
        )
        self._stack.push_async_callback(bus.close)
        return bus

    async def log(self) -> JetStreamLog:
        """Return the cell's log, made if need be."""
        bus = await self.connect("log")
        await ensure_log(bus)
        return JetStreamLog(bus)

    async def close(self) -> None:
        """Close all connections, and give back the memory that the cell's work has reserved."""
        bus = await self.connect("close")
        with contextlib.suppress(StreamApiError):  # a cell need not have any
            await call(bus, f"STREAM.DELETE.{bus.subjects.work_stream}")
        await self._stack.aclose()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.NatsServer]:
    """One nats-server for the session, with a store of its own."""
    running = server.start(Path(tmp_path_factory.mktemp("nats")))
    yield running
    running.stop()


@pytest_asyncio.fixture
async def nats(nats_server: server.NatsServer) -> AsyncIterator[Nats]:
    """A fresh cell on the session's broker."""
    cell = Nats(nats_server)
    yield cell
    await cell.close()


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nats-servers on the loopback; see ``tests.nodes`` for what can be done to them."""
    nodes = await started(tmp_path, f"r{os.getpid()}-{next(_cells)}")
    yield nodes
    nodes.stop()
