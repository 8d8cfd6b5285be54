"""Reading the past: a moment from the nearest snapshot, the same again, and what there is of both.

Run: ``script/bench timemachine`` (100,000 facts, a minute); ``-- --facts 1000000`` for the
figures of docs/performance.md (some six minutes). A history of ``benchmarks.histories`` is
projected as a node does, with its snapshots; then moments all over it are asked for, and reads of
one in turn with those of the present. The log's messages are in memory: what reading them from
the broker costs comes on top. The longest is a moment just before the next snapshot. Figures are
of this process: CPU seconds, and on the clock where that is what is waited for.
"""

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.histories import Years
from projections import files
from projections.models import apply_commit, decode_stored, last_ordinal
from projections.reader import Reader
from projections.timemachine.moments import Moments, moments_path, next_snapshot
from projections.timemachine.past import PastReader

FIRST_S, AGAIN_S = 2.0, 0.005
BATCH = 100
PAGE = 100


class Log:
    """A history in memory."""

    def __init__(self, facts: int, seed: int) -> None:
        self.commits: list[bytes] = []
        self.ordinal = 0
        for _, data, _ in Years(seed).commits():
            self.commits.append(data)
            self.ordinal = last_ordinal(decode_stored(data))
            if self.ordinal >= facts:
                return

    def read(self, after_seq: int) -> Iterator[tuple[int, bytes]]:
        for seq in range(after_seq, len(self.commits)):
            yield seq + 1, self.commits[seq]


def projected(log: Log, path: Path, moments: Moments) -> tuple[float, list[float]]:
    """Project as a node does; return the CPU seconds of that, and of each snapshot."""
    files.open_next(path).db.close()
    files.switch_to_next(path)
    writer = files.open_current(path)
    assert writer is not None
    taking: list[float] = []
    began, due = time.process_time(), next_snapshot(0)
    for seq, data in log.read(0):
        apply_commit(writer, seq, data)
        if seq % BATCH == 0:
            writer.commit()
        if writer.position.ordinal >= due:
            writer.commit()
            began_one = time.process_time()
            moments.take()
            taking.append(time.process_time() - began_one)
            due = next_snapshot(writer.position.ordinal)
    writer.commit()
    writer.db.close()
    return time.process_time() - began - sum(taking), taking


def timed[T](work: Callable[[], T]) -> tuple[float, float, T]:
    """Return the CPU seconds and the seconds that something took, and what it gave."""
    gc.collect()
    began, at = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - began, time.perf_counter() - at, found


def decoded(log: Log, first: int, last: int) -> int:
    """Look into so much of the log: what any replay has to do at least."""
    found = 0
    for data in log.commits:
        commit = decode_stored(data)
        if first < commit.first <= last:
            found += len(commit.records)
    return found


def compare(log: Log, path: Path, rounds: int, seed: int) -> None:
    """Ask for moments, and print."""
    moments = Moments(path, log.read)
    moments.begin()
    whole, taking = projected(log, path, moments)
    directory = moments_path(path)
    snapshots = sorted(
        int(one.stem.removeprefix("snapshot-")) for one in directory.glob("snapshot-*")
    )
    size = sum(one.stat().st_size for one in directory.glob("snapshot-*"))
    print(f"projected in {whole:.1f} CPU-s; ", end="")
    print(f"{len(snapshots)} of {len(taking)} snapshots kept, {size / 2**20:.0f} MiB", end="")
    if taking:
        print(f"; the last taken in {taking[-1]:.2f} CPU-s, all: ", end="")
        print(f"{sum(taking) / whole:.1%} of projecting", end="")
    print()
    read_model = path.resolve().stat().st_size
    print(f"the read model has {read_model / 2**20:.0f} MiB")
    dice = random.Random(seed)
    spans = list(zip([0, *snapshots], [*snapshots, log.ordinal], strict=True))
    worst = [end - 1 for _, end in spans[-rounds:]]
    anywhere = [dice.randrange(100, log.ordinal) for _ in range(rounds)]
    for name, ordinals in (("just before a snapshot", worst), ("anywhere", anywhere)):
        cpu, clock, folded, again = [], [], [], []
        for ordinal in ordinals:
            used, took, moment = timed(lambda at=ordinal: moments.at(at))
            nearest = max((one for one in snapshots if one <= ordinal), default=0)
            cpu.append(used)
            clock.append(took)
            folded.append(moment.ordinal - nearest)
            reader = PastReader(path, moment, moment.at)
            reader.server_views(limit=PAGE)
            # As an edge does: it looks whether the file is still there, and reads.
            again.append(
                timed(lambda r=reader: (r.position(), r.server_views(limit=PAGE), r.policy()))[0]
            )
            reader.close()
        verdict = "met" if max(cpu) <= FIRST_S else "MISSED"
        print(f"a moment {name}, {min(folded)} to {max(folded)} ordinals after one: ", end="")
        print(f"{statistics.median(cpu):.2f} CPU-s, most {max(cpu):.2f}", end="")
        print(f"  aim <= {FIRST_S:.0f} s  {verdict}")
        print(f"  {whole / statistics.median(cpu):.0f} x cheaper than projecting it all; ", end="")
        print(f"{statistics.median(clock):.2f} s on the clock, longest {max(clock):.2f} s")
        verdict = "met" if max(again) <= AGAIN_S else "MISSED"
        print(f"  the same again, with a page of {PAGE} servers: ", end="")
        print(f"{statistics.median(again) * 1000:.2f} CPU-ms, most {max(again) * 1000:.2f}", end="")
        print(f"  aim <= {AGAIN_S * 1000:.0f} ms  {verdict}")
    beside_the_present(path, moments, log.ordinal)


def beside_the_present(path: Path, moments: Moments, ordinal: int) -> None:
    """Compare reads of a moment with the same reads of the present, in turn."""
    moment = moments.at(ordinal)
    past, present = PastReader(path, moment, moment.at), Reader(path)

    def events(reader: Reader) -> int:
        return len(reader.audit_log(limit=PAGE))

    for name, work in (
        ("a page of servers", lambda reader: len(reader.server_views(limit=PAGE))),
        ("a page of the audit log", events),
    ):
        took: dict[str, list[float]] = {"past": [], "present": []}
        for _ in range(50):
            for which, reader in (("past", past), ("present", present)):
                began = time.process_time()
                work(reader)
                took[which].append(time.process_time() - began)
        ratio = statistics.median(took["past"]) / statistics.median(took["present"])
        print(f"{name}: {ratio:.2f} x the CPU of the same read of the present")
    past.close()
    present.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    log = Log(options.facts, options.seed)
    size = sum(map(len, log.commits)) / 2**20
    print(f"{log.ordinal} ordinals in {len(log.commits)} commits, {size:.0f} MiB")
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as name:
        compare(log, Path(name) / "n.sqlite", options.rounds, options.seed)


if __name__ == "__main__":
    main()
