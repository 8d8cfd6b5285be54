"""`cumulog admin log-roll` and `log-drop`: the steps of ``engine.log.rollover`` on a cell."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from cli.client import Client
from cli.problem import USAGE, Problem
from cli.state import State
from engine.bus.client import Bus, BusError
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


def roll(config: Config, client: Callable[[], Client], to: int | None) -> dict[str, Any]:
    """Close the log's stream and make the next one; complete what was cut short.

    Raises:
        Problem: it was not done; it can be run again.
    """
    try:
        return asyncio.run(_roll(config, client, to))
    except FAILURES as error:
        raise Problem(f"the log was not rolled over: {error}", hint="Run it again.") from error


async def _roll(config: Config, client: Callable[[], Client], to: int | None) -> dict[str, Any]:
    async with broker(config) as bus:
        number, made = await open_next(bus, replicas=config.replicas)
        if made:
            return {"stream": number, "result": "a roll-over that was cut short is complete now"}
        if to is not None and to <= number:
            return {"stream": number, "result": "nothing to do"}
        wanted = await next_number(bus)
        if to is not None and to != wanted:
            raise Problem(f"the log is in stream {number}, so it can go on in {wanted} only")
        # Signing in takes its time, in which nothing has to wait yet.
        account = await asyncio.to_thread(client)
        with contextlib.closing(account):
            await asyncio.to_thread(account.token)
            began = time.monotonic()
            failed = await asyncio.to_thread(_decided, account, wanted)
        deadline = time.monotonic() + (CLOSED_S if failed is None else LOST_S)
        while number < wanted:
            number, made = await open_next(bus, replicas=config.replicas)
            if number < wanted and time.monotonic() > deadline:
                raise failed or Problem(
                    "the engine has closed a stream, but not in this log",
                    hint="Name the account and the state directory of one cloud.",
                )
            await asyncio.sleep(LOOK_S)
        waited_ms = round((time.monotonic() - began) * 1000)
        return {"stream": number, "result": "rolled over", "waited_ms": waited_ms}


def _decided(client: Client, number: int) -> Problem | None:
    """Have the engine close its stream. What went wrong may have gone wrong after that."""
    try:
        client.submit({"type": "RollLog", "number": number})
    except Problem as problem:
        return problem
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
    bus = await Bus.connect(
        config.nats_url,
        user=config.nats_user,
        password=config.nats_password,
        name="admin",
        cell=config.cell,
        authority=config.nats_ca,
    )
    try:
        with contextlib.suppress(BusError):  # nobody archives now; enough may be archived
            for question in ("seal", "checkpoint"):
                await bus.request(bus.subjects.history(question), b"", timeout_s=SEAL_S)
    finally:
        await bus.close()


async def _drop(config: Config, number: int) -> None:
    async with broker(config) as bus:
        await drop(bus, number)


@contextlib.asynccontextmanager
async def broker(config: Config) -> AsyncIterator[Bus]:
    """Give the administrator's connection to where the log and the keys are.

    Raises:
        Problem: the authority's file cannot be read.
    """
    try:
        bus = await Bus.connect(
            config.nats_url,
            user=config.nats_user,
            password=config.nats_password,
            name="admin",
            cell=config.cell,
            store=True,
            authority=config.nats_ca,
        )
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
