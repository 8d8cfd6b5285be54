"""A cloud whose log goes on in the next stream, and lets go of the first: nobody notices."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import threading
import time

import pytest
import uuid_utils

from cli.accounts import account
from cli.client import Client
from cli.problem import Problem
from cli.rollover import admin_config, broker
from cli.state import State
from engine.bus.client import Bus, BusError
from engine.bus.service import submit_as_admin
from engine.log.jetstream import JetStreamLog
from engine.log.stream import call
from schemas.engine import RollLog
from schemas.envelope import Accepted, Actor, Request
from schemas.ids import SYSTEM_USER
from tests.cli.running import Up, eventually, run
from tests.deployed import Deployed
from tests.engine.log.test_rollover import Chain

pytestmark = pytest.mark.slow
CLIENTS = 6


@pytest.fixture
def cloud(tmp_path):
    running = Up(tmp_path / "state")
    yield running
    if running.process is not None:
        running.stop()


@contextlib.contextmanager
def a_client(cloud):
    told = json.loads((cloud.state_dir / "cell.json").read_text())
    address = f"http://{told['listen']}"
    with contextlib.closing(
        Client(account(State.at(cloud.state_dir), address, "cumulog"))
    ) as client:
        yield client


class Load:
    """Clients that submit one request after another, each again until it is acknowledged."""

    def __init__(self, cloud):
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []
        self._cloud = cloud
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.gets_ahead()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def _run(self):
        with a_client(self._cloud) as client:
            self._submit(client)

    def _submit(self, client):
        while not self._stop.is_set():
            name = f"p-{secrets.token_hex(8)}"
            deadline = time.monotonic() + 60
            while True:
                try:
                    outcome = client.submit({"type": "CreateProject", "name": name}, name)
                except Problem as problem:
                    if time.monotonic() > deadline:
                        self.refused.append(str(problem))
                        break
                    continue
                self.acknowledged[name] = outcome["ordinal"]
                break

    def gets_ahead(self):
        goal = len(self.acknowledged) + 3 * CLIENTS
        eventually(lambda: len(self.acknowledged) >= goal, "requests are acknowledged")


def admin(cloud, *arguments):
    return run("admin", *arguments, "--state-dir", str(cloud.state_dir), "-o", "json")


def rolled(cloud):
    done = admin(cloud, "log-roll")
    assert done.code == 0, done.errors
    return json.loads(done.output)


def streams(cloud):
    async def ask():
        config = json.loads((cloud.state_dir / "run" / "bootstrap.config.json").read_text())
        bus = await Bus.connect(
            config["nats_url"],
            user="admin",
            password=config["nats_password"],
            name="test",
            cell=config["cell"],
        )
        try:
            found = await call(bus, "STREAM.NAMES", {"subject": bus.subjects.log_all})
        finally:
            await bus.close()
        return [int(name[-4:]) for name in found["streams"]]

    return asyncio.run(ask())


def exported(cloud, *options):
    file = cloud.state_dir.parent / f"{secrets.token_hex(4)}.jsonl"
    if options:
        done = run("log", "export", str(file), "--state-dir", str(cloud.state_dir), *options)
    else:
        done = cloud.run("log", "export", str(file))
    assert done.code == 0, done.errors
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    return [line for line in lines if "records" in line]


def require_all(cloud, load):
    """Check that each acknowledged request is there once, under its ordinal; all is whole."""
    assert not load.refused
    placed: dict[str, list[int]] = {}
    ordinal = 0
    for commit in exported(cloud):
        for record in commit["records"]:
            ordinal += 1
            action = record["request"]["action"]
            if action["type"] == "CreateProject" and record["facts"]:
                placed.setdefault(action["name"], []).append(ordinal)
            ordinal += len(record["facts"])
    for name in load.acknowledged:
        assert len(placed[name]) == 1, name
    assert cloud.json("audit", "verify")["intact"] is True
    assert cloud.json("replay", "--verify")["matches"] is True
    names = {project["name"] for project in cloud.json("project", "list")}
    assert set(load.acknowledged) <= names


def test_rolling_over_under_load_loses_and_doubles_nothing(cloud):
    cloud.start()
    with Load(cloud) as load:
        for number in (2, 3, 4):
            told = rolled(cloud)
            assert told["stream"] == number
            load.gets_ahead()
        assert json.loads(admin(cloud, "log-roll", "--to", "3").output)["result"] == "nothing to do"
    assert streams(cloud) == [1, 2, 3, 4]
    require_all(cloud, load)


def decide_only(cloud, number):
    """Leave the roll-over where a kill of the command leaves it: closed, and nothing made."""

    async def close():
        config = admin_config("", "", str(cloud.state_dir))
        async with broker(config, store=False) as bus:
            action = RollLog(number=number)
            actor = Actor(kind="system", user_id=SYSTEM_USER)
            request_id = f"req-{uuid_utils.uuid7()}"
            request = Request(request_id=request_id, actor=actor, action=action, submitted_at=0)
            assert isinstance((await submit_as_admin(bus, request)).verdict, Accepted)

    asyncio.run(close())
    assert streams(cloud) == list(range(1, number))


def kill_engine(cloud):
    pid = cloud.pids()["engine"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: cloud.pids()["engine"] != pid, "the engine is back")


@pytest.mark.parametrize("standby", [False, True])
def test_kills_between_the_steps_are_repaired(cloud, standby):
    cloud.start(*(["--standby"] if standby else []))
    with Load(cloud) as load:
        decide_only(cloud, 2)
        # Who leads is killed while requests wait for the next stream.
        for _ in range(2):
            kill_engine(cloud)
        told = rolled(cloud)
        assert told == {"stream": 2, "result": "a roll-over that was cut short is complete now"}
        load.gets_ahead()

        # Killed right after it went on; somebody else has to begin in the new stream.
        rolled(cloud)
        os.kill(cloud.pids()["engine"], signal.SIGKILL)
        load.gets_ahead()

        # The broker's next start completes it, too.
        decide_only(cloud, 4)
        os.kill(cloud.pids()["nats"], signal.SIGKILL)
        eventually(lambda: _streams_or_none(cloud) == [1, 2, 3, 4], "stream 4")
        load.gets_ahead()
    require_all(cloud, load)


def test_a_leader_that_was_stopped_in_the_middle_does_no_harm(cloud):
    cloud.start("--standby")
    with Load(cloud) as load:
        for number, name in ((2, "engine"), (3, "standby")):  # either may lead
            decide_only(cloud, number)
            pid = cloud.pids()[name]
            os.kill(pid, signal.SIGSTOP)
            try:
                rolled(cloud)
                load.gets_ahead()
            finally:
                os.kill(pid, signal.SIGCONT)
            load.gets_ahead()
    require_all(cloud, load)


def test_a_broker_that_is_started_again_by_itself_completes_it(cloud):
    cloud.start()
    with Load(cloud) as load:
        decide_only(cloud, 2)
        # The engine gives up waiting, so the supervisor starts the broker anew.
        eventually(lambda: _streams_or_none(cloud) == [1, 2], "stream 2 is there", 90)
        load.gets_ahead()
    require_all(cloud, load)


def _streams_or_none(cloud):
    with contextlib.suppress(BusError):
        return streams(cloud)
    return None


def test_what_was_dropped_is_still_there_for_everybody(cloud):
    cloud.start()
    with Load(cloud) as load:
        rolled(cloud)
        load.gets_ahead()
    before = exported(cloud)
    kept = admin(cloud, "log-drop", "1")
    assert kept.code == 1
    assert "--yes" in kept.errors

    done = admin(cloud, "log-drop", "1", "--yes")

    assert done.code == 0, done.errors
    assert json.loads(done.output)["result"] == "dropped"
    assert json.loads(admin(cloud, "log-drop", "1", "--yes").output)["result"].startswith("it was")
    assert admin(cloud, "log-drop", "2", "--yes").code == 1
    assert streams(cloud) == [2]
    assert exported(cloud)[: len(before)] == before
    rebuilt = run("projection", "rebuild", "--state-dir", str(cloud.state_dir), "-o", "json")
    assert rebuilt.code == 0, rebuilt.errors
    assert json.loads(rebuilt.output)["identical"] is True
    require_all(cloud, load)

    # From nothing: no snapshot, no read model.
    assert cloud.stop() == 0
    assert exported(cloud, "--offline")[: len(before)] == before
    for path in (*cloud.state_dir.glob("snapshots/*"), *cloud.state_dir.glob("read/*")):
        path.unlink()
    cloud.start()
    require_all(cloud, load)
    with Load(cloud) as more:
        rolled(cloud)
        more.gets_ahead()
    require_all(cloud, more)
    assert cloud.stop() == 0
    whole = run("log", "restore", "--state-dir", str(cloud.state_dir), "-o", "json")
    assert json.loads(whole.output)["result"] == "intact, nothing was done", whole.errors
    again = run("log", "restore", "--force", "--state-dir", str(cloud.state_dir), "-o", "json")
    assert json.loads(again.output)["result"] == "restored", again.errors
    cloud.start()
    assert streams(cloud) == [1, 2, 3]
    require_all(cloud, more)


def test_a_damaged_second_copy_keeps_the_first(cloud):
    cloud.start()
    with Load(cloud) as load:
        rolled(cloud)
        load.gets_ahead()
    assert cloud.json("audit", "checkpoint")
    asyncio.run(_seal(cloud))
    for path in (cloud.state_dir / "history").glob("*.parquet"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    done = admin(cloud, "log-drop", "1", "--yes")

    assert done.code == 1
    assert "not dropped" in done.errors
    assert streams(cloud) == [1, 2]


async def _seal(cloud):
    config = json.loads((cloud.state_dir / "run" / "bootstrap.config.json").read_text())
    bus = await Bus.connect(
        config["nats_url"],
        user="admin",
        password=config["nats_password"],
        name="test",
        cell=config["cell"],
    )
    try:
        await bus.request(bus.subjects.history("seal"), b"", timeout_s=60)
    finally:
        await bus.close()


def test_on_a_cluster_the_administrators_file_opens_the_next_stream(tmp_path):
    deployed = Deployed(tmp_path, "cell-d")
    assert deployed.write().returncode == 0
    deployed.start()
    try:
        assert deployed.prepare().returncode == 0
        file = str(deployed.files / "components" / "admin.json")
        assert json.loads(run("admin", "log-roll", file, "--to", "1", "-o", "json").output) == {
            "stream": 1,
            "result": "nothing to do",
        }
        asyncio.run(_close(deployed))

        done = run("admin", "log-roll", file, "-o", "json")

        assert done.code == 0, done.errors
        assert json.loads(done.output)["stream"] == 2
        assert asyncio.run(_goes_on(deployed)) == 4
        refused = run("admin", "log-drop", "1", file, "--yes")
        assert refused.code == 1
        assert "sealed history ends at ordinal 0" in refused.errors
        assert run("admin", "log-drop", "2", file, "--yes").code == 1
    finally:
        deployed.stop()


async def _close(deployed):
    bus = await deployed.connect("engine")
    chain = Chain(JetStreamLog(bus))
    await chain.write(2)
    await chain.close(2)
    await bus.close()


async def _goes_on(deployed):
    bus = await deployed.connect("engine")
    log = JetStreamLog(bus)
    await log.roll(2)
    last = await log.append(b"next", expected_last=3)
    await bus.close()
    return last
