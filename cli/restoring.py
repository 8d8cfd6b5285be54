"""`cumulog log restore`: the steps of ``engine.log.restore`` on a state directory; what is lost."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from cli.offline import offline_config
from cli.problem import Problem
from cli.state import State
from cli.up import end_orphans, hold
from engine.log.checkpoint import Book, CheckpointBroken, Held, held
from engine.log.commit import ChainBroken
from engine.log.loss import End, accept, lost_after, marks
from engine.log.port import LogError
from engine.log.restore import Restore, RestoreFailed
from engine.log.server import ServerFailed
from engine.log.signing import KeysUnreadable
from engine.log.witness import Witness
from projections.history import History
from projections.notary import book_of, keys_of
from projections.reader import Reader
from projections.runner import read_model_path
from projections.segment import HistoryBroken

FAILURES = (
    ChainBroken,
    CheckpointBroken,
    HistoryBroken,
    KeysUnreadable,
    LogError,
    RestoreFailed,
    ServerFailed,
)


def restore_log(
    state: State, *, force: bool, accept_loss: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Restore the log of a cloud that is down; return what was done, and what is lost.

    Raises:
        Problem: the cloud is up, or the log could not be restored.
    """
    cell = state.cell()
    with hold(state):
        end_orphans(state)
        try:
            return _restore(state, cell, force=force, accept_loss=accept_loss, tell=tell)
        except FAILURES as error:
            raise Problem(f"the log was not restored: {error}", hint="Run it again.") from error


def _restore(
    state: State,
    cell: dict[str, Any],
    *,
    force: bool,
    accept_loss: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    book, kept = _signed(state, cell)
    witness = Witness(state.run / "acknowledged")
    known = marks(kept, witness.seen())
    witness.close()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    restored = Restore(
        state,
        cell["cell"],
        cell["host_id"],
        History(state.root / "history").readable,
        known=known,
        stamp=stamp,
        tell=tell,
    ).run(force=force)
    end = End(sequence=restored.commits, ordinal=restored.ordinals, hash=restored.last_hash)
    lost = lost_after(end, known, _read_position(state, cell))
    told: dict[str, Any] = {
        "result": "intact, nothing was done" if restored.was_intact else "restored",
        "commits": restored.commits,
        "ordinals": restored.ordinals,
        "last_hash": restored.last_hash,
        "salvaged": restored.salvaged,
        "appended": restored.appended,
        "old_log": restored.aside,
        "lost": f"{end.ordinal + 1} to {lost}" if lost else "",
        "accepted": bool(lost) and accept_loss,
    }
    if lost and accept_loss:
        now = time.time_ns() // 1000
        _, aside = accept(state.root, cell["cell"], end, lost, now=now, stamp=stamp)
        told["moved"] = str(aside)
        with contextlib.suppress(OSError):  # the archiver makes up for it
            book.mirror()
    if not any((state.nats / "store").glob("**/streams/KV_KEYS-*")):
        told["warning"] = "nats/ holds no keys: sealed values cannot be read until they are back"
    return told


def _signed(state: State, cell: dict[str, Any]) -> tuple[Book, Held]:
    """Return what was signed."""
    config = offline_config(state, cell)
    book = book_of(config)
    return book, held(book.lines(), keys_of(config).public())


def _read_position(state: State, cell: dict[str, Any]) -> int:
    """Return how far this node's read model has come; 0 if there is none that can be read."""
    path = read_model_path(offline_config(state, cell))
    if not path.exists():
        return 0
    try:
        reader = Reader(path)
        try:
            return reader.position()
        finally:
            reader.close()
    except Exception:  # noqa: BLE001  # it can be made again; what it knew is not needed
        return 0
