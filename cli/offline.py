"""What a command needs to work on a state directory itself, whether its cloud is up or down."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cli.problem import Problem
from cli.state import State
from cli.up import end_orphans, hold
from engine.log import server
from engine.log.checkpoint import read_statement
from engine.log.export import ExportReport, export_lines, write_export
from engine.log.replay_all import replay_log
from projections.history import History, history_path
from projections.notary import Notary, book_of, keys_of
from projections.reader import Reader
from projections.runner import read_model_path
from schemas.config import Config

LOST_S = 2.0

type Read = Callable[[int], Iterator[tuple[int, bytes]]]


def export_offline(state: State, file: Path) -> ExportReport:
    """Write an export from sealed history and the broker's tail.

    Raises:
        Problem: the log is empty.
        ChainBroken: it is not what was written; nothing was published.
    """
    history = History(state.root / "history")
    with broker_of(state) as config:
        notary = notary_of(config)
        if notary.sign(time.time_ns() // 1000) is None:
            raise Problem("the log is empty")
        lines = export_lines(_commits(history, log_reader(config)), _statements(notary))
        return write_export(file, lines, keys_of(config).public())


def _commits(history: History, read: Read) -> Iterator[tuple[int, bytes]]:
    last = 0
    for last, data in history.commits_after(0):
        yield last, data
    yield from read(last)


def _statements(notary: Notary) -> Iterator[tuple[int, bytes]]:
    page = notary.statements(0, 0)
    while True:
        for sequence, line in page.lines:
            yield sequence, line.encode()
        if not page.more:
            return
        last = read_statement(page.lines[-1][1].encode(), None)
        page = notary.statements(last.ordinal, 0)


def offline_config(state: State, cell: dict[str, Any] | None = None) -> Config:
    """Return the archiver's configuration as it last ran; what it says of the bus may be stale."""
    cell = state.cell() if cell is None else cell
    try:
        config = msgspec.json.decode(state.config_file("archiver").read_bytes(), type=Config)
    except (OSError, msgspec.MsgspecError):
        config = Config(state_dir=str(state.root), cell=cell["cell"], node=cell["node"])
    return msgspec.structs.replace(config, state_dir=str(state.root))


@contextmanager
def broker_of(state: State) -> Iterator[Config]:
    """Have a broker to read from: the cloud's if it is up, or one alone for as long as needed."""
    config = offline_config(state)
    if state.supervisor() is not None:
        yield config
        return
    with hold(state):
        end_orphans(state)
        server.end_orphan(state.nats)
        nats = server.start(state.nats, cell=config.cell, host=config.host_id)
        try:
            yield msgspec.structs.replace(
                config,
                nats_url=nats.url,
                nats_user="history",
                nats_password=nats.credentials["history"],
            )
        finally:
            nats.stop()


def log_reader(config: Config) -> Read:
    """Return what yields the log's messages after a sequence."""
    history = History(history_path(config))

    def read(after_seq: int) -> Iterator[tuple[int, bytes]]:
        return replay_log(
            config.nats_url,
            config.nats_user,
            config.nats_password,
            config.cell,
            after_seq,
            authority=config.nats_ca,
            lost_s=LOST_S,
            archived=history.commits_after,
        )

    return read


def notary_of(config: Config) -> Notary:
    """Return a notary for the state directory."""
    return Notary(
        config.cell,
        keys_of(config),
        book_of(config),
        log_reader(config),
        History(Path(config.state_dir) / "history"),
        Reader(read_model_path(config)),
    )
