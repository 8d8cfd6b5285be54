"""The API process: HTTP in front, the read model and the engine behind.

Granian serves from within this process (its sockets and parsing run in threads of its own).
Invariant: whoever was accepted is answered. A stop says so first (``/readyz``, and a header that
has clients go elsewhere), goes on listening for as long as it is configured to, and lets requests
under way end. A process that another one replaces (SIGHUP) leaves new connections to that one.
"""

import asyncio
import contextlib
import gc
import resource
import signal
from functools import partial
from pathlib import Path

import msgspec
import structlog
from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings

from api import metadata
from api.access import AccessLog
from api.app import create_app
from api.auth import Authenticator, now
from api.connections import Connections
from api.edge import Edge
from api.forwarded import Proxies
from api.image import leftovers
from api.limits import Limits
from api.listening import BACKLOG, SocketServer, listen, tell_ready
from api.passwords import Passwords
from api.tokens import REFRESH_S, TokenRing
from api.waiting import Waiter
from engine.bus.client import Bus, BusError, Message
from engine.bus.keys import Keys
from engine.bus.service import ask_engine
from executors.storage.blob import Blobs
from projections.access import AccessReader, access_path
from projections.proving import decode_proof
from projections.reader import Reader
from projections.sql.queries import Queries
from schemas.config import Config
from schemas.errors import Rejected

log = structlog.get_logger(__name__)

STREAMS_MAX = 100  # requests at once on one connection of HTTP/2
PING_S = 30.0  # whether a connection of HTTP/2 still has another end
MS = 1000
TLS = {"1.2": SSLProtocols.tls12, "1.3": SSLProtocols.tls13}
SWEEP_S = 600.0
# How long clients get to notice that they should connect anew, and requests under way to end.
LINGER_S = 2.0
SETTLE_S = 0.05
STOP_S = 5.0
REPLACED_S = 600.0  # nobody waits for a process that was replaced


class _Status(msgspec.Struct, frozen=True):
    """The part of the engine's status that is needed here."""

    ordinal: int


_decode_status = msgspec.json.Decoder(_Status).decode


class Stop:
    """How the process was told to stop. Told once more, it stops at once."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.hurry = asyncio.Event()
        self.replaced = False

    def tell(self, *, replaced: bool = False) -> None:
        """Stop; ``replaced``: another process serves already."""
        if self.told.is_set():
            self.hurry.set()
        self.replaced = replaced
        self.told.set()


async def run(config: Config) -> None:
    """Be an edge until SIGTERM or SIGINT; or until SIGHUP, when another one has taken over."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.tell)
    loop.add_signal_handler(signal.SIGHUP, partial(stop.tell, replaced=True))
    await serve(config, stop)


async def serve(config: Config, stop: Stop) -> None:
    """Be an edge until told to stop."""
    bus = await Bus.configured(config, f"api-{config.node}")
    edge = make_edge(config, bus)
    tasks: list[asyncio.Task[None]] = []
    try:
        await _read_keys(edge)
        await _listen(edge)
        edge.access.start()
        tasks += [asyncio.create_task(_sweep(edge)), asyncio.create_task(_follow_ring(edge))]
        await serve_http(edge, stop)
    finally:
        edge.closing.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await edge.access.close()
        await edge.waiter.close()
        await edge.providers.close()
        await bus.close()
        edge.pasts.close()
        edge.reader.close()


def make_edge(config: Config, bus: Bus) -> Edge:
    """Join the parts of one edge."""
    keys = Keys(bus)
    proxies = Proxies(config.trusted_proxies)
    reader = Reader(Path(config.state_dir) / "read" / f"{config.node}.sqlite")
    ring = TokenRing(keys.token_keys)
    waiter = Waiter(reader.position)
    return Edge(
        config=config,
        bus=bus,
        keys=keys,
        blobs=Blobs(Path(config.state_dir) / "blobs"),
        reader=reader,
        waiter=waiter,
        ring=ring,
        authenticator=Authenticator(ring, reader, lambda: waiter.newest),
        passwords=Passwords(),
        access=AccessLog(bus, config.node, clock=now),
        audit=AccessReader(access_path(config)),
        queries=Queries(config),
        proxies=proxies,
        limits=Limits(config),
        connections=Connections(config, proxies, _descriptors()),
    )


