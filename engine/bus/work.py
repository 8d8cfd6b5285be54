"""Work items: hints to hosts that there is something to do, through stream ``WORK``.

The stream lies in memory: it is derived from the log, and agents converge on the desired state
anyway. An item is delivered at least once while the broker lives. Consumers are made by the engine,
one for each executor of each host, so that an agent can reach no other host's items.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from weakref import WeakKeyDictionary

import msgspec
import structlog

from engine.bus.client import (
    NO_RESPONDERS,
    STATUS,
    Bus,
    BusError,
    BusTimeout,
    Disconnected,
    Message,
    NoResponders,
)
from engine.bus.stored import decode_ack
from engine.log.accounts import EXECUTORS, work_consumer
from engine.log.stream import call, ensure_stream
from schemas.work import WorkItem, decode_work_item, encode

log = structlog.get_logger(__name__)

DISPATCH_S = 10.0
ATTEMPT_S = 2.0
RETRY_S = 0.2
PULL_S = 30
HEARTBEAT_S = 5
PROBE_S = 1
BATCH_MAX = 64
ITEMS_MAX = 20_000
# An item has some kilobytes. What falls out before it is read is found by reconciliation.
BYTES_MAX = 32 * 2**20
SIGN_OF_LIFE = "100"
EXPIRED = "408"
SECOND_NS = 1_000_000_000


def _pull(expires_s: int, heartbeat_s: float) -> bytes:
    return msgspec.json.encode(
        {
            "batch": BATCH_MAX,
            "expires": expires_s * SECOND_NS,
            "idle_heartbeat": int(heartbeat_s * SECOND_NS),
        }
    )


PULL = _pull(PULL_S, HEARTBEAT_S)
PROBE = _pull(PROBE_S, PROBE_S / 4)

_hosts: WeakKeyDictionary[Bus, set[str]] = WeakKeyDictionary()
_replicas: WeakKeyDictionary[Bus, int] = WeakKeyDictionary()


async def ensure_work_stream(bus: Bus, *, replicas: int = 1) -> None:
    """Create the stream unless it is there, now and after each reconnect. Can be repeated.

    For ``engine`` and ``admin``, as all that sends work.
    """
    bus = bus.store
    if bus not in _hosts:
        _hosts[bus] = set()

        async def again() -> None:
            hosts = set(_hosts[bus])
            _hosts[bus].clear()
            await _ensure_stream(bus, replicas)
            for host in hosts:
                await ensure_work_of(bus, host)

        _replicas[bus] = replicas
        bus.on_reconnect.append(again)
    await _ensure_stream(bus, replicas)


async def ensure_work_of(bus: Bus, host: str) -> None:
    """Create the consumers from which a host's executors take their work. Can be repeated."""
    bus = bus.store
    known = _hosts.setdefault(bus, set())
    if host in known:
        return
    stream = bus.subjects.work_stream
    for executor in EXECUTORS:
        name, subject = work_consumer(host, executor), bus.subjects.work(host, executor)
        config = {
            "durable_name": name,
            "name": name,
            "filter_subject": subject,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": 60 * SECOND_NS,
            "max_deliver": 10,
            "max_ack_pending": 1000,
            "mem_storage": True,
        }
        body = {"stream_name": stream, "config": config}
        await call(bus, f"CONSUMER.CREATE.{stream}.{name}.{subject}", body)
    known.add(host)


async def dispatch(bus: Bus, item: WorkItem, *, timeout_s: float = DISPATCH_S) -> None:
    """Send an item to the executor that owns its operation. The same item again is dropped.

    Raises:
        BusError: not stored in ``timeout_s``; the agent will see it in its desired state.
    """
    bus = bus.store
    operation = item.operation
    host, executor = operation.host_id, operation.executor
    subject = bus.subjects.work(host, executor)
    # The operation too: a new leader sends all open ones out again as of one ordinal.
    headers = {"Nats-Msg-Id": f"{item.ordinal}.{host}.{executor}.{operation.operation_id}"}
    payload = encode(item)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await ensure_work_of(bus, host)
                    answer = await bus.ask(subject, payload, timeout_s=ATTEMPT_S, headers=headers)
                    break
                except NoResponders:  # A broker that was started anew has forgotten the stream.
                    _hosts[bus].discard(host)
                    await _ensure_stream(bus, _replicas.get(bus, 1))
                except (BusTimeout, Disconnected):
                    await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise BusTimeout(f"work for {host} was not stored in {timeout_s} s") from None
    if error := decode_ack(answer.payload).error:
        raise BusError(f"work for {host}: {error}")


