"""Who asks history and whoever was to answer is gone: told soon, and by asking again answered."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.api.conftest import Cloud, Reply, started
from tests.cli.running import eventually

# As cell.json has it: who gives no sign of life is soon given up on.
CELL = {
    "cell": "embedded",
    "node": "node-1",
    "host_id": "host-1",
    "driver": "simulated",
    "listen": "nowhere:0",  # so that a free port is looked for
    "settings": {"history_silent_s": 6.0},
}
REPLAY = "/v1/replay/verify"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    state_dir = tmp_path_factory.mktemp("history") / "state"
    state_dir.mkdir(mode=0o700)
    (state_dir / "cell.json").write_text(json.dumps(CELL))
    with started(state_dir, "--log-level", "debug") as cloud:
        yield cloud


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def times_asked(cloud: Cloud) -> int:
    """Return how often the archiver has begun to answer whether a replay gives the same."""
    told = (cloud.up.state_dir / "log" / "archiver.log").read_text().splitlines()
    return sum('"event":"asked"' in line and '"question":"replay"' in line for line in told)


def at_work(cloud: Cloud) -> AbstractContextManager[None]:
    """Have the archiver begin to answer and not end: the engine, which it asks in turn, stands.

    Nothing else that is asked here needs the engine.
    """
    return stopped(cloud.up.pids()["engine"])


def begun(cloud: Cloud, before: int) -> None:
    eventually(lambda: times_asked(cloud) > before, "the archiver is at work")


def told_soon(cloud: Cloud, reply: Reply) -> None:
    assert reply.status == 503, reply
    assert reply.headers["retry-after"] == "5"
    assert reply.body["code"] == "Unavailable"
    assert reply.body["detail"].startswith("Nothing was heard for 6 s of the archiver")
    assert "Ask again" in reply.body["hint"]
    assert reply.body["request_id"] == reply.headers["x-openstack-request-id"]


def test_an_archiver_that_is_stopped_while_it_answers_is_not_waited_for(cloud: Cloud):
    before = times_asked(cloud)
    with ThreadPoolExecutor() as pool, at_work(cloud):
        asking = pool.submit(cloud.admin, "POST", REPLAY, {})
        begun(cloud, before)
        with stopped(cloud.up.pids()["archiver"]):
            # Nor one that takes a question and does not even begin.
            command = pool.submit(cloud.up.run, "replay", "--verify")
            told_soon(cloud, asking.result(60))
            done = command.result(60)
    assert done.code == 3
    assert "Nothing was heard for 6 s of the archiver" in done.errors
    assert "Ask again" in done.errors
    assert re.search(r"req-[0-9a-f-]{36}", done.errors)
    assert cloud.admin("POST", REPLAY, {}).body["matches"] is True


def test_an_archiver_that_is_killed_while_it_answers_is_not_waited_for(cloud: Cloud):
    killed = cloud.up.pids()["archiver"]
    before = times_asked(cloud)
    with ThreadPoolExecutor() as pool, at_work(cloud):
        asking = pool.submit(cloud.admin, "POST", REPLAY, {})
        begun(cloud, before)
        os.kill(killed, signal.SIGKILL)
        told_soon(cloud, asking.result(60))
    eventually(lambda: cloud.up.pids()["archiver"] not in {0, killed}, "it runs again")
    eventually(lambda: cloud.admin("POST", REPLAY, {}).status == 200, "it answers")
