"""A cloud whose log was damaged comes back as it was: state, read model, bill, every byte."""

import asyncio
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.bus.client import Bus
from engine.log import salvage
from tests.cli.running import Up, run

pytestmark = pytest.mark.slow


async def seal(state_dir):
    """Have the archiver seal what there is."""
    config = json.loads((state_dir / "run" / "archiver.config.json").read_text())
    password = json.loads((state_dir / "nats" / "credentials.json").read_text())["admin"]
    bus = await Bus.connect(
        config["nats_url"], user="admin", password=password, name="test", cell=config["cell"]
    )
    try:
        answer = await bus.request(bus.subjects.history("seal"), b"", timeout_s=60)
        assert json.loads(answer)["segments"]
    finally:
        await bus.close()


def seen(cloud, until):
    """What people see of a cloud: servers and networks, and what all cost up to a moment."""
    bill = cloud.json("bill", "--start", "2020-01-01T00:00:00Z", "--end", until)
    return {
        "servers": cloud.json("server", "list"),
        "networks": cloud.json("network", "list"),
        "bills": bill["bills"],
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A cloud that was used, sealed, used again, and stopped; and what could be seen of it."""
    cloud = Up(tmp_path_factory.mktemp("before") / "state")
    cloud.start("--demo")
    cloud.read_until("^Ctrl-C here")
    asyncio.run(seal(cloud.state_dir))
    assert cloud.run("network", "create", "later").code == 0
    digest = cloud.json("replay", "--verify")
    until = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = seen(cloud, until)
    assert told["bills"]
    assert cloud.stop() == 0
    export(cloud.state_dir, cloud.state_dir / "before.jsonl")
    return cloud, digest, told, until


def export(state_dir, file):
    done = run("log", "export", str(file), "--offline", "--state-dir", str(state_dir))
    assert done.code == 0, done.errors


@pytest.fixture
def broken(before, tmp_path):
    shutil.copytree(before[0].state_dir, tmp_path / "state", symlinks=True)
    cloud = Up(tmp_path / "state")
    yield cloud
    if cloud.process is not None:
        cloud.stop()


def stream(cloud):
    return salvage.streams(cloud.state_dir / "nats", "LOG-")[0]


def block(cloud):
    return next((stream(cloud) / "msgs").glob("1.blk"))


def restore(cloud, *options):
    return run("log", "restore", "--state-dir", str(cloud.state_dir), "-o", "json", *options)


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_log_is_restored_and_the_cloud_is_as_before(before, broken, damage):
    _, digest, told, until = before
    if damage == "flip":
        data = bytearray(block(broken).read_bytes())
        data[len(data) // 3] ^= 0x10
        block(broken).write_bytes(data)
    else:
        # The tail that was not sealed comes from a copy of the broker's files.
        copy = broken.state_dir / "restore" / "copy"
        shutil.copytree(stream(broken), copy)
        shutil.rmtree(stream(broken))
        assert restore(broken).code == 1
        refused = json.loads(restore(broken).output)
        assert refused["lost"]
        place = stream(broken)
        shutil.rmtree(place)
        shutil.move(copy, place)

    done = restore(broken, *(["--force"] if damage == "delete" else []))

    assert done.code == 0, done.errors
    assert json.loads(done.output)["result"] == "restored"
    export(broken.state_dir, broken.state_dir / "after.jsonl")
    assert commits(broken.state_dir / "after.jsonl") == commits(
        before[0].state_dir / "before.jsonl"
    )
    broken.start()
    again = broken.json("replay", "--verify")
    assert again["matches"] is True
    assert again["ordinal"] >= digest["ordinal"]
    assert seen(broken, until) == told
    assert broken.json("audit", "verify")["intact"] is True


def commits(path):
    return [line for line in path.read_bytes().splitlines() if line.startswith(b'{"at"')]


def test_what_is_lost_keeps_the_cloud_down_until_it_is_accepted(before, broken):
    size = block(broken).stat().st_size
    os.truncate(block(broken), size - 700)

    done = restore(broken)

    assert done.code == 1
    assert "were acknowledged and are lost" in done.errors
    assert restore(broken).code == 1

    done = restore(broken, "--accept-loss")
    assert done.code == 0, done.errors
    told = json.loads(done.output)
    assert told["accepted"]
    assert Path(told["moved"]).is_dir()
    broken.start()
    assert broken.json("replay", "--verify")["matches"] is True
    verified = broken.json("audit", "verify")
    assert verified["intact"] is True
    assert len(verified["losses"]) == 1
    assert broken.run("network", "create", "goes-on").code == 0


def test_a_running_cloud_is_not_restored(before, broken):
    broken.start()

    done = restore(broken)

    assert done.code == 1
    assert "already runs" in done.errors


def test_a_restore_that_was_cut_short_keeps_the_cloud_from_starting(before, broken):
    (broken.state_dir / "restore").mkdir(exist_ok=True)
    (broken.state_dir / "restore" / "building").touch()

    done = run("up", "--state-dir", str(broken.state_dir), "--driver", "simulated")
    assert done.code == 1
    assert "log restore" in done.errors

    assert restore(broken).code == 0
    assert not (broken.state_dir / "restore" / "building").exists()
