"""The composition root: the one place that joins a process' parts and runs them.

``run_process`` reads what `up` (or an operator) wrote for the process and runs its ``run(config)``
under uvloop, logging JSON to standard error. A process whose supervisor dies is told to stop.
"""

import asyncio
import atexit
import functools
import gc
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.problem import LOG_UNAVAILABLE, USAGE, Problem, run_to_exit
from cli.state import PROCESSES, STANDBY, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.config import Config, LogLevel

# What runs each process: a module with ``async def run(config) -> None``.
ENTRIES = {
    "engine": "engine.run",
    STANDBY: "engine.run",
    "projector": "projections.runner",
    "archiver": "projections.archiver",
    "courier": "projections.courier.run",
    "agent": "executors.run",
    "api": "api.run",
}
assert set(ENTRIES) == {*PROCESSES, STANDBY}, "every process has its entry"

# State is long-lived and without cycles, so full collections are made rare (Python: gc module).
GC_THRESHOLDS = (20_000, 50, 100)
SUPERVISOR = "CUMULOG_SUPERVISOR"
PR_SET_PDEATHSIG = 1


def run_process(name: str, state_dir: str) -> None:
    """Run one process until it is told to stop.

    Raises:
        Problem: it is unknown, or has no configuration.
    """
    if name not in ENTRIES:
        raise Problem(
            f"no process {name!r}", hint=f"There are {', '.join(ENTRIES)}.", exit_code=USAGE
        )
    follow_supervisor()
    import msgspec
    import uvloop

    from engine.log.port import LogUnavailable
    from schemas.config import Config

    path = State.at(state_dir).config_file(name)
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise Problem(
            f"cannot read {path}: {error.strerror}",
            hint="`cumulog up` writes it; run the process as the same user.",
            exit_code=USAGE,
        ) from error
    except msgspec.MsgspecError as error:
        raise Problem(f"{path} is not a configuration: {error}", exit_code=USAGE) from error
    log_json(name, config.log_level)
    run = importlib.import_module(ENTRIES[name]).run
    if ENTRIES[name] == "engine.run":
        # The engine knows no projection, but needs what only sealed history has of the log.
        run = functools.partial(run, archived=functools.partial(_archived, config))
    # What is loaded now stays: a collection that looked at it each time would find nothing.
    gc.freeze()
    atexit.register(thaw)
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config))
    except LogUnavailable as error:
        raise Problem(
            f"the event log takes no commits: {error}", exit_code=LOG_UNAVAILABLE
        ) from error


def thaw() -> None:
    """Let what DuckDB has loaded go at the end: of what stays it says that it has leaked."""
    if "duckdb" in sys.modules:
        gc.unfreeze()


def run_then(directory: Path, node: str, at: int, listen: str, present: "Config") -> None:
    """Run the one process of a cloud of the past until it is told to stop.

    ``present`` is what the API of the present cloud was told, ``at`` the moment's time.
    """
    import msgspec
    import uvloop

    from api.then import run
    from engine.bus.client import BusError

    log_json("then", present.log_level)
    config = msgspec.structs.replace(
        present,
        state_dir=str(directory),
        node=node,
        listen=listen,
        public_url="",
        tls_certificate="",
        tls_key="",
        metrics_token_file="",
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config, at))
    except BusError as error:
        raise Problem(
            f"the keys of the present cloud cannot be reached: {error}", hint="Is it up?"
        ) from error
    except OSError as error:
        raise Problem(f"cannot serve at {listen}: {error.strerror}", exit_code=USAGE) from error


def _archived(config: "Config", after_seq: int) -> "Iterator[tuple[int, bytes]]":
    """Yield the sealed commits after a sequence."""
    from projections.history import History, history_path

    return History(history_path(config)).commits_after(after_seq)


def follow_supervisor() -> None:
    """Ask the kernel to send SIGTERM when the supervisor dies, so that no process is left over.

    Does nothing when no supervisor started us. prctl(2), PR_SET_PDEATHSIG.
    """
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is None:
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(supervisor):  # it died before we asked
        sys.exit(0)


def log_json(process: str, level: "LogLevel" = "info") -> None:
    """Write every log line, ours and libraries', as one JSON object to standard error.

    Ours from ``level`` on, libraries' warnings; and of an exception where it was, without
    local variables.
    """
    import msgspec
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        # Without locals: they hold passwords, tokens and whole requests.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
    ]

    def name_process(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    def encoded(event: object, **_: object) -> str:
        return msgspec.json.encode(event, enc_hook=str).decode()

    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        processors=[*shared, name_process, structlog.processors.JSONRenderer(encoded)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                name_process,
                structlog.processors.JSONRenderer(encoded),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def start_broker(directory: str, cell: str, host: str, log_file: str) -> None:
    """Start nats-server, print its address and process id as JSON, and leave it running.

    The supervisor runs this in a short-lived process of its own, to stay small itself.
    """
    import json

    from engine.bus.client import BusError
    from engine.log import server
    from engine.log.stream import LogConfigDiffers

    server.end_orphan(Path(directory))
    try:
        nats = server.start(Path(directory), cell=cell, host=host, log_file=Path(log_file))
        try:
            asyncio.run(_prepare_store(nats.url, nats.credentials["admin"], cell))
        except BaseException:
            nats.stop()
            raise
    except (server.ServerFailed, LogConfigDiffers, BusError) as error:
        print(f"cumulog: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps({"url": nats.url, "pid": nats.pid, "version": nats.version}), flush=True)


async def _prepare_store(url: str, password: str, cell: str) -> None:
    """Make the streams and keys that are not there yet, before anybody looks for them."""
    from engine.bus.access import ensure_access_stream
    from engine.bus.client import Bus
    from engine.bus.keys import Keys
    from engine.log.rollover import open_next
    from engine.log.stream import ensure_log

    bus = await Bus.connect(
        url, user="admin", password=password, name="broker", cell=cell, store=True
    )
    try:
        await ensure_log(bus)
        await open_next(bus)
        keys = Keys(bus)
        await keys.ensure_bucket()
        await keys.ensure_token_keys()
        await ensure_access_stream(bus)
    finally:
        await bus.close()


def end_broker(directory: str) -> None:
    """End a nats-server that a killed supervisor left running."""
    from engine.log import server

    server.end_orphan(Path(directory))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["broker", *arguments]:
            run_to_exit(lambda: start_broker(*arguments))
        case ["end-broker", directory]:
            run_to_exit(lambda: end_broker(directory))
        case arguments:
            run_to_exit(lambda: run_process(*arguments))
