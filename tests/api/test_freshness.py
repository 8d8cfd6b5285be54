"""What is revoked is good for nothing a second later, everywhere; who cannot know says so."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Self

import pytest

from api.freshness import FRESH_S, NS, WAIT_S, Freshness
from schemas.errors import Unavailable
from tests.api.conftest import Api, Cloud
from tests.api.edges import EdgeProcess
from tests.cli.running import clean_environment, eventually

TOKENS = "/identity/v3/auth/tokens"
SERVERS = "/compute/v2.1/servers"


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000 * NS

    def __call__(self) -> int:
        return self.ns


async def test_a_proof_is_good_for_a_second_from_its_moment_on():
    clock = Clock()
    freshness = Freshness(clock)
    assert not freshness.is_fresh()

    freshness.proven(clock.ns - NS // 2)

    await freshness.need()
    clock.ns += NS // 2
    assert freshness.is_fresh()
    clock.ns += 1
    assert not freshness.is_fresh()
    assert freshness.is_fresh(WAIT_S)
    freshness.proven(clock.ns - 2 * NS)  # comes late, and says nothing new
    assert not freshness.is_fresh()


async def test_a_moment_that_is_still_to_come_is_not_believed():
    clock = Clock()
    freshness = Freshness(clock)

    freshness.proven(clock.ns + 3600 * NS)

    clock.ns += round(FRESH_S * NS) + 1
    assert not freshness.is_fresh()


async def test_who_asks_waits_for_the_next_proof():
    clock = Clock()
    freshness = Freshness(clock)
    asking = [asyncio.create_task(freshness.need()) for _ in range(3)]
    await asyncio.sleep(0)
    freshness.proven(clock.ns - 2 * NS)  # too old to be one
    await asyncio.sleep(0)
    assert not any(task.done() for task in asking)

    freshness.proven(clock.ns)

    await asyncio.gather(*asking)


async def test_who_has_waited_long_enough_is_told_to_come_again():
    with pytest.raises(Unavailable) as refused:
        await Freshness(Clock()).need()

    assert refused.value.fields["retry_after"] == 1


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for a while, without its knowing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_node_whose_projector_stands_still_answers_no_token(cloud: Cloud):
    auth = cloud.clouds["cumulog-demo"]["auth"]
    with stopped(cloud.up.pids()["projector"]):
        eventually(lambda: cloud.demo("GET", SERVERS).status == 503, "it says that it cannot know")
        reply = cloud.demo("GET", "/v1/events")
        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        ready = cloud.anyone("GET", "/readyz")
        assert ready.status == 503
        assert "not known to hold all of the log" in str(ready.body["reasons"])
        identity = {"methods": ["token"], "token": {"id": cloud.demo.token}}
        assert cloud.anyone("POST", TOKENS, {"auth": {"identity": identity}}).status == 503
        assert cloud.anyone("GET", "/identity/v3").status == 200
        assert cloud.anyone("GET", "/healthz").status == 200

    eventually(lambda: cloud.demo("GET", SERVERS).status == 200, "it knows again")
    eventually(lambda: cloud.anyone("GET", "/readyz").status == 200, "and says so")
    assert cloud.login(auth["username"], auth["password"], "demo")("GET", SERVERS).status == 200


class OtherNode:
    """A second node of the cloud: a projector with a read model of its own, and an edge on it."""

    def __init__(self, cloud: Cloud, directory: Path) -> None:
        self.root = directory / "node-2"
        (self.root / "run").mkdir(parents=True)
        config = json.loads((cloud.up.state_dir / "run" / "projector.config.json").read_text())
        self.settings = {"node": "node-2", "state_dir": str(self.root)}
        path = self.root / "run" / "projector.config.json"
        path.write_text(json.dumps(config | self.settings))
        self.edge = EdgeProcess(cloud, directory, **self.settings)

    def __enter__(self) -> Self:
        with (self.root / "projector.log").open("ab") as log:
            self.projector = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.serve", "projector", str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )
        self.edge.__enter__()
        ready = Api(self.edge.url)
        eventually(lambda: ready("GET", "/readyz").status == 200, "the second node is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.edge.__exit__()
        self.projector.terminate()
        self.projector.wait(30)


def revoked(cloud: Cloud, api: Api) -> float:
    """End a token at the first node, and return when it was told that this is done."""
    assert api("DELETE", TOKENS, headers={"X-Subject-Token": api.token}).status == 204
    return monotonic()


def refused(api: Api, since: float, status: int) -> None:
    """Ask until the answer is ``status``; nothing asked a second after ``since`` is let in."""

    def ends() -> bool:
        asked_at = monotonic()
        got = api("GET", SERVERS).status
        assert got != 200 or asked_at < since + FRESH_S, "a token is let in that was revoked"
        return got == status

    eventually(ends, f"the other node answers {status}")


def test_a_revoked_token_is_refused_by_every_node(cloud: Cloud, tmp_path: Path):
    with OtherNode(cloud, tmp_path) as other:
        api = cloud.sign_in("cumulog-demo")
        there = Api(other.edge.url, api.token)
        eventually(lambda: there("GET", SERVERS).status == 200, "the token is good there as well")

        refused(there, revoked(cloud, api), 401)

        api = cloud.sign_in("cumulog-demo")
        there = Api(other.edge.url, api.token)
        eventually(lambda: there("GET", SERVERS).status == 200, "the next one is, too")
        with stopped(other.projector.pid):
            refused(there, revoked(cloud, api), 503)
        eventually(lambda: there("GET", SERVERS).status == 401, "it knows, and lets nobody in")
