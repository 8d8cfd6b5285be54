"""Starting an engine from a snapshot against folding its whole log; what a resource takes in it.

Run: ``script/bench snapshot``. Both starts lead to the same digest and are taken in turn; the log's
messages are in memory already, so what reading them from the broker costs comes on top of a replay
only. Figures are CPU seconds of this process. Memory is the difference in resident size of a fresh
process before and after it folded so many facts.
"""

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog

from engine.domain.fold import EVOLVE, apply_commit, decode_for_fold
from engine.domain.state import Cell, digest
from engine.folded import Folded
from engine.log.commit import GENESIS, seal_commit
from engine.snapshot import copy_cell, load_newest, write
from engine.snapshotter import Snapshotter
from schemas.compute import DeleteServer, RebootServer, Server, StartServer, StopServer
from schemas.envelope import Actor, Fact, Record, encode
from schemas.network import CreateNetwork, CreateSubnet
from tests.engine.world import World

AIM = 20.0
HOSTS = 20
BOTH = "server with its port"
# Some twenty requests a second: the answers of two minutes are in the state, as they would be.
PACE = 50_000


class Busy(World):
    """A cloud whose servers come, go, stop and start; its log is sealed as it is written."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.prev = GENESIS
        super().__init__(1)

    def submit(self, actor: Actor, action: Any, **fields: Any) -> Record:
        self.now += PACE
        first = self.cell.state.ordinal + 1
        record = super().submit(actor, action, **fields)
        self.messages.clear()
        data, self.prev = seal_commit(f"c{first}", first, self.prev, 0, self.now, [encode(record)])
        self.log.append(data)
        return record


def history(facts: int, servers: int) -> Busy:
    """Return a cloud after so many facts, with about so many servers, each with a port."""
    world = Busy()
    world.without_quotas()
    for number in range(1, HOSTS + 1):
        world.host(f"host-{number}", vcpus=10**6, memory=2**30, disk=10**6)
    network = world.ok(world.admin, CreateNetwork(name="net"))["network_id"]
    world.ok(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/8"))
    world.flavor()
    world.image()
    dice, state, ids = world.random, world.cell.state, []
    while state.ordinal < facts:
        if len(ids) < servers:
            ids.append(built(world))
            continue
        at = dice.randrange(len(ids))
        server = state.servers[ids[at]]
        turn = dice.random()
        if turn < 0.1:
            act(world, server, DeleteServer(server_id=server.server_id))
            ids[at] = built(world)
        elif server.status == "SHUTOFF":
            act(world, server, StartServer(server_id=server.server_id))
        elif turn < 0.6:
            act(world, server, StopServer(server_id=server.server_id))
        else:
            act(world, server, RebootServer(server_id=server.server_id))
    return world


def built(world: Busy) -> str:
    server_id = world.server(world.admin, build=False)
    server = world.cell.state.servers[server_id]
    world.report(server.operation_id, host=server.host_id)
    return server_id


def act(world: Busy, server: Server, action: Any) -> None:
    reply = world.ok(world.admin, action)
    world.report(reply["operation_id"], host=server.host_id, running=True)


def replayed(log: list[bytes]) -> tuple[float, Folded]:
    began = time.process_time()
    folded = Folded()
    for sequence, data in enumerate(log, 1):
        folded.take(sequence, data)
    return time.process_time() - began, folded


def loaded(directory: Path) -> tuple[float, Folded]:
    began = time.process_time()
    folded = load_newest(directory, "c")
    assert folded is not None
    return time.process_time() - began, folded


async def longest_pause(cell: Cell, directory: Path) -> tuple[float, float, float]:
    """Return the loop's longest pause in ms, idle and while one is written; and CPU to copy it."""
    loop = asyncio.get_running_loop()

    async def watched(until: asyncio.Task) -> float:
        worst, last = 0.0, loop.time()
        while not until.done():
            await asyncio.sleep(0)
            now = loop.time()
            worst, last = max(worst, now - last), now
        return worst * 1000

    idle = await watched(asyncio.create_task(asyncio.sleep(0.5)))
    snapshots = Snapshotter(directory, cell_name="c", every=1)
    began = time.thread_time()
    snapshots.note(Folded(cell=cell, prev="hash", sequence=1))
    copying = (time.thread_time() - began) * 1000
    writing = await watched(asyncio.create_task(snapshots.written()))
    return idle, writing, copying


