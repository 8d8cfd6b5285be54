"""The checker: a program of its own that trusts nothing of Cumulog and imports nothing of it.

It reads the record that the clients wrote, reads the log's messages out of the broker by itself,
recomputes the chain, and compares: every acknowledged request is in the log exactly once with that
outcome, no key was carried out twice, every operation ended exactly once, the API's lists show what
the facts say, and a real host has what the facts say and nothing else. What a simulated host has
cannot be seen from outside: its servers are entries in the agent's memory.

    python -m tests.crash.checker --record RECORD --state-dir DIR [--settle S] [-o json]
    python -m tests.crash.checker --record RECORD --log LOG        without a cloud: the log alone

Exit code 0 only if nothing was found; the evidence is printed.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.crash import host
from tests.crash.answers import MEANING, Findings, compare_answers, read_record
from tests.crash.chain import Walked, walk
from tests.crash.lists import compare_lists
from tests.crash.stream import Stored, load_log, read_log, save_log
from tests.crash.truth import Truth, fold

SHOWN = 20  # pieces of evidence of a kind on the terminal
LOOK_AGAIN_S = 1.0
CAUGHT_UP_S = 30.0
HOST_S = 90.0


def check(
    *,
    record: Path,
    log: list[Stored],
    state_dir: Path | None = None,
    driver: str = "simulated",
    account: str = "demo",
) -> dict[str, Any]:
    """Compare all; return the report, whose ``well`` says whether nothing was found."""
    findings = Findings()
    walked = walk(log)
    truth = fold(walked.entries)
    for why in walked.broken:
        findings.add("chain", why)
    compare_answers(read_record(record), truth, findings)
    compared = ["log", "answers"]
    if state_dir is not None:
        compare_lists(state_dir, truth, findings, account=account, patience_s=CAUGHT_UP_S)
        compared.append("lists")
        if driver == "libvirt":
            _compare_host(state_dir, truth, findings)
            compared.append("host")
    return _report(findings, walked, truth, compared, len(log))


def _compare_host(state_dir: Path, truth: Truth, findings: Findings) -> None:
    """Compare the host once it has had time to become what it should be."""
    prefix = host.prefix_of(state_dir)
    host_id = json.loads((state_dir / "cell.json").read_text())["host_id"]
    wanted = host.expected(truth, prefix, host_id)
    deadline = time.monotonic() + HOST_S
    while True:
        try:
            found = host.compare_host(wanted, host.take(state_dir, prefix))
        except OSError as error:
            found = [("missing", f"the host's inventory: {error}")]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(LOOK_AGAIN_S)
    for kind, text in found:
        findings.add(kind, text)
    findings.counts["on_the_host"] = sum(len(names) for names in wanted.things.values())


def _report(
    findings: Findings, walked: Walked, truth: Truth, compared: list[str], commits: int
) -> dict[str, Any]:
    return {
        "well": findings.well,
        "compared": compared,
        "commits": commits,
        "ordinal": truth.ordinal,
        "head": walked.head,
        "requests": len(truth.by_request),
        "operations": len(truth.started),
        "ended": dict(sorted(truth.ends().items())),
        "leaders": truth.leaders,
        "servers": len(truth.servers),
        **findings.counts,
        **{kind: len(found) for kind, found in findings.evidence.items()},
        "evidence": {kind: found for kind, found in findings.evidence.items() if found},
    }


def settled_log(state_dir: Path, settle_s: float) -> list[Stored]:
    """Return the log once no operation is under way, or ``settle_s`` have passed."""
    deadline = time.monotonic() + settle_s
    while True:
        log = read_log(state_dir)
        if not fold(walk(log).entries).unfinished() or time.monotonic() > deadline:
            return log
        time.sleep(LOOK_AGAIN_S)


def main() -> int:
    """Run as a program; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare what clients were told with the log.")
    parser.add_argument("--record", type=Path, required=True, help="the clients' own record")
    parser.add_argument("--state-dir", type=Path, help="the cloud, which runs")
    parser.add_argument("--log", type=Path, help="a log saved before, in place of the broker's")
    parser.add_argument("--save-log", type=Path, help="write the log that was read here")
    parser.add_argument("--driver", choices=["simulated", "libvirt"], default="simulated")
    parser.add_argument("--account", default="demo", help="whose the load was")
    parser.add_argument("--settle", type=float, default=120.0, metavar="S")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    if options.log:
        log = load_log(options.log)
    elif options.state_dir:
        log = settled_log(options.state_dir, options.settle)
    else:
        parser.error("one of --state-dir and --log is needed")
    if options.save_log:
        save_log(log, options.save_log)
    report = check(
        record=options.record,
        log=log,
        state_dir=None if options.log else options.state_dir,
        driver=options.driver,
        account=options.account,
    )
    print(json.dumps(report, indent=1) if options.output == "json" else text_of(report))
    return 0 if report["well"] else 1


def text_of(report: dict[str, Any]) -> str:
    """Return a report as a person reads it, evidence first."""
    lines = []
    for kind, found in report["evidence"].items():
        lines.append(f"{kind.upper()}: {MEANING[kind]}")
        lines += [f"  {text}" for text in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN} more")
    lines += [
        f"{name:>20}  {_plain(value)}" for name, value in report.items() if name != "evidence"
    ]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
