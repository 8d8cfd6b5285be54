"""A campaign in CI: every process killed under load, over and over, and nothing lost or doubled."""

import json
from pathlib import Path

import pytest

from tests.crash.campaign import run
from tests.crash.checker import check
from tests.crash.stream import load_log

ROUNDS = 52


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
