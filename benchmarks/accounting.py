"""CPU and memory of processes, as the kernel accounts for them (proc(5))."""

import os
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    result, queue = [], [pid]
    while queue:
        current = queue.pop()
        result.append(current)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                queue += [int(p) for p in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return result


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds used so far; precise to the nanosecond where the kernel tells."""
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0]) / 1e9
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total


def rss_mib(pids: list[int]) -> float:
    """Return the resident memory, shared pages counted once for each process."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * PAGE_MIB


def pss_mib(pids: list[int]) -> float:
    """Return the resident memory, shared pages divided among those that share them."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1024


def name(pid: int) -> str:
    """Return what a process is, for a table."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    known = [w for w in words if w in ("up", "engine", "projector", "api", "agent", "archiver")]
    return known[-1] if known else Path(words[0]).name
