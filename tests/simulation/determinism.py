"""Clocks and chance of the running interpreter, put under the simulation's rule while it runs.

Product code takes clocks and ids as arguments where they matter; what it reads by itself (a retry's
deadline, its jitter) it reads from these modules.
"""

import contextlib
import gc
import os
import random
import secrets
import time
import uuid

import structlog
import uuid_utils

from tests.simulation.loop import current_process

EPOCH = 1_800_000_000_000_000  # microseconds: when every simulation begins
HASH_SEED = "0"

# What a process only says when it has a defect.
DEFECTS = frozenset({
    "decision_failed", "handler_failed", "on_reconnect_failed", "undo.incomplete",
    "snapshot_failed", "snapshot_ignored", "wish.broke", "work_item_failed",
    "work_item_unreadable", "work.without_image",
})  # fmt: skip


def truth(loop):
    """Return the true time in microseconds."""
    return EPOCH + round(loop.now * 1_000_000)


def wall(loop):
    """Return what the clock of the machine says on which the running process is."""
    process = current_process()
    return truth(loop) + (0 if process is None else process.clock_offset)


def hash_seed_is_fixed():
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED


@contextlib.contextmanager
def determinism(loop, seed, said):
    """Rule over time, ids, chance and the log of events, until the block ends.

    ``said`` is told each (level, event, fields) that a process logs.
    """
    chance = random.Random(f"ids-{seed}")

    def new_uuid(*_args, **_fields):
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    def processor(_logger, level, fields):
        said(level, fields.pop("event"), fields)
        raise structlog.DropEvent

    changes = [
        (time, "time", lambda: wall(loop) / 1_000_000),
        (time, "time_ns", lambda: wall(loop) * 1000),
        (time, "sleep", lambda _: None),
        (time, "monotonic", lambda: loop.now),
        (time, "monotonic_ns", lambda: round(loop.now * 1e9)),
        (uuid, "uuid4", new_uuid),
        (uuid_utils, "uuid4", new_uuid),
        (uuid_utils, "uuid7", new_uuid),
        (secrets, "token_hex", lambda n=32: chance.randbytes(n).hex()),
        (secrets, "token_bytes", chance.randbytes),
        (os, "getloadavg", lambda: (0.0, 0.0, 0.0)),
    ]
    kept = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    random.seed(f"jitter-{seed}")
    structlog.configure(
        processors=[processor],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    # When garbage is collected depends on the interpreter's past, and runs ``finally`` clauses.
    gc.disable()
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        # What is said while the processes are taken apart is said by the dead.
        structlog.configure(processors=[_unheard])


def _unheard(_logger, _level, _fields):
    raise structlog.DropEvent
