"""What sealing costs, what a fact takes on disk, and how fast an audit question is answered.

Run: ``script/bench history`` (200,000 facts), ``script/bench history -- --facts 10000000`` for the
full run (some 10 GB under ``var/bench``, a quarter of an hour; kept for the next one).

- Log to Parquet: facts per CPU-second of ``History.seal`` as the archiver calls it, everything
  included (chain checked, timeline looked up, file read back, synced), in turn with the floor:
  decoding the same commits with msgspec and writing the same rows with pyarrow, nothing else. Aims:
  0.5 M facts per CPU-second, 0.5 of the floor.
- Audit questions over all facts, in a process that has the segments open: by request id (aim: 100
  ms) and by user and day (aim: 300 ms); and the same through a process of its own, as `cumulog sql`
  asks it.
"""

import argparse
import asyncio
import gc
import resource
import shutil
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
from pyarrow import parquet

from benchmarks import histories
from engine.log.commit import Parts
from projections.columns import rows_of
from projections.history import History
from projections.segment import ALONE, COMMON, EACH, GROUP_ROWS
from projections.sql.queries import Queries
from projections.timeline import request_body
from schemas.config import Config

SEGMENT = 500_000


class Log:
    """A generated log and its timeline, read in chunks of about a segment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.timeline = sqlite3.connect(directory / "timeline.sqlite")

    def chunks(self, facts: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yield lists of commits that hold some so many facts, until the log ends."""
        chunk: list[tuple[int, bytes]] = []
        size = 0
        for seq, data in histories.read(self.directory):
            chunk.append((seq, data))
            size += data.count(b'"type":"') + 1
            if size >= facts:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def floor(commits: list[tuple[int, bytes]], about: list[tuple[object, ...]], path: Path) -> int:
    """Decode the commits and write their rows, and do nothing else; return how many.

    What the timeline says is there already; nothing is checked, read back or synced.
    """
    done = 0
    rows: list[list[object]] = [[] for _ in SCHEMA]
    with parquet.ParquetWriter(path, SCHEMA, compression="zstd") as file:
        for seq, data in commits:
            commit = decode_commit(data)
            for record in commit.records:
                bodies = [request_body(record.request, record.verdict), *map(bytes, record.facts)]
                count = len(bodies)
                head = (seq, commit.commit, commit.epoch, commit.hash, commit.at, record.salt)
                for column, value in zip(rows, head, strict=False):
                    column.extend([value] * count)
                rows[6].extend(bodies)
            if len(rows[0]) >= GROUP_ROWS:
                done += _write(file, rows, about[done : done + len(rows[0])])
        return done + _write(file, rows, about[done:])


class Decoded(msgspec.Struct):
    """A commit as the floor decodes it."""

    commit: str
    epoch: int
    hash: str
    at: int
    records: list[Parts]


decode_commit = msgspec.json.Decoder(Decoded).decode
KINDS = (pa.int64(), pa.string(), pa.int64(), pa.string(), pa.int64(), pa.string(), pa.string())
NAMES = ("seq", "commit_id", "epoch", "hash", "ts", "salt", "body")
SCHEMA = pa.schema(
    [*zip(NAMES, KINDS, strict=True), ("ordinal", pa.int64())]
    + [(name, pa.string()) for name in (*EACH, *COMMON, *ALONE)]
)


FLOOR = (
    "SELECT ordinal, tag, resource_kind, resource_id, project_id, user_id, request_id, cause, "
    "outcome, code, address FROM timeline WHERE ordinal > ? AND ordinal <= ? ORDER BY ordinal"
)


def _write(
    file: parquet.ParquetWriter, rows: list[list[object]], about: list[tuple[object, ...]]
) -> int:
    told = list(zip(*about, strict=True))
    columns = [*rows[:7], *told]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    file.write_table(pa.table(arrays, schema=SCHEMA))
    for column in rows:
        column.clear()
    return len(about)


