"""What the command line costs before it does anything: CPU of ``cumulog --help``.

Run: ``script/bench start_up``. The floor, in turn in the same run, is the bare interpreter.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.calibration import factor

AIM_MS = 150.0


def cpu_ms(*command: str) -> float:
    """Return the CPU a command took, user and system."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    user = after.children_user - before.children_user
    return (user + after.children_system - before.children_system) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    cumulog = str(Path(sys.executable).with_name("cumulog"))
    floor, ours = [], []
    for _ in range(options.rounds):
        floor.append(cpu_ms(sys.executable, "-c", "pass"))
        ours.append(cpu_ms(cumulog, "--help"))
    middle, bare = statistics.median(ours), statistics.median(floor)
    slower = asyncio.run(factor())
    print(f"this machine is {slower:.1f} x slower than the one the aims were set on")
    verdict = "met" if middle <= AIM_MS else "MISSED"
    print(f"cumulog --help: {middle:.0f} ms CPU  aim <= {AIM_MS:.0f}  {verdict}")
    print(f"bare interpreter: {bare:.0f} ms; {middle / bare:.1f} x")


if __name__ == "__main__":
    main()
