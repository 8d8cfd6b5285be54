"""An agent that kills itself at a given moment of a build: run by test_guest."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import executors.converge
from schemas.work import decode_work_item
from tests.executors.machine import Machine


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name):
    original = getattr(owner, name)

    async def then_die(*args):
        await original(*args)
        die()

    setattr(owner, name, then_die)


async def main():
    state_dir, moment = sys.argv[1:]
    item = decode_work_item(sys.stdin.buffer.read())
    machine = Machine(Path(state_dir))
    machine.engine.ordinal = item.ordinal
    machine.engine.servers = {}
    await machine.start()
    drivers, converger = machine.drivers, machine.agent._lanes._converger
    match moment:
        case "recorded":
            drivers.storage.ensure_image = die
        case "disk":
            after(drivers.storage, "ensure_disk")
        case "plugged":
            after(drivers.networks, "plug")
        case "created":
            drivers.networks.serve = lambda *_: asyncio.Event().wait()
            after(drivers.hypervisor, "create")
        case "served":
            drivers.hypervisor.create = lambda *_: asyncio.Event().wait()
            after(drivers.networks, "serve")
        case "started":
            converger.drivers = drivers
            machine.engine.submit = die
    machine.engine.blobs = (item.server.image.blob_id,)
    machine.engine._accept(
        executors.converge.msgspec.structs.replace(item, ordinal=item.ordinal + 1000)
    )
    await asyncio.Event().wait()


asyncio.run(main())