def compare(world: Busy, rounds: int) -> None:
    log, cell = world.log, world.cell
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as name:
        directory = Path(name)
        began = time.process_time()
        copied = copy_cell(cell, world.prev, len(log))
        copying = time.process_time() - began
        path = write(directory, "c", copied)
        writing = time.process_time() - began
        size = path.stat().st_size
        print(f"snapshot: {size / 2**20:.0f} MiB; copied in {copying * 1000:.1f} ms, ", end="")
        print(f"written in {writing:.2f} CPU-s")
        starts, replays = [], []
        expected = digest(cell)
        for _ in range(rounds):
            gc.collect()
            used, folded = loaded(directory)
            starts.append(used)
            assert digest(folded.cell) == expected
            del folded
            gc.collect()
            used, folded = replayed(log)
            replays.append(used)
            assert digest(folded.cell) == expected
            del folded
            start, replay = starts[-1], replays[-1]
            ratio = replay / start
            print(
                f"  start {start:.3f} CPU-s, replay {replay:.2f} CPU-s: {ratio:.1f} x", flush=True
            )
        ratio = statistics.median(r / s for s, r in zip(starts, replays, strict=True))
        verdict = "met" if ratio >= AIM else "MISSED"
        print(
            f"start from a snapshot: {ratio:.1f} x cheaper than replay  aim >= {AIM:.0f}  {verdict}"
        )


# Memory


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_memory(kind: str, count: int) -> None:
    """Fold so many of a kind and print what one takes. Runs in a process of its own."""
    world = World()
    world.host()
    world.flavor()
    world.image()
    world.network(world.admin, "10.0.0.0/8")
    server = world.server(world.admin)
    state = world.cell.state
    (port_id,) = state.servers[server].port_ids
    port = state.ports[port_id]
    wanted = {"server": ("compute.server",), "port": ("network.port.created",)}
    prefixes = wanted.get(kind, ("compute.server", "network.port"))
    facts = [
        msgspec.json.encode(fact)
        for message in world.messages[-2:]
        for record in msgspec.json.decode(message)["records"]
        for fact in record["facts"]
        if fact["type"].startswith(prefixes)
    ]
    cell = Cell()
    for message in world.messages[:-2]:
        apply_commit(cell, decode_for_fold(message))
    decode = msgspec.json.Decoder(Fact).decode
    address, mac = port.fixed_ips[0].ip_address, port.mac_address
    joined = b"\n".join(facts)
    before = resident()
    for number in range(count):
        text = joined.replace(server.encode(), b"%08x-aaaa-7aaa-8aaa-aaaaaaaaaaaa" % number)
        text = text.replace(port_id.encode(), b"%08x-bbbb-7bbb-8bbb-bbbbbbbbbbbb" % number)
        n = number + 1000
        text = text.replace(
            address.encode(), b"10.%d.%d.%d" % (n >> 16, n >> 8 & 255, n & 255)
        ).replace(mac.encode(), b"fa:16:%02x:%02x:%02x:%02x" % tuple(n.to_bytes(4)))
        for raw in text.split(b"\n"):
            fact = decode(raw)
            EVOLVE[type(fact)](cell, fact, world.now)
    used = resident() - before
    held = {"server": len(cell.state.servers), "port": len(cell.state.ports)}
    print(f"memory of a {kind}: {used / count:,.0f} bytes ({used / 2**20:.0f} MiB for {held})")
    if kind == BOTH:
        print_pauses(cell)


def print_pauses(cell: Cell) -> None:
    """Print how long a loop stands still at most while the cell becomes a snapshot."""
    # As an engine does once it has started: what it has folded is no garbage.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as name:
        idle, writing, copying = asyncio.run(longest_pause(cell, Path(name)))
    print(f"a snapshot of all: {copying:.1f} ms CPU of the loop to copy; longest pause ", end="")
    print(f"{writing:.1f} ms while one is written, {idle:.1f} ms before (the machine's)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--servers", type=int, default=25_000, help="each has a port")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help="only this: server, port, 'server with its port'")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if options.memory:
        measure_memory(options.memory, options.count)
        return
    for kind in ("server", "port", BOTH):
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--memory", kind, "--count", str(options.count)],
            check=True,
        )
    world = history(options.facts, options.servers)
    size = sum(map(len, world.log)) / 2**20
    print(
        f"{world.cell.state.ordinal} ordinals in {len(world.log)} commits, {size:.0f} MiB; ", end=""
    )
    print(f"{len(world.cell.state.servers)} servers, {len(world.cell.state.ports)} ports")
    compare(world, options.rounds)


if __name__ == "__main__":
    main()