def seal(log: Log, out: Path, rounds: int) -> tuple[History, list[float], list[float]]:
    """Seal the whole log; some of its chunks through the floor too. Return facts per CPU-second."""
    history = History(out)
    ours: list[float] = []
    floors: list[float] = []
    for number, chunk in enumerate(log.chunks(SEGMENT)):
        segments = history.segments()
        last = segments[-1].last if segments else 0
        began = time.process_time()
        while True:
            held = history.segments()
            after = held[-1] if held else None
            left = [commit for commit in chunk if after is None or commit[0] > after.last_seq]
            if history.seal(left, log.timeline, ordinals_max=SEGMENT, through=2**62) is None:
                break
        took = time.process_time() - began
        ours.append((history.segments()[-1].last - last) / took)
        if number < rounds:
            about = log.timeline.execute(FLOOR, (last, history.segments()[-1].last)).fetchall()
            began = time.process_time()
            rows = floor(chunk, about, out.parent / "floor.parquet")
            floors.append(rows / (time.process_time() - began))
    return history, ours, floors


def questions(history: History) -> None:
    """Time audit questions over all facts."""
    segments = history.segments()
    files = [(history.path(segment), segment.format) for segment in segments]
    with duckdb.connect(config={"threads": 2, "memory_limit": "512MiB"}) as db:
        db.execute("SET parquet_metadata_cache = true")
        db.execute(f"CREATE VIEW events AS {rows_of(files)}")
        middle = segments[-1].last // 2
        request, user, day = db.execute(
            "SELECT request_id, user_id, day FROM events "
            "WHERE ordinal >= ? AND kind = 'request' AND user_id <> '' LIMIT 1",
            [middle],
        ).fetchall()[0]
        for name, sql, values, aim in (
            ("by request id", "SELECT * FROM events WHERE request_id = ?", [request], 100),
            (
                "by user and day",
                "SELECT * FROM events WHERE user_id = ? AND day = ? AND kind = 'request'",
                [user, day],
                300,
            ),
        ):
            times, spent = [], []
            for _ in range(9):
                began, cpu = time.perf_counter(), time.process_time()
                rows = len(db.execute(sql, values).fetchall())
                times.append(1000 * (time.perf_counter() - began))
                spent.append(1000 * (time.process_time() - cpu))
            median = statistics.median(times[1:])
            print(
                f"{name}: {rows} rows, warm {median:.0f} ms (best {min(times):.0f}, "
                f"CPU {statistics.median(spent[1:]):.0f})  aim <= {aim} {_met(median <= aim)}"
            )
    asyncio.run(_asked(history, request))


async def _asked(history: History, request: str) -> None:
    """Time the same through a process of its own."""
    queries = Queries(Config(state_dir=str(history.directory.parent), node="none"))
    times = []
    for _ in range(4):
        began = time.perf_counter()
        found = await queries.ask(
            f"SELECT * FROM events WHERE request_id = '{request}'",  # noqa: S608  # our own
            user="u",
            project=None,
            through=history.segments()[-1].last,
            form="json",
        )
        found.file.close()
        times.append(1000 * (time.perf_counter() - began))
    print(f"the same as `cumulog sql` asks it: {statistics.median(times[1:]):.0f} ms")


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def main() -> None:
    """Measure and print."""
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)  # as the archiver has it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", action="store_true", help="of what was sealed before")
    parser.add_argument("--directory", type=Path, default=Path("var/bench"))
    options = parser.parse_args()
    # Whoever answers a question lives elsewhere.
    place = options.directory.resolve() / f"{options.facts}-{options.seed}"
    ordinals = histories.write(place, options.facts, options.seed)
    if options.questions:
        questions(History(place / "state" / "history"))
        return
    log = Log(place)
    shutil.rmtree(place / "state", ignore_errors=True)
    out = place / "state" / "history"
    out.mkdir(parents=True)
    history, ours, floors = seal(log, out, options.rounds)
    segments = history.segments()
    rate = statistics.median(ours)
    ratio = statistics.median(o / f for o, f in zip(ours, floors, strict=False))
    size = sum(segment.bytes for segment in segments)
    print(f"{ordinals} ordinals in {len(segments)} segments")
    print(f"sealed: {rate:,.0f} facts per CPU-second  aim >= 500,000 {_met(rate >= 500_000)}")
    print(f"of the floor: {ratio:.2f}  aim >= 0.5 {_met(ratio >= 0.5)}")
    raw = (place / "log.jsonl").stat().st_size
    print(f"bytes per fact: {size / ordinals:.0f}, of {raw / ordinals:.0f} in the log")
    began = time.process_time()
    while history.merge_due(SEGMENT, 2**52):
        pass
    took = time.process_time() - began
    if took > 0.1:
        print(
            f"merged into {len(history.segments())} files: {ordinals / took:,.0f} facts per CPU-s"
        )
    questions(history)
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