def _descriptors() -> int:
    """Allow this process as many descriptors as it may have, and return how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def _read_keys(edge: Edge) -> None:
    """Have the ring that opens tokens, before the first token comes."""
    while True:
        try:
            await edge.keys.ensure_token_keys()
            await edge.ring.refresh()
        except (BusError, Rejected) as error:
            log.warning("keys_not_read", error=str(error))
            await asyncio.sleep(0.5)
        else:
            return


async def _follow_ring(edge: Edge) -> None:
    """Take up keys for tokens that were rotated elsewhere, and let go of those dropped."""
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            if await edge.ring.refresh():
                log.info("token_keys_changed", ring=edge.ring.seq)
        except (BusError, Rejected) as error:
            log.warning("token_keys_not_read", error=str(error))


async def _listen(edge: Edge) -> None:
    async def announced(message: Message) -> None:
        edge.waiter.announced(int(message.payload))

    async def proven(message: Message) -> None:
        proof = decode_proof(message.payload)
        edge.waiter.announced(proof.ordinal)
        edge.freshness.proven(proof.at_ns)

    subjects, node = edge.bus.subjects, edge.config.node
    await edge.bus.subscribe(subjects.projected(node), announced)
    await edge.bus.subscribe(subjects.proven(node), proven)
    await metadata.serve(edge)


async def _sweep(edge: Edge) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            engine = _decode_status(await ask_engine(edge.bus, "status"))
            if edge.reader.position() < engine.ordinal:
                continue  # What lags does not know every image.
            removed = await leftovers.sweep(edge.blobs, edge.reader)
        except (OSError, BusError, Rejected, msgspec.MsgspecError) as error:
            log.warning("blobs_not_swept", error=str(error))
        else:
            if removed:
                log.info("blobs_swept", removed=removed)


async def serve_http(edge: Edge, stop: Stop) -> None:
    """Serve until told to stop."""
    config = edge.config
    listening = listen(config)
    address, port, *_ = listening.getsockname()
    server = SocketServer(
        create_app(edge),
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(config.keep_alive_s * MS),
            max_buffer_size=config.head_bytes_max,
        ),
        http2_settings=HTTP2Settings(
            keep_alive_interval=round(PING_S * MS),
            max_concurrent_streams=STREAMS_MAX,
            max_headers_size=config.head_bytes_max,
        ),
        backlog=BACKLOG,
        backpressure=edge.connections.backpressure,
        websockets=False,
        log_enabled=False,
        ssl_cert=Path(config.tls_certificate) if config.tls_certificate else None,
        ssl_key=Path(config.tls_key) if config.tls_key else None,
        ssl_protocol_min=TLS[config.tls_minimum],
    )
    server.listening = listening
    # What the process is made of lives as long as it does: leave it out of every collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    serving = asyncio.create_task(server.serve())
    watching = asyncio.create_task(edge.connections.watch(port))
    stopping = asyncio.create_task(stop.told.wait())
    log.info("serving", listen=config.listen)
    tell_ready()
    try:
        await asyncio.wait({serving, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
        edge.closing.set()
        edge.access.stop()
        if watching.done():
            watching.result()
        await _drain(server, stop, config.drain_s)
    finally:
        stopping.cancel()
        watching.cancel()
    server.stop()  # type: ignore[no-untyped-call]  # granian does not say
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, REPLACED_S if stop.replaced else STOP_S)


async def _drain(server: SocketServer, stop: Stop, drain_s: float) -> None:
    """Let clients go elsewhere, while what they still ask is answered."""
    log.info("draining", replaced=stop.replaced, drain_s=drain_s)
    if stop.replaced:
        drain_s = max(drain_s, LINGER_S)
        server.stop_accepting()
    if drain_s > 0.0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.hurry.wait(), drain_s)
    server.stop_accepting()
    # Granian closes at once on whom it has heard nothing of yet: hear who was accepted just now.
    await asyncio.sleep(SETTLE_S)
