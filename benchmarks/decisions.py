"""What one decision costs, and what a replay costs beyond parsing and folding.

Run: ``script/bench decisions``. All figures are CPU time of this process. The floor of a replay is
the same commits, already in memory, decoded and folded; aim: reading them from the broker with the
chain checked gives at least half as many ordinals per CPU-second.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.crowd import Crowd
from benchmarks.log import history
from engine.bus.client import Bus
from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell
from engine.folded import Folded
from engine.log import server as nats_server
from engine.log.jetstream import JetStreamLog
from engine.log.replay import replay
from engine.log.stream import ensure_log


def decisions(rounds: int) -> None:
    """Print what a server create costs in the engine's core."""
    crowd = Crowd(100)
    took = []
    for _ in range(rounds):
        took.append(crowd.create())
        crowd.report()
    decide, evolve = (1e6 * statistics.median(part) for part in zip(*took, strict=True))
    print(
        f"create a server on 100 hosts: decide {decide:.0f} µs, evolve {evolve:.0f} µs, "
        f"{len(crowd.record())} bytes in the log (medians of {rounds})"
    )


def offline(messages: list[bytes]) -> tuple[float, int]:
    """Decode and fold what is in memory; return CPU seconds and ordinals."""
    cell = Cell()
    began = time.thread_time()
    for data in messages:
        apply_commit(cell, decode_for_fold(data))
    return time.thread_time() - began, cell.state.ordinal


def from_broker(broker: nats_server.NatsServer, stream: str, *, chain: bool) -> tuple[float, int]:
    """Read, decode and fold, with the chain checked or not; return CPU seconds and ordinals."""
    folded, cell = Folded(), Cell()
    began = time.thread_time()
    stored = replay(broker.url, "admin-store", broker.credentials["admin-store"], stream)
    for sequence, data in stored:
        if chain:
            folded.take(sequence, data)
        else:
            apply_commit(cell, decode_for_fold(data))
    used = time.thread_time() - began
    return used, (folded.cell if chain else cell).state.ordinal


async def replays(servers: int, rounds: int) -> None:
    """Print replay against the floor, interleaved."""
    messages = history(servers)
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as directory:
        broker = await asyncio.to_thread(nats_server.start, Path(directory), cell="bench")
        try:
            bus = await Bus.connect(
                broker.url,
                user="admin",
                password=broker.credentials["admin"],
                name="b",
                cell="bench",
                store=True,
            )
            await ensure_log(bus)
            log = JetStreamLog(bus)
            for number, data in enumerate(messages):
                await log.append(data, expected_last=number)
            stream = bus.subjects.log_stream
            found: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                floor_s, ordinals = await asyncio.to_thread(offline, messages)
                for chain, ratios in found.items():
                    used, read = await asyncio.to_thread(from_broker, broker, stream, chain=chain)
                    assert read == ordinals
                    ratios.append(floor_s / used)
            await bus.close()
        finally:
            broker.stop()
    ratio, chained = (statistics.median(found[chain]) for chain in (False, True))
    print(f"{ordinals} ordinals in {len(messages)} commits, {rounds} rounds, medians:")
    print(
        f"replay, decode, fold: {ratio:.2f} x the same from memory  aim >= 0.5 "
        f"{'met' if ratio >= 0.5 else 'MISSED'}"
    )
    print(f"with the chain checked: {chained:.2f} x")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    decisions(3000)
    asyncio.run(replays(options.servers, options.rounds))


if __name__ == "__main__":
    main()
