"""The engine's process: fold what there is, then be a candidate for the lead.

Here are the real clock, ids and randomness; everything below is given them.
"""

import asyncio
import contextlib
import gc
import secrets
import signal
import time
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any

import structlog
import uuid_utils

from engine.bus.client import Bus
from engine.bus.keys import Keys
from engine.bus.lease import Lease, LeaseBucket
from engine.bus.work import dispatch, ensure_work_stream
from engine.candidate import Candidate
from engine.folded import Folded
from engine.log.jetstream import JetStreamLog
from engine.log.replay_all import replay_log
from engine.log.stream import ensure_log
from engine.log.streams import Archived
from engine.log.witness import Seen, Witness
from engine.snapshot import load_newest, stands_on
from engine.snapshotter import Snapshotter
from engine.token_keys import rotate_when_due
from engine.turns import LeadershipLost
from schemas.config import Config
from schemas.units import Micros
from schemas.work import WorkItem

# How long a cluster's replicas may lag behind what was acknowledged before it counts as lost.
LAG_S = 20.0
RETRY_S = 0.1

logger = structlog.get_logger(__name__)


def wall_clock() -> Micros:
    """Return the time now, in microseconds."""
    return time.time_ns() // 1000


def fresh_id() -> str:
    """Return a fresh UUID, version 7: ids made together lie together in every index (RFC 9562)."""
    return str(uuid_utils.uuid7())


def fresh_salt() -> str:
    """Return 64 random bits, which hide a record from whoever sees the proof of its neighbour."""
    return secrets.token_hex(8)


def fold_log(
    config: Config, folded: Folded, seen: Seen | None = None, archived: Archived | None = None
) -> None:
    """Fold what the log holds beyond ``folded``; blocking, so run it in a thread.

    Raises:
        ChainBroken: the log is not what was written to it.
        msgspec.ValidationError: it holds facts that this version does not know.
    """
    for sequence, data in _messages(config, folded.sequence, archived):
        folded.take(sequence, data, seen)


def from_snapshot(config: Config, archived: Archived | None = None) -> Folded:
    """Return the state of the newest snapshot that this log continues, or of none; blocking.

    Raises:
        LogError: the log cannot be read.
    """
    folded = load_newest(snapshots(config), config.cell)
    if folded is None:
        return Folded()
    with contextlib.closing(_messages(config, folded.sequence - 1, archived)) as messages:
        found = next(messages, None)
    if found is not None and found[0] == folded.sequence and stands_on(folded, found[1]):
        return folded
    # As of a log that was cut or restored since: the witness says whether that may be.
    logger.warning("snapshot_of_another_log", ordinal=folded.cell.state.ordinal)
    return Folded()


def snapshots(config: Config) -> Path:
    """Return where a cell's snapshots lie."""
    return Path(config.state_dir) / "snapshots"


def _messages(
    config: Config, after_seq: int, archived: Archived | None
) -> Generator[tuple[int, bytes]]:
    yield from replay_log(
        config.nats_url,
        config.nats_user,
        config.nats_password,
        config.cell,
        after_seq,
        authority=config.nats_ca,
        archived=archived,
    )


async def run(config: Config, *, archived: Archived | None = None) -> None:
    """Be a candidate until told to stop.

    ``archived`` yields what follows a sequence of what is in no stream of the log any more.

    Raises:
        LeadershipLost: another engine leads; start again to fold the log anew.
        ChainBroken: the log is not what was written to it, or ends before what was acknowledged.
        LogError: the log takes no commits.
    """
    bus = await Bus.configured(config, f"engine-{config.node}")
    rotating: asyncio.Task[None] | None = None
    witness = Witness(Path(config.state_dir) / "run" / "acknowledged")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        bucket = LeaseBucket(bus, replicas=config.replicas)
        await ensure_log(bus, replicas=config.replicas)
        await ensure_work_stream(bus, replicas=config.replicas)
        await bucket.ensure()
        log = JetStreamLog(bus, replicas=config.replicas, archived=archived)
        folded = await _folded(config, log, witness, archived)
        # What was folded stays, and a full collection that looked at it each time would be felt.
        gc.collect()
        gc.freeze()
        snapshotter = Snapshotter(
            snapshots(config),
            cell_name=config.cell,
            every=config.snapshot_ordinals,
            began=folded.cell.state.ordinal,
        )
        candidate = Candidate(
            config,
            bus,
            log,
            Lease(
                bucket,
                node=config.node,
                candidate=fresh_id(),
                clock=wall_clock,
                monotonic=time.monotonic,
            ),
            folded,
            clock=wall_clock,
            new_id=fresh_id,
            salt=fresh_salt,
            send_work=lambda item: _send(bus, item),
            acknowledged=witness.note,
            note=snapshotter.note,
        )
        if config.token_keys_hours > 0:
            rotating = asyncio.create_task(rotate_when_due(Keys(bus), config.token_keys_hours))
        await _until(stop, candidate.run())
        await candidate.release()
        if (rest := candidate.at_rest()) is not None:
            await snapshotter.finish(rest)
    except LeadershipLost as error:
        logger.warning("leadership_lost", why=str(error))
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if rotating is not None:
            rotating.cancel()
            await asyncio.gather(rotating, return_exceptions=True)
        witness.close()
        await bus.close()


async def _folded(
    config: Config, log: JetStreamLog, witness: Witness, archived: Archived | None
) -> Folded:
    began = time.monotonic()
    seen = witness.seen()
    patience_s = LAG_S if config.replicas > 1 else 0.0
    end = await log.end()
    folded = await asyncio.to_thread(from_snapshot, config, archived)
    snapshot = folded.cell.state.ordinal
    while True:
        await asyncio.to_thread(fold_log, config, folded, seen, archived)
        if folded.sequence >= max(end, seen.sequence if seen else 0):
            break
        if time.monotonic() - began > patience_s:
            # A cluster's node that wakes up may tell for a moment of an end that is long past.
            break
        await asyncio.sleep(RETRY_S)
    folded.require(seen)
    logger.info(
        "folded",
        ordinal=folded.cell.state.ordinal,
        snapshot=snapshot,
        seconds=round(time.monotonic() - began, 3),
    )
    return folded


async def _send(bus: Bus, item: WorkItem) -> None:
    await dispatch(bus, item)


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Run ``work`` until it ends by itself or ``stop`` is set."""
    tasks: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(work),
        asyncio.ensure_future(stop.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
