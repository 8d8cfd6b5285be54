"""The log against the raw client: append under the fence, and replay with decoding and folding.

Run: ``script/bench log``. Floors, interleaved in the same run: nats-py alone publishing messages of
the same size with one in flight; nats-py alone reading (ordered consumer) the same history with one
message an ordinal, as a log that does not pack its facts would hold it: both sides count
ordinals. Figures are per second of this process' CPU.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import nats

from engine.bus.client import Bus
from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell
from engine.log import server as nats_server
from engine.log.commit import GENESIS, check_commit, seal_commit
from engine.log.jetstream import JetStreamLog
from engine.log.replay import replay
from engine.log.stream import ensure_log
from schemas.envelope import decode_commit
from tests.engine.world import World


def history(servers: int) -> list[bytes]:
    """Return the sealed commits of a cloud in which servers come and go."""
    world = World()
    world.without_quotas()
    world.host(vcpus=10**6, memory=2**30, disk=10**6)
    world.network(world.admin, "10.0.0.0/8")
    for _ in range(servers):
        world.server(world.admin)
    messages, prev = [], GENESIS
    for number, message in enumerate(world.messages):
        commit = decode_commit(message)
        data, prev = seal_commit(
            commit_id=f"c{number}",
            first=commit.first,
            prev=prev,
            epoch=1,
            at=commit.at,
            records=commit.records,
        )
        messages.append(data)
    return messages


async def append(log: JetStreamLog, messages: list[bytes]) -> float:
    """Append all, one in flight; return CPU seconds."""
    last = await log.last()
    sequence = 0 if last is None else last.seq
    began = time.process_time()
    for data in messages:
        sequence = await log.append(data, expected_last=sequence)
    return time.process_time() - began


async def raw_append(client: Any, messages: list[bytes]) -> float:
    """Publish all with nats-py, one in flight; return CPU seconds."""
    stream = client.jetstream()
    began = time.process_time()
    for data in messages:
        await stream.publish("floor", data)
    return time.process_time() - began


async def fill_unpacked(client: Any, messages: list[bytes]) -> int:
    """Store the same bytes with one message an ordinal; return how many."""
    stream = client.jetstream()
    await stream.add_stream(name="UNPACKED", subjects=["unpacked"])
    ordinals = 0
    for data in messages:
        count = sum(1 + len(record.facts) for record in decode_commit(data).records)
        for _ in range(count):
            await client.publish("unpacked", data[: len(data) // count])
        ordinals += count
    await client.flush()
    await stream.publish("unpacked", b"{}")
    return ordinals


async def raw_replay(client: Any, count: int) -> float:
    """Read the floor's messages with nats-py and do nothing with them; return CPU seconds."""
    stream = client.jetstream()
    subscription = await stream.subscribe("unpacked", ordered_consumer=True)
    began = time.process_time()
    for _ in range(count):
        await subscription.next_msg(timeout=30)
    used = time.process_time() - began
    await subscription.unsubscribe()
    return used


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    messages = history(options.servers)
    size = sum(map(len, messages)) / len(messages)
    print(f"{len(messages)} commits of {size:.0f} bytes")
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as directory:
        broker = await asyncio.to_thread(nats_server.start, Path(directory), cell="bench")
        try:
            await measure(broker, messages, options.rounds)
        finally:
            broker.stop()


async def measure(broker: Any, messages: list[bytes], rounds: int) -> None:
    """Fill both streams, then compare."""
    password = broker.credentials["admin"]
    store = await Bus.connect(
        broker.url, user="admin", password=password, name="b", cell="bench", store=True
    )
    await ensure_log(store)
    log = JetStreamLog(store)
    client = await nats.connect(
        broker.url, user="admin-store", password=broker.credentials["admin-store"]
    )
    await client.jetstream().add_stream(name="FLOOR", subjects=["floor"])
    chunk = len(messages) // rounds
    ratios = []
    for number in range(rounds):
        part = messages[number * chunk : (number + 1) * chunk]
        floor, ours = await raw_append(client, part), await append(log, part)
        ratios.append(floor / ours)
    ordinals = await fill_unpacked(client, messages)
    print(f"append: {max(ratios):.2f} x nats-py alone (1.00 = as cheap)")
    rows: dict[str, list[float]] = {"read": [], "read, decode, fold": [], "with the chain": []}
    for _ in range(rounds):
        floor_s = await raw_replay(client, ordinals)
        for what, found in rows.items():
            used, folded = await asyncio.to_thread(ours_replay, broker, store, what)
            found.append((floor_s / ordinals) / (used / folded))
        print(f"floor: {ordinals / floor_s:,.0f} ordinals per CPU-second")
    for what, found in rows.items():
        aim = "  aim >= 3  " + ("met" if max(found) >= 3 else "MISSED") if "fold" in what else ""
        print(f"replay, {what}: {max(found):.2f} x nats-py alone, in ordinals{aim}")
    await client.close()
    await store.close()


def ours_replay(broker: Any, store: Bus, what: str) -> tuple[float, int]:
    """Replay with our reader; return CPU seconds and the number of ordinals."""
    began = time.thread_time()
    cell, prev = Cell(), GENESIS
    stored = replay(
        broker.url, "admin-store", broker.credentials["admin-store"], store.subjects.log_stream
    )
    last = b""
    for _, data in stored:
        last = data
        if what == "with the chain":
            prev = check_commit(data, prev, cell.state.ordinal + 1).hash
        if what != "read":
            apply_commit(cell, decode_for_fold(data))
    used = time.thread_time() - began
    commit = decode_commit(last)
    return used, commit.first - 1 + sum(1 + len(record.facts) for record in commit.records)


if __name__ == "__main__":
    asyncio.run(main())
