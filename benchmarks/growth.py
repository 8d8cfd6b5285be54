"""What a decision costs, and what the engine's memory holds, as a cell grows.

Run: ``script/bench growth`` (about ten minutes for a million servers on ten thousand hosts), or
``script/bench growth -- --most 100000``. Aims: the 99th percentile at the end at most 1.5 times
that at ten thousand servers, and memory linear: the last tenfold costs as much for each server as
the one before. Percentiles are of CPU time, so neighbours count for little; each size is compared
with the first in one run. Writes ``docs/figures/growth.svg`` when it has reached a million.
"""

import argparse
import gc
import statistics
import sys
from pathlib import Path

import pygal

from benchmarks.crowd import Crowd

BATCHES = 5
SAMPLES = 2000
FIGURE = Path(__file__).resolve().parent.parent / "docs/figures/growth.svg"


def resident_mib() -> float:
    """Return this process' resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def sample(crowd: Crowd) -> tuple[float, float, float, float]:
    """Create some more servers; return the median and p99 of deciding, and both of folding, µs.

    The least of several batches: what neighbours do to the caches only ever adds.
    """
    batches = []
    for _ in range(BATCHES):
        took = []
        for _ in range(SAMPLES):
            took.append(crowd.create())
            crowd.report()
        decided, folded = (sorted(part) for part in zip(*took, strict=True))
        batches.append(
            [
                1e6 * value
                for part in (decided, folded)
                for value in (statistics.median(part), part[int(0.99 * len(part))])
            ]
        )
    decide_50, decide_99, evolve_50, evolve_99 = (
        min(column) for column in zip(*batches, strict=True)
    )
    return decide_50, decide_99, evolve_50, evolve_99


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=10_000)
    options = parser.parse_args()
    sizes = [n for n in (10_000, 30_000, 100_000, 300_000, 1_000_000) if n <= options.most]
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)  # as the engine has it
    empty = resident_mib()
    crowd = Crowd(options.hosts)
    print(f"{options.hosts} hosts")
    print(f"{'servers':>9} {'decide':>14} {'evolve':>14} {'p99':>6} {'memory':>10} {'each':>7}")
    print(f"{'':>9} {'µs p50  p99':>14} {'µs p50  p99':>14} {'ratio':>6} {'MiB':>10} {'bytes':>7}")
    rows: list[tuple[int, float, float]] = []
    for size in sizes:
        crowd.grow(size, lambda count: print(f"{count}…", end="\r", file=sys.stderr))
        gc.freeze()
        decide_50, decide_99, evolve_50, evolve_99 = sample(crowd)
        used = resident_mib() - empty
        p99 = decide_99 + evolve_99
        rows.append((size, p99, used))
        print(
            f"{size:>9} {decide_50:>8.0f} {decide_99:>5.0f} {evolve_50:>8.0f} {evolve_99:>5.0f} "
            f"{p99 / rows[0][1]:>6.2f} {used:>10.0f} {used * 2**20 / size:>7.0f}",
            flush=True,
        )
    ratio = rows[-1][1] / rows[0][1]
    print(
        f"p99 at {rows[-1][0]}: {ratio:.2f} x that at {rows[0][0]}  aim <= 1.5 {_met(ratio <= 1.5)}"
    )
    if len(rows) >= 3:
        late = (rows[-1][2] - rows[-2][2]) / (rows[-1][0] - rows[-2][0])
        early = (rows[-2][2] - rows[0][2]) / (rows[-2][0] - rows[0][0])
        print(
            f"memory of one more server: {late * 2**20:.0f} bytes late, {early * 2**20:.0f} early"
            f"  aim <= 1.2 x {_met(late <= 1.2 * early)}"
        )
    if rows[-1][0] == 1_000_000:
        draw(rows, options.hosts)


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def draw(rows: list[tuple[int, float, float]], hosts: int) -> None:
    """Draw both curves over the number of servers."""
    chart = pygal.XY(
        title=f"A create on {hosts} hosts, and the engine's memory",
        x_title="servers",
        logarithmic=False,
        xrange=(0, rows[-1][0]),
        show_x_guides=True,
        js=[],
        height=400,
    )
    chart.add("p99 of deciding and folding, µs", [(size, p99) for size, p99, _ in rows])
    chart.add("memory, MiB", [(size, used) for size, _, used in rows], secondary=True)
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_bytes(chart.render())
    print(f"drawn: {FIGURE.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
