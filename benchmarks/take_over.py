"""How long nobody leads: the engine is killed or stopped, with a standby and without.

Run: ``script/bench take_over``. A client asks for one change after another; what is measured is
the longest pause between two answers around the fault. Aim: 3 s with a standby, whichever way the
leader goes. Seconds on the wall, since waiting is what it is about.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.cloud import Cloud
from benchmarks.http import Connection

SETTLE_S = 3.0


async def led_by(cloud: Cloud) -> tuple[str, int]:
    """Return which process leads, and its id."""
    told: dict[str, Any] = json.loads((await cloud.call("GET", "/v1/status")).body)
    name = "standby" if str(told["engine"]["node"]).endswith("-standby") else "engine"
    directory = Path(cloud.ready["state_dir"]) / "run"
    return name, int(await asyncio.to_thread((directory / f"{name}.pid").read_text))


async def pause_around(cloud: Cloud, number: signal.Signals) -> float:
    """Do one fault under a steady client; return the longest time without an answer."""
    _, pid = await led_by(cloud)
    connection = Connection(*cloud.address)
    longest, last = 0.0, time.monotonic()
    hit = last + 0.5
    was_hit = False
    try:
        while (now := time.monotonic()) < hit + SETTLE_S or not was_hit:
            if not was_hit and now >= hit:
                os.kill(pid, number)
                was_hit = True
            body = json.dumps({"type": "CreateNetwork", "name": "n"}).encode()
            sample = await connection.request("POST", "/v1/actions", cloud.headers, body)
            answered = time.monotonic()
            assert sample.status < 300, sample.body
            if was_hit:
                longest = max(longest, answered - last)
            last = answered
    finally:
        connection.close()
        if number == signal.SIGSTOP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return longest


async def well(cloud: Cloud) -> None:
    """Wait until both engines run again, as the next fault needs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError, ValueError, OSError, TypeError):
            ready = json.loads(Path(cloud.ready["state_dir"], "run", "up.json").read_text())  # noqa: ASYNC240
            pids = [ready["pids"][name] for name in ("engine", "standby") if name in ready["pids"]]
            if all(pid and os.path.exists(f"/proc/{pid}") for pid in pids):  # noqa: ASYNC240, PTH110
                break
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)


async def measure(rounds: int) -> None:
    """Print a line for each kind of fault."""
    for options in ((), ("--standby",)):
        async with Cloud("simulated", *options) as cloud:
            numbers = [signal.SIGKILL, *([signal.SIGSTOP] if options else [])]
            for number in numbers:
                found = []
                for _ in range(rounds):
                    await well(cloud)
                    found.append(await pause_around(cloud, number))
                what = f"{number.name}, {'with a standby' if options else 'alone'}"
                aim = f"  aim <= 3 {'met' if max(found) <= 3 else 'MISSED'}" if options else ""
                print(
                    f"{what:<28} median {statistics.median(found):.2f} s, "
                    f"longest {max(found):.2f} s{aim}",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