async def follow_work(
    bus: Bus, host: str, executors: Iterable[str], handler: Callable[[WorkItem], Awaitable[None]]
) -> None:
    """Hand each item for ``executors`` of ``host`` to ``handler``, in order for each; never ends.

    An item is acknowledged once the handler returns; if it fails, the item comes again. It should
    only note what is to be done. Runs until cancelled.
    """
    async with asyncio.TaskGroup() as group:
        for executor in executors:
            group.create_task(_follow(bus, host, executor, handler))


async def _follow(
    bus: Bus, host: str, executor: str, handler: Callable[[WorkItem], Awaitable[None]]
) -> None:
    queue = f"{bus.subjects.work_stream}.{work_consumer(host, executor)}"
    inbox = bus.new_inbox()
    received: asyncio.Queue[Message | None] = asyncio.Queue()

    async def again() -> None:
        received.put_nowait(None)  # what was asked for before the connection was lost is lost too

    # Delivered under the item's own subject, so answers are told apart by their subscription.
    subscription = await bus.subscribe(inbox, received.put)
    bus.on_reconnect.append(again)
    # Across accounts nobody says that the consumer is not there (the engine has not made it yet, or
    # the broker was started anew): ask briefly until there is a sign of life.
    alive = False
    try:
        while True:
            pull, silent_s = (PULL, 2.5 * HEARTBEAT_S) if alive else (PROBE, 1.5 * PROBE_S)
            try:
                await bus.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", pull, reply=inbox)
            except BusError as error:
                log.warning("work_not_asked_for", host=host, executor=executor, error=str(error))
                await asyncio.sleep(RETRY_S)
            alive = await _take(bus, received, handler, silent_s)
    finally:
        bus.on_reconnect.remove(again)
        await subscription.stop()


async def _take(
    bus: Bus,
    received: asyncio.Queue[Message | None],
    handler: Callable[[WorkItem], Awaitable[None]],
    silent_s: float,
) -> bool:
    """Handle what one pull brings, until it ends; False if there was no sign of life."""
    taken = 0
    alive = False
    while taken < BATCH_MAX:
        try:
            async with asyncio.timeout(silent_s):
                message = await received.get()
        except TimeoutError:
            return False
        if message is None:
            return False
        status = message.headers.get(STATUS)
        if status is None:
            await _handle(bus, message, handler)
            taken += 1
        elif status == NO_RESPONDERS:
            await asyncio.sleep(RETRY_S)
            return False
        elif status != SIGN_OF_LIFE:
            return alive or status == EXPIRED
        alive = True
    return True


async def _handle(
    bus: Bus, message: Message, handler: Callable[[WorkItem], Awaitable[None]]
) -> None:
    try:
        item = decode_work_item(message.payload)
    except msgspec.DecodeError:
        log.exception("work_item_unreadable", subject=message.subject)
        await bus.publish(message.reply, b"+TERM")
        return
    try:
        await handler(item)
    except Exception:
        log.exception("work_item_failed", operation=item.operation.operation_id)
        return
    await bus.publish(message.reply, b"+ACK")


async def _ensure_stream(bus: Bus, replicas: int) -> None:
    names = bus.subjects
    await ensure_stream(
        bus,
        {
            "name": names.work_stream,
            "subjects": [names.work_all],
            "storage": "memory",
            "retention": "limits",
            "discard": "old",
            "max_age": 3600 * SECOND_NS,
            "max_msgs": ITEMS_MAX,
            "max_bytes": BYTES_MAX,
            "duplicate_window": 600 * SECOND_NS,
            "num_replicas": replicas,
            "allow_direct": True,
        },
    )
