"""The time machine's own process: looks at the past, one question after another.

It folds much and at once, which must not hold up whoever projects. It is told the node's
configuration in the first line of its input, and is asked in the others; each is answered with a
line. It ends when its input does, so that nothing is left of it when whoever asks is killed.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import msgspec
from msgspec import Struct

from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell
from engine.log.commit import ChainBroken
from engine.log.port import LogError
from engine.log.replay_all import replay_log
from engine.rerun import Changed, Compared, Rerun, decode_full
from projections.history import History, history_path
from projections.models import LogDiffers, decode_stored, last_ordinal
from projections.timemachine.differences import Difference, Differences
from projections.timemachine.moments import Moment, Moments, Read
from schemas.config import Config
from schemas.errors import Rejected, Unavailable
from schemas.units import Ordinal

type Job = Literal["moments", "differences", "reruns"]
JOBS: tuple[Job, ...] = get_args(Job.__value__)

LOST_S = 2.0  # whoever asked is told rather than kept waiting
NICENESS = 5


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question: the moment at an ordinal; 0: take a snapshot of now.

    With ``since``: what changed from that one on; of ``project``, or of all. With ``changed``: what
    would have been decided from there on, had that been otherwise.
    """

    ordinal: Ordinal = 0
    since: Ordinal | None = None
    project: str | None = None
    changed: Changed | None = None


class Refusal(Struct, frozen=True, kw_only=True):
    """Why there is no answer."""

    code: str
    status: int
    reason: str
    hint: str


class Told(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer: a moment, the ordinal of a snapshot (0: none could be taken), or a refusal."""

    moment: Moment | None = None
    difference: Difference | None = None
    compared: Compared | None = None
    snapshot: Ordinal = 0
    error: Refusal | None = None


decode_asked = msgspec.json.Decoder(Asked).decode
decode_told = msgspec.json.Decoder(Told).decode
encode = msgspec.json.Encoder().encode
_decode_config = msgspec.json.Decoder(Config).decode


def job_of(asked: Asked) -> Job:
    """Return whose work a question is: each job has a process, and keeps none of the others."""
    if asked.changed is not None:
        return "reruns"
    return "moments" if asked.since is None else "differences"


def refusal(error: Rejected) -> Refusal:
    """Return a refusal as it is told."""
    return Refusal(code=error.code, status=error.status, reason=error.reason, hint=error.hint)


def log_of(config: Config, *, lost_s: float = LOST_S) -> Read:
    """Return what reads a cell's log, sealed history included."""
    history = History(history_path(config))

    def read(after_seq: int) -> Iterable[tuple[int, bytes]]:
        return replay_log(
            config.nats_url,
            config.nats_user,
            config.nats_password,
            config.cell,
            after_seq,
            authority=config.nats_ca,
            lost_s=lost_s,
            archived=history.commits_after,
        )

    return read


def main(job: Job, source: BinaryIO, out: BinaryIO) -> None:
    """Answer until the input ends. There is one process at a time for each: it cleans up."""
    config = _decode_config(source.readline())
    read = log_of(config)
    model = Path(config.state_dir) / "read" / f"{config.node}.sqlite"
    moments, differences = Moments(model, read), Differences(model, read)
    if job == "moments":
        moments.begin()
    elif job == "differences":
        differences.begin()
    for line in iter(source.readline, b""):
        asked = decode_asked(line)
        out.write(encode(answered(moments, differences, read, asked)) + b"\n")
        out.flush()


def answered(moments: Moments, differences: Differences, read: Read, asked: Asked) -> Told:
    """Answer one question."""
    try:
        if asked.changed is not None:
            return Told(compared=compared(read, asked.since or 0, asked.ordinal, asked.changed))
        if asked.since is not None:
            found = differences.between(asked.since, asked.ordinal, asked.project)
            return Told(difference=found)
        if asked.ordinal:
            return Told(moment=moments.at(asked.ordinal))
        return Told(snapshot=moments.take())
    except Rejected as error:
        return Told(error=refusal(error))
    except (LogError, LogDiffers, ChainBroken, OSError) as error:
        return Told(error=refusal(Unavailable(f"the moment could not be built: {error}")))


def compared(read: Read, since: Ordinal, through: Ordinal, changed: Changed) -> Compared:
    """Decide anew what was asked for after one ordinal and up to another."""
    rerun: Rerun | None = None
    cell = Cell()
    for _, data in read(0):
        last = last_ordinal(decode_stored(data))
        if last > through:
            break
        if last <= since:
            apply_commit(cell, decode_for_fold(data))
            continue
        rerun = rerun or Rerun(cell, changed)
        commit = decode_full(data)
        ordinal = commit.first
        for record in commit.records:
            rerun.take(record, ordinal, commit.at)
            ordinal += 1 + len(record.facts)
    return (rerun or Rerun(cell, changed)).compared


if __name__ == "__main__":
    os.nice(NICENESS)
    main(next(job for job in JOBS if job in sys.argv), sys.stdin.buffer, sys.stdout.buffer)
