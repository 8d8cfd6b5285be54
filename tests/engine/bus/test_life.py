"""Signs of life: they keep whoever asks waiting, and when they end it does not wait any longer."""

import asyncio
import os
import signal
import sys

import pytest

from engine.bus import life
from engine.bus.client import Bus, FellSilent
from engine.bus.life import at_work

SILENT_S = 3.0
# Answers "well", or never does.
ANSWERER = """
import asyncio, sys
from engine.bus import life
from engine.bus.client import Bus
from engine.bus.life import at_work

life.SIGN_S = 0.1

async def answer(message):
    async with at_work(message):
        if message.payload == b"how?":
            await message.respond(b"well")
        else:
            print("taken", flush=True)
            await asyncio.Event().wait()

async def main():
    url, password, cell = sys.stdin.readline().split()
    bus = await Bus.connect(url, user="history", password=password, name="answerer", cell=cell)
    await bus.subscribe(bus.subjects.history("*"), answer, concurrency=9)
    print("listens", flush=True)
    await bus.closed.wait()

asyncio.run(main())
"""


async def connected(server, user):
    return await Bus.connect(
        server.url, user=user, password=server.credentials[user], name="test", cell="embedded"
    )


@pytest.fixture
async def edge(nats_server):
    bus = await connected(nats_server, "edge")
    yield bus
    await bus.close()


@pytest.fixture
async def history(nats_server):
    bus = await connected(nats_server, "history")
    yield bus
    await bus.close()


async def test_who_works_longer_than_anybody_is_silent_is_waited_for(edge, history, monkeypatch):
    monkeypatch.setattr(life, "SIGN_S", 0.1)
    given = 0

    async def answer(message):
        nonlocal given
        sign, done = message._bus.sign, asyncio.Event()

        async def counted(reply):
            nonlocal given
            await sign(reply)
            given += 1
            if given * life.SIGN_S > SILENT_S:
                done.set()

        monkeypatch.setattr(message._bus, "sign", counted)
        async with at_work(message):
            await done.wait()
            await message.respond(b"done")

    await history.subscribe(history.subjects.history("*"), answer)

    asked = edge.subjects.history("long")
    assert await edge.request(asked, b"", timeout_s=120, silent_s=SILENT_S) == b"done"
    assert given * life.SIGN_S > SILENT_S


async def test_who_does_not_want_signs_is_given_none(edge, history, monkeypatch):
    monkeypatch.setattr(life, "SIGN_S", 0.0)

    async def answer(message):
        async with at_work(message):
            for _ in range(10):
                await history.flush()
            await message.respond(b"done")

    await history.subscribe(history.subjects.history("*"), answer)

    assert await edge.request(edge.subjects.history("short"), b"", timeout_s=60) == b"done"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_who_dies_or_is_stopped_at_work_is_not_waited_for(edge, nats_server, number):
    pipe = asyncio.subprocess.PIPE
    answerer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ANSWERER, stdin=pipe, stdout=pipe
    )
    try:
        told = f"{nats_server.url} {nats_server.credentials['history']} {edge.cell}\n"
        answerer.stdin.write(told.encode())
        assert await answerer.stdout.readline() == b"listens\n"
        asked = edge.subjects.history("how")
        asking = asyncio.create_task(
            edge.request(asked, b"for ever?", timeout_s=600, silent_s=SILENT_S)
        )
        assert await answerer.stdout.readline() == b"taken\n"
        os.kill(answerer.pid, number)
        # It would answer at once, if it could: nobody waits until the deadline.
        with pytest.raises(FellSilent):
            await asking
        if number == signal.SIGSTOP:
            os.kill(answerer.pid, signal.SIGCONT)
            assert await edge.request(asked, b"how?", timeout_s=60, silent_s=SILENT_S) == b"well"
    finally:
        if answerer.returncode is None:
            answerer.kill()
        await answerer.communicate()
