"""How fast this machine is today, in what the request path is made of.

Shared machines differ by several times from one hour to the next, so an aim in milliseconds means
little without a yardstick. Ours is nats-py alone: publishing 300 bytes to a synced stream, one at a
time. On the machine that the aims were set on, a CPU-second was good for 19,000 of these.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import nats

from engine.log import server as nats_server

REFERENCE_PER_CPU_S = 19_000
MESSAGES = 1500
ROUNDS = 3


async def factor() -> float:
    """Return how many times slower this machine is now than the one the aims were set on."""
    with tempfile.TemporaryDirectory(prefix="cumulog-calibration-") as directory:
        broker = await asyncio.to_thread(nats_server.start, Path(directory))
        try:
            client = await nats.connect(
                broker.url, user="admin-store", password=broker.credentials["admin-store"]
            )
            stream = client.jetstream()
            await stream.add_stream(name="CALIBRATION", subjects=["calibration"])
            best = 0.0
            for _ in range(ROUNDS):
                began = time.process_time()
                for _ in range(MESSAGES):
                    await stream.publish("calibration", b"x" * 300)
                best = max(best, MESSAGES / (time.process_time() - began))
            await client.close()
        finally:
            broker.stop()
    return REFERENCE_PER_CPU_S / best
