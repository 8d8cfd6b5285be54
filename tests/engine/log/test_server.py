"""The embedded broker: one to a store, found again after a crash, its secrets well kept."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.bus.access import append_access, ensure_access_stream
from engine.bus.client import Bus, NotPermitted
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.stream import call, ensure_log
from schemas.access import BYTES_MAX


@pytest.fixture
def directory(tmp_path):
    yield tmp_path / "nats"
    server.end_orphan(tmp_path / "nats")


async def connect(running, user="admin"):
    return await Bus.connect(
        running.url, user=user, password=running.credentials[user], name="t", cell="embedded"
    )


def test_it_says_where_it_is_and_who_may_enter(directory):
    running = server.start(directory)

    assert running.url == f"nats://127.0.0.1:{running.port}"
    assert running.process.pid == running.pid
    assert set(running.credentials) == set(server.USERS)
    assert running.credentials["engine"] == running.credentials["engine-store"]
    identities = {user.removesuffix("-store") for user in server.USERS}
    assert len(set(running.credentials.values())) == len(identities)
    assert running.stop() == 0


def test_secrets_are_readable_by_their_owner_only(directory):
    running = server.start(directory)

    for name in ("credentials.json", "nats.conf", "pid", "port"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    arguments = Path(f"/proc/{running.pid}/cmdline").read_bytes().decode()
    assert not any(password in arguments for password in running.credentials.values())
    running.stop()


def test_a_second_server_on_the_store_is_refused_while_the_first_lives(directory):
    running = server.start(directory)

    with pytest.raises(server.StoreInUse, match=str(running.pid)):
        server.start(directory)

    running.process.kill()
    running.process.wait(10)
    again = server.start(directory)
    again.stop()


def test_after_a_kill_it_is_found_at_the_same_place_with_the_same_passwords(directory):
    running = server.start(directory)
    running.process.kill()
    running.process.wait(10)

    again = server.start(directory)

    assert (again.url, again.credentials) == (running.url, running.credentials)
    again.stop()


def test_the_lock_outlives_whoever_started_the_server(directory):
    """A supervisor that is killed leaves a server; the next one must not start a second."""
    script = (
        "import sys, pathlib; from engine.log import server;"
        "print(server.start(pathlib.Path(sys.argv[1])).pid)"
    )
    started = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    pid = int(started.stdout)

    with pytest.raises(server.StoreInUse) as raised:
        server.start(directory)

    assert raised.value.pid == pid
    assert server.end_orphan(directory)
    assert not server.end_orphan(directory)
    server.start(directory).stop()


def test_a_process_that_only_has_the_recorded_id_is_left_alone(directory):
    running = server.start(directory)
    bystander = subprocess.Popen(["sleep", "60"])
    (directory / "pid").write_text(f"{bystander.pid}\n")

    with pytest.raises(server.StoreInUse):
        server.end_orphan(directory)

    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(10)
    running.stop()


def test_a_port_that_is_taken_is_told(directory):
    running = server.start(directory)

    with pytest.raises(server.ServerFailed, match=r"address already in use|Authorization"):
        server.start(directory.with_name("other"), running.port)

    running.stop()


async def test_its_end_can_be_awaited(directory):
    running = await asyncio.to_thread(server.start, directory)
    ended = asyncio.create_task(running.wait())
    await asyncio.sleep(0)

    running.process.kill()

    async with asyncio.timeout(10):
        assert await ended == -9


async def test_what_was_acknowledged_is_there_after_a_kill(directory):
    running = await asyncio.to_thread(server.start, directory)
    bus = await connect(running)
    await ensure_log(bus)
    log = JetStreamLog(bus)
    for number in range(20):
        await log.append(b"%d" % number, expected_last=number)
    running.process.kill()
    running.process.wait(10)

    again = await asyncio.to_thread(server.start, directory)

    assert [int(commit.data) async for commit in log.read()] == list(range(20))
    await bus.close()
    again.stop()


@pytest.mark.parametrize("limit", [None, 4 * BYTES_MAX])
async def test_it_starts_on_a_disk_that_is_nearly_full(directory, monkeypatch, limit):
    """What a stream may grow to is reserved, and the server starts with no less than that."""
    full = os.statvfs("/")
    nearly = os.statvfs_result((*full[:4], 1000, *full[5:]))
    monkeypatch.setattr(server.os, "statvfs", lambda _: nearly)
    for round_ in (1, 2, 3):
        running = server.start(directory)
        admin = await connect(running)
        await ensure_log(admin)
        await ensure_access_stream(admin)
        log = JetStreamLog(admin)
        assert await log.append(b"commit", expected_last=round_ - 1) == round_
        assert await append_access(admin.store, "edge", f"edge.{round_}", b"{}") == round_
        if limit is not None and round_ == 1:
            name = f"STREAM.UPDATE.{admin.subjects.access_stream}"
            config = (await call(admin, name.replace("UPDATE", "INFO")))["config"]
            monkeypatch.undo()
            await admin.close()
            running.stop()
            running = server.start(directory)
            admin = await connect(running)
            await call(admin, name, config | {"max_bytes": limit})
            monkeypatch.setattr(server.os, "statvfs", lambda _: nearly)
        await admin.close()
        running.stop()


async def test_an_append_under_way_during_a_restart_is_stored_once(directory):
    running = await asyncio.to_thread(server.start, directory)
    bus = await connect(running)
    await ensure_log(bus)
    log = JetStreamLog(bus)
    appended: list[int] = []
    killed_after = (50, 150, 250)
    reached = asyncio.Event()

    async def keep_appending():
        for number in range(400):
            seq = await log.append(b"%d" % number, expected_last=number)
            appended.append(seq)
            if seq in killed_after:
                reached.set()

    appending = asyncio.create_task(keep_appending())
    for _ in killed_after:
        await reached.wait()
        reached.clear()
        running.process.kill()
        await asyncio.to_thread(running.process.wait, 10)
        running = await asyncio.to_thread(server.start, directory)
    async with asyncio.timeout(60):
        await appending

    assert appended == list(range(1, 401))
    assert [int(commit.data) async for commit in log.read()] == list(range(400))
    await bus.close()
    running.stop()


async def test_a_wrong_password_is_told_at_once(directory):
    running = await asyncio.to_thread(server.start, directory)

    with pytest.raises(NotPermitted, match="refused the password of edge"):
        await Bus.connect(running.url, user="edge", password="no", name="t", cell="embedded")

    running.stop()


def test_syncing_and_payload_are_as_the_log_needs(directory):
    running = server.start(directory)
    text = (directory / "nats.conf").read_text()

    assert '"sync_interval": "always"' in text
    assert '"max_payload": 8388608' in text
    running.stop()
