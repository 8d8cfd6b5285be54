"""`cumulog admin log-roll` and `log-drop`: the steps of ``engine.log.rollover`` on a cell."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import uuid_utils

from cli.problem import USAGE, Problem
from cli.state import State
from engine.bus.client import Bus, BusError
from engine.bus.service import submit_as_admin
from engine.log.checkpoint import CheckpointBroken, held
from engine.log.commit import ChainBroken
from engine.log.port import LogError
from engine.log.replay import replay
from engine.log.replay_all import replay_log
from engine.log.rollover import (
    Droppable,
    Undroppable,
    candidate,
    drop,
    next_number,
    open_next,
    require_archived,
)
from engine.log.signing import KeysUnreadable
from engine.log.stream import LogConfigDiffers
from projections.history import History, history_path
from projections.notary import book_of, keys_of
from projections.segment import HistoryBroken
from schemas.config import Config
from schemas.engine import RollLog
from schemas.envelope import Actor, Client, Refused, Request
from schemas.errors import Unavailable
from schemas.ids import SYSTEM_USER

CLOSED_S = 30.0
SEAL_S = 600.0
LOOK_S = 0.05
LOST_S = 5.0
FAILURES = (
    BusError,
    ChainBroken,
    CheckpointBroken,
    HistoryBroken,
    KeysUnreadable,
    LogConfigDiffers,
    LogError,
    Undroppable,
)


def admin_config(path: str, authority: str, state_dir: str) -> Config:
    """Return what the administrator logs in to the broker with.

    ``path`` is the admin component's file, or "" for the cloud of this machine; ``state_dir``, if
    given, is where history and checkpoints lie.

    Raises:
        Problem: it cannot be read.
    """
    file = Path(path) if path else State.at(state_dir).config_file("bootstrap")
    try:
        config = msgspec.json.decode(file.read_bytes(), type=Config)
    except OSError as error:
        raise Problem(
            f"cannot read {file}: {error.strerror}",
            hint="Name the state directory of `up`, or the file of the admin component.",
            exit_code=USAGE,
        ) from error
    except msgspec.MsgspecError as error:
        raise Problem(f"{file} is not a configuration: {error}", exit_code=USAGE) from error
    return msgspec.structs.replace(
        config,
        nats_ca=authority or config.nats_ca,
        state_dir=str(State.at(state_dir).root) if state_dir else config.state_dir,
    )


def roll(config: Config, to: int | None) -> dict[str, Any]:
    """Close the log's stream and make the next one; complete what was cut short.

    Raises:
        Problem: it was not done; it can be run again.
    """
    try:
        return asyncio.run(_roll(config, to))
    except FAILURES as error:
        raise Problem(f"the log was not rolled over: {error}", hint="Run it again.") from error


async def _roll(config: Config, to: int | None) -> dict[str, Any]:
    async with broker(config) as bus, broker(config, store=False) as cell:
        number, made = await open_next(bus, replicas=config.replicas)
        if made:
            return {"stream": number, "result": "a roll-over that was cut short is complete now"}
        if to is not None and to <= number:
            return {"stream": number, "result": "nothing to do"}
        wanted = await next_number(bus)
        if to is not None and to != wanted:
            raise Problem(f"the log is in stream {number}, so it can go on in {wanted} only")
        began = time.monotonic()
        failed = await _decided(cell, wanted)
        deadline = time.monotonic() + (CLOSED_S if failed is None else LOST_S)
        while number < wanted:
            number, made = await open_next(bus, replicas=config.replicas)
            if number < wanted and time.monotonic() > deadline:
                raise failed or Problem("the engine has closed a stream, but not in this log")
            await asyncio.sleep(LOOK_S)
        waited_ms = round((time.monotonic() - began) * 1000)
        return {"stream": number, "result": "rolled over", "waited_ms": waited_ms}


async def _decided(bus: Bus, number: int) -> Problem | None:
    """Have the engine close its stream. What went wrong may have gone wrong after that."""
    request = Request(
        request_id=f"req-{uuid_utils.uuid7()}",
        actor=Actor(kind="system", user_id=SYSTEM_USER),
        action=RollLog(number=number),
        submitted_at=time.time_ns() // 1000,
        client=Client(api="admin"),
    )
    try:
        outcome = await submit_as_admin(bus, request)
    except Unavailable as error:
        return Problem(f"the engine was asked to close its stream: {error}", hint="Run it again.")
    if isinstance(outcome.verdict, Refused):
        return Problem(f"the engine does not close its stream: {outcome.verdict.reason}")
    return None


def find_droppable(config: Config, number: int) -> Droppable | None:
    """Check that nothing is lost with a stream; None if it was dropped before.

    Raises:
        Problem: it must stay.
    """
    try:
        info = asyncio.run(_candidate(config, number))
        if info is None:
            return None
        asyncio.run(_seal(config))
        kept = held(book_of(config).lines(), keys_of(config).public())
        history = History(history_path(config))
        first = int(info["state"]["first_seq"])
        return require_archived(
            number,
            info,
            _stream(config, info["config"]["name"], first - 1),
            history.commits_after,
            lambda after: _log(config, after),
            kept.checkpoints,
        )
    except FAILURES as error:
        raise Problem(f"stream {number} was not dropped: {error}") from error


def drop_stream(config: Config, number: int) -> None:
    """Drop it.

    Raises:
        Problem: it was not done, or nobody knows.
    """
    try:
        asyncio.run(_drop(config, number))
    except FAILURES as error:
        raise Problem(f"stream {number} was not dropped: {error}", hint="Run it again.") from error


def confirm(question: str) -> None:
    """Ask a person.

    Raises:
        Problem: there is nobody to ask, or the answer is not yes.
    """
    if not sys.stdin.isatty():
        raise Problem("nobody can be asked here", hint="Say --yes.")
    print(f"{question} Type yes to go on: ", end="")
    if input().strip() != "yes":
        raise Problem("nothing was done")


async def _candidate(config: Config, number: int) -> dict[str, Any] | None:
    async with broker(config) as bus:
        return await candidate(bus, number)


async def _seal(config: Config) -> None:
    """Have the archiver seal and sign what there is. What it did is seen by looking."""
    async with broker(config, store=False) as bus:
        with contextlib.suppress(BusError):  # nobody archives now; enough may be archived
            for question in ("seal", "checkpoint"):
                await bus.request(
                    bus.subjects.history(question),
                    b"",
                    timeout_s=SEAL_S,
                    silent_s=config.history_silent_s,
                )


async def _drop(config: Config, number: int) -> None:
    async with broker(config) as bus:
        await drop(bus, number)


@contextlib.asynccontextmanager
async def broker(config: Config, *, store: bool = True) -> AsyncIterator[Bus]:
    """Give the administrator's connection to where the log and the keys are, or to the engine.

    Raises:
        Problem: the authority's file cannot be read.
    """
    try:
        bus = await Bus.configured(config, "admin", store=store)
    except OSError as error:
        raise Problem(f"cannot read {config.nats_ca}: {error.strerror}", exit_code=USAGE) from error
    try:
        yield bus
    finally:
        await bus.close()


def _stream(config: Config, stream: str, after_seq: int) -> Iterator[tuple[int, bytes]]:
    return replay(
        config.nats_url,
        config.nats_user,
        config.nats_password,
        stream,
        after_seq,
        authority=config.nats_ca,
        lost_s=LOST_S,
    )


def _log(config: Config, after_seq: int) -> Iterator[tuple[int, bytes]]:
    return replay_log(
        config.nats_url,
        config.nats_user,
        config.nats_password,
        config.cell,
        after_seq,
        authority=config.nats_ca,
        lost_s=LOST_S,
    )
