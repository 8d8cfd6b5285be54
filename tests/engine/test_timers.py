"""The engine's clock: a host is marked for its own silence, never for somebody else's."""

import asyncio

from engine import timers as module
from engine.timers import Timers
from schemas.host import MarkHost
from schemas.units import SECOND
from tests.engine.world import World


class Clocked:
    """Timers over a world with one host, and a clock that is set by hand."""

    def __init__(self, monkeypatch):
        self.world = World()
        self.world.host()
        self.submitted = []
        self.reached = 0
        self.broker_held_up = 0
        self.turn = asyncio.Event()
        self.timers = Timers(
            self.world.cell,
            clock=lambda: self.world.now,
            submit=self.submitted.append,
            silent_after=15 * SECOND,
            reach=self.reach,
        )
        monkeypatch.setattr(module, "TICK_S", 0)

    async def reach(self):
        self.reached += 1
        self.world.now += self.broker_held_up

    async def pass_time(self, micros, *, step=SECOND):
        """Let time pass in small steps, with ticks in between."""
        running = asyncio.create_task(self.timers.run())
        await asyncio.sleep(0)
        for _ in range(micros // step):
            self.world.now += step
            for _ in range(5):
                await asyncio.sleep(0)
        running.cancel()

    @property
    def marked(self):
        return [a.status for a in self.submitted if isinstance(a, MarkHost)]


async def test_a_silent_host_is_marked_down(monkeypatch):
    clocked = Clocked(monkeypatch)
    await clocked.pass_time(15 * SECOND)
    assert clocked.marked == []

    await clocked.pass_time(2 * SECOND)

    assert clocked.marked[0] == "down"


async def test_an_engine_that_was_paused_blames_nobody(monkeypatch):
    clocked = Clocked(monkeypatch)
    clocked.timers.heard("host-1")

    await clocked.pass_time(60 * SECOND, step=20 * SECOND)

    assert clocked.marked == []


async def test_a_broker_that_was_paused_is_no_silence_of_hosts(monkeypatch):
    clocked = Clocked(monkeypatch)
    clocked.broker_held_up = 20 * SECOND

    await clocked.pass_time(20 * SECOND)

    assert clocked.reached > 0
    assert clocked.marked == []
