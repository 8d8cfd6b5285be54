"""Campaigns in CI: every process killed under load, over and over, and nothing lost or doubled."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.crash import host
from tests.crash.campaign import Campaign, run
from tests.crash.chain import walk
from tests.crash.checker import check
from tests.crash.stream import load_log
from tests.crash.truth import fold

ROUNDS = 52
REAL_ROUNDS = 6


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A campaign on a simulated host: its directory, and its report."""
    directory = tmp_path_factory.mktemp("crash")
    report = run(directory, rounds=ROUNDS, seed=20, driver="simulated")
    return directory, report


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_rounds_on_a_simulated_host_lose_and_double_nothing(played):
    directory, report = played

    assert report["well"], json.dumps(report, indent=1)
    assert report["compared"] == ["log", "answers", "lists"]
    assert report["rounds"] == ROUNDS >= 50
    assert report["kills_between_publish_and_ack"] >= 10
    assert report["kills_before_publish_arrived"] == 5
    assert report["unanswered"] == 0
    assert set(report["ended"]) <= {"succeeded", "cancelled"}
    assert {"agent", "api", "archiver", "engine", "nats", "projector", "up"} <= {
        *report["kills_by_process"]
    }
    assert report["acknowledged"] > 5 * ROUNDS
    assert report["retried"] > 0
    assert report["leaders"] > 5
    assert not (directory / "state").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_checker_finds_what_is_planted_in_a_real_record_and_a_real_log(played, tmp_path):
    """The same evidence, each time with one thing altered."""
    directory, _ = played
    log = load_log(directory / "log.jsonl")
    lines = (directory / "record.jsonl").read_text().splitlines(keepends=True)
    told = tmp_path / "record.jsonl"

    def judge(record: list[str], stored: list) -> set[str]:
        told.write_text("".join(record))
        return set(check(record=told, log=stored)["evidence"])

    assert judge(lines, log) == set()

    asked = json.loads(next(line for line in lines if '"what": "CreateServer"' in line))
    forged = asked | {"id": "forged", "key": "never-sent"}
    answer = {"line": "answered", "id": "forged", "attempts": 1, "status": 202}
    assert judge([*lines, json.dumps(forged) + "\n", json.dumps(answer) + "\n"], log) == {"lost"}

    assert "chain" in judge(lines, [*log[:50], *log[51:]])
    middle = log[len(log) // 2]
    altered = middle.data.replace(b'"at":1', b'"at":2', 1)
    assert "chain" in judge(lines, [s._replace(data=altered) if s == middle else s for s in log])
    # A tail that was cut off breaks no chain: only what clients were told shows it.
    assert "lost" in judge(lines, log[: len(log) // 2])


@pytest.mark.guest
@pytest.mark.timeout(1500)
def test_a_few_rounds_on_a_real_host_leave_no_orphan(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a real host needs root")
    campaign = Campaign(tmp_path, "libvirt", seed=3)
    cloud = campaign.cloud
    try:
        campaign.run(REAL_ROUNDS)
        campaign.finish()
        report = campaign.check()

        assert report["well"], json.dumps(report, indent=1)
        assert report["compared"] == ["log", "answers", "lists", "host"]
        assert report["on_the_host"] > 0
        assert campaign.tally.between == 2

        # And a stray thing would have been seen.
        truth = fold(walk(load_log(tmp_path / "log.jsonl")).entries)
        prefix = host.prefix_of(cloud.state_dir)
        wanted = host.expected(truth, prefix, "host-1")
        stray = f"{prefix}-00000000ffff"
        subprocess.run(["ip", "netns", "add", stray], check=True, timeout=60)
        try:
            seen = host.compare_host(wanted, host.take(cloud.state_dir, prefix))
        finally:
            subprocess.run(["ip", "netns", "delete", stray], check=False, timeout=60)
        assert ("orphans", f"namespace {stray} on the host") in seen
    finally:
        campaign.close()
        cloud.destroy()
    assert not cloud.state_dir.exists()
