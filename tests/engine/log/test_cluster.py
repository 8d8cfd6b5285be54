"""Three nodes, killed and paused in turn under load: what was acknowledged stays, in order."""

import asyncio
import contextlib

import pytest

from engine.bus.client import BusError
from engine.bus.keys import Keys
from engine.bus.work import ensure_work_of, ensure_work_stream
from engine.log.commit import GENESIS, seal_commit
from engine.log.jetstream import JetStreamLog
from engine.log.port import LogUnavailable
from engine.log.readiness import check_servers
from engine.log.replay import replay
from engine.log.stream import call, ensure_log
from engine.log.verify import verify
from schemas.engine import ElectLeader, LeaderElected
from schemas.envelope import Accepted, Actor, Record, Request
from tests.nodes import NAMES

IN_FLIGHT = 4
# A lost leader's successor is elected by the nodes (Raft); this only bounds the wait.
RECOVERY_S = 60
AHEAD = 5 * IN_FLIGHT


def a_record(number):
    return Record(
        salt=f"{number:016x}",
        request=Request(
            request_id=f"req-{number}",
            actor=Actor(kind="system"),
            action=ElectLeader(epoch=1, node="n"),
            submitted_at=number,
        ),
        verdict=Accepted(),
        facts=(LeaderElected(epoch=1, node="n", elected_at=number),),
    )


class Writer:
    """Appends chained commits under the fence, a few in flight, until told to stop."""

    def __init__(self, bus):
        self._log = JetStreamLog(bus, replicas=3)
        self._prev = GENESIS
        self._sealed = 0
        self.acknowledged: list[bytes] = []
        self.stopping = False
        self._progress = asyncio.Condition()

    async def run(self):
        while not self.stopping:
            after = len(self.acknowledged)
            datas = [self._next() for _ in range(IN_FLIGHT)]
            sequences = await asyncio.gather(
                *(
                    self._log.append(data, expected_last=after + n, pipelined=n > 0)
                    for n, data in enumerate(datas)
                )
            )
            assert sequences == list(range(after + 1, after + 1 + IN_FLIGHT))
            async with self._progress:
                self.acknowledged += datas
                self._progress.notify_all()

    def _next(self):
        number = self._sealed = self._sealed + 1
        data, self._prev = seal_commit(
            f"c-{number}", 2 * number - 1, self._prev, 1, number, [a_record(number)]
        )
        return data

    async def gets_ahead(self, running):
        """Wait until some more is acknowledged."""
        goal = len(self.acknowledged) + AHEAD
        async with asyncio.timeout(RECOVERY_S), self._progress:
            while len(self.acknowledged) < goal:
                assert not running.done(), running.exception()
                await self._progress.wait()


async def all_current(bus):
    """Wait until each node has what the leader has: only then may another one go."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            with contextlib.suppress(BusError):  # no leader now
                stream = bus.subjects.log_stream
                cluster = (await call(bus, f"STREAM.INFO.{stream}", timeout_s=1))["cluster"]
                replicas = cluster.get("replicas", [])
                if len(replicas) == 2 and all(
                    r["current"] and not r.get("offline", False) for r in replicas
                ):
                    return cluster["leader"]
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_nodes_are_killed_and_paused_in_turn_and_nothing_is_lost(cluster):
    admin = await cluster.connect("admin")
    await ensure_log(admin, replicas=3)
    engine = await cluster.connect("engine")
    writer = Writer(engine)
    writing = asyncio.create_task(writer.run())
    led: list[str] = []
    try:
        await writer.gets_ahead(writing)
        for turn in (("kill", "pause", "kill"), ("pause", "kill", "pause")):
            for name, what in zip(NAMES, turn, strict=True):
                led.append("leader" if await all_current(admin) == name else "follower")
                getattr(cluster, what)(name)
                await writer.gets_ahead(writing)
                if what == "kill":
                    await asyncio.to_thread(cluster.start, name)
                else:
                    cluster.resume(name)
                await writer.gets_ahead(writing)
        if "leader" not in led:  # by chance; then the leader goes now
            leader = await all_current(admin)
            cluster.kill(leader)
            await writer.gets_ahead(writing)
            await asyncio.to_thread(cluster.start, leader)
        writer.stopping = True
        async with asyncio.timeout(RECOVERY_S):
            await writing
        await all_current(admin)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await engine.close()
        await admin.close()

    stream = f"LOG-{cluster.cell}-0001"
    for node in NAMES:
        found = await asyncio.to_thread(
            lambda url: list(replay(url, "engine", cluster.passwords["engine"], stream)),
            cluster.url_of(node),
        )
        assert [data for _, data in found] == writer.acknowledged
        assert verify(found).commits == len(writer.acknowledged)
    print(f"{len(writer.acknowledged)} commits, {led}")


async def test_without_two_nodes_nothing_is_stored_and_nothing_is_lost(cluster):
    admin = await cluster.connect("admin")
    engine = await cluster.connect("engine")
    stream = engine.subjects.log_stream
    try:
        await ensure_log(admin, replicas=3)
        log = JetStreamLog(engine, append_s=1, replicas=3)
        assert await log.append(b"one", expected_last=0) == 1
        leader = await all_current(admin)
        lost = [name for name in NAMES if name != leader]
        for name in lost:
            cluster.pause(name)

        with pytest.raises(LogUnavailable):
            await log.append(b"two", expected_last=1)
        for name in lost:
            cluster.resume(name)

        async with asyncio.timeout(RECOVERY_S):
            while True:
                with contextlib.suppress(LogUnavailable):
                    assert await log.append(b"two", expected_last=1) == 2
                    break
        await all_current(admin)
    finally:
        await engine.close()
        await admin.close()

    password = cluster.passwords["engine"]
    async with asyncio.timeout(RECOVERY_S):  # one that led before may answer with what it had
        while True:
            found = await asyncio.to_thread(
                lambda: list(replay(cluster.url, "engine", password, stream))
            )
            assert found == [(1, b"one"), (2, b"two")][: len(found)]
            if len(found) == 2:
                break


async def test_every_stream_lies_on_three_nodes_and_all_nodes_are_asked(cluster):
    admin = await cluster.connect("admin")
    await ensure_log(admin, replicas=3)
    await Keys(admin).ensure_bucket(replicas=3)
    engine = await cluster.connect("engine")
    names = engine.subjects

    assert await check_servers(engine, replicas=3) == list(NAMES)
    for stream in (names.log_stream, f"KV_{names.keys_bucket}"):
        assert (await call(engine, f"STREAM.INFO.{stream}"))["config"]["num_replicas"] == 3

    await admin.close()
    await engine.close()


async def test_work_reaches_streams_over_any_node(cluster):
    admin = await cluster.connect("admin")
    await ensure_log(admin, replicas=3)
    end = int((await call(admin, f"STREAM.INFO.{admin.subjects.log_stream}"))["state"]["last_seq"])
    for node in NAMES:
        engine = await cluster.connect("engine", node=node)
        await ensure_work_stream(engine)
        await ensure_work_of(engine, "host-1")
        end = await JetStreamLog(engine, replicas=3).append(node.encode(), expected_last=end)
        await engine.close()

    found = replay(cluster.url, "history", cluster.passwords["history"], admin.subjects.log_stream)
    last = await asyncio.to_thread(lambda: [data for _, data in found][-3:])
    await admin.close()

    assert last == [node.encode() for node in NAMES]
