"""What a commit costs the disk, and what sharing one is worth.

Run: ``script/bench commits``.

- One commit = one publish, one fsync: nats-server's system calls are counted with strace while
  requests are committed one after another.
- Accepted requests per second through the decider and the log (no HTTP), with 1, 8, 64 and 256
  waiting at once, against nats-py publishing messages of the same bytes to a stream of its own on
  the same server, with as many in flight. Interleaved; medians of the ratios. Aims: 0.5 of the raw
  publishes alone, 3 times as many with 64 and more, thanks to sharing.
"""

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import nats

from benchmarks.crowd import Crowd
from engine.bus.client import Bus
from engine.log import server as nats_server
from engine.log.commit import GENESIS
from engine.log.jetstream import JetStreamLog
from engine.log.stream import ensure_log
from engine.run import fresh_id, fresh_salt, wall_clock
from engine.turns import Turns
from schemas.compute import CreateServer
from schemas.envelope import Request

FLOOR = "FLOOR"
WAITING = (1, 8, 64, 256)


class Asked:
    """Requests through the turns of a decider, each waiting for its answer."""

    def __init__(self, log: JetStreamLog) -> None:
        self.crowd = Crowd(100)
        self.crowd.cell.state.at = 0
        self.turns = Turns(
            self.crowd.cell,
            log,
            prev=GENESIS,
            sequence=0,
            clock=wall_clock,
            new_id=fresh_id,
            salt=fresh_salt,
            dispatch=lambda _: None,
            began=lambda _: None,
        )
        self.running = asyncio.create_task(self.turns.run())

    async def one(self) -> None:
        """Have one server accepted."""
        answered = asyncio.get_running_loop().create_future()

        async def reply(outcome: bytes) -> None:
            answered.set_result(outcome)

        request = Request(
            request_id=f"req-{fresh_id()}",
            actor=self.crowd.admin,
            action=CreateServer(name="web", flavor_id=self.crowd.flavor, image_id=self.crowd.image),
            submitted_at=wall_clock(),
        )
        assert self.turns.submit(request, reply) is None
        assert b'"accepted"' in await answered


async def spread(count: int, abreast: int, one: Any) -> float:
    """Do ``count`` in all, ``abreast`` at once; return how many a second."""

    async def worker(share: int) -> None:
        for _ in range(share):
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(worker(count // abreast) for _ in range(abreast)))
    return count // abreast * abreast / (time.perf_counter() - began)


async def syncs(pid: int, asked: Asked, count: int) -> str:
    """Count the server's fsyncs while ``count`` requests are committed one by one."""
    if shutil.which("strace") is None:
        return "strace is not installed: fsyncs not counted"
    with tempfile.NamedTemporaryFile() as output:
        tracing = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", output.name, "-p", str(pid)],
            stderr=subprocess.PIPE,
        )
        assert tracing.stderr is not None
        await asyncio.to_thread(tracing.stderr.readline)  # attached
        before = asked.turns.commits
        for _ in range(count):
            await asked.one()
        commits = asked.turns.commits - before
        tracing.terminate()
        await asyncio.to_thread(tracing.wait)
        lines = await asyncio.to_thread(lambda: Path(output.name).read_text().splitlines())
    found = sum(bool(re.search(r"\b(fsync|fdatasync)\(", line)) for line in lines)
    return f"{count} requests one by one: {commits} commits, {found} fsyncs"


async def measure(broker: nats_server.NatsServer, rounds: int, count: int) -> None:
    """Print the count of fsyncs and the table of ratios."""
    bus = await Bus.connect(
        broker.url,
        user="admin",
        password=broker.credentials["admin"],
        name="b",
        cell="bench",
        store=True,
    )
    await ensure_log(bus)
    client = await nats.connect(
        broker.url, user="admin-store", password=broker.credentials["admin-store"]
    )
    stream = client.jetstream()
    await stream.add_stream(name=FLOOR, subjects=[FLOOR])
    asked = Asked(JetStreamLog(bus))
    data = asked.crowd.record()
    print(await syncs(broker.pid, asked, 50))
    print(f"{len(data)} bytes a request; {rounds} rounds of {count}")
    print(f"{'waiting':>8} {'raw/s':>8} {'ours/s':>8} {'per commit':>10} {'ratio':>6}  aim")
    for waiting in WAITING:
        raws, ours, shares = [], [], []
        for _ in range(rounds):
            raws.append(await spread(count, waiting, lambda: stream.publish(FLOOR, data)))
            before = asked.turns.commits
            ours.append(await spread(count, waiting, asked.one))
            shares.append(count / (asked.turns.commits - before))
        ratio = statistics.median(o / r for o, r in zip(ours, raws, strict=True))
        aim = 0.5 if waiting < 64 else 3.0
        print(
            f"{waiting:>8} {statistics.median(raws):>8.0f} {statistics.median(ours):>8.0f} "
            f"{statistics.median(shares):>10.1f} {ratio:>6.2f}  >= {aim} "
            f"{'met' if ratio >= aim else 'MISSED'}"
        )
    asked.running.cancel()
    await client.close()
    await bus.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=1024)
    options = parser.parse_args()

    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="cumulog-bench-", dir=".") as directory:
            broker = await asyncio.to_thread(nats_server.start, Path(directory), cell="bench")
            try:
                await measure(broker, options.rounds, options.count)
            finally:
                broker.stop()

    import uvloop

    uvloop.run(run())


if __name__ == "__main__":
    main()
