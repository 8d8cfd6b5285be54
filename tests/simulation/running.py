"""One simulation from its beginning to its end, and nothing of it left behind."""

import asyncio
import contextlib
import gc
import shutil
import sys

import executors.run
from engine.domain.compute import server as server_decisions
from schemas.units import SECOND
from tests.simulation.determinism import determinism
from tests.simulation.genesis import memory_directory
from tests.simulation.loop import Exhausted
from tests.simulation.world import DEADLINES, World


@contextlib.contextmanager
def simulated(plan, *, say=None, bug=None):
    """Run a plan to its end and yield the world as it then is."""
    directory = memory_directory()
    world = None
    deadlines = dict(server_decisions.DEADLINE)
    follow_work = executors.run.follow_work
    try:
        world = World(plan, directory, say=say)
        for kind, seconds in DEADLINES.items():
            server_decisions.DEADLINE[kind] = seconds * SECOND
        executors.run.follow_work = _follow_work
        with determinism(world.loop, plan.seed, world.said), bug or contextlib.nullcontext():
            world.loop.create_task(world.story())
            try:
                world.loop.run()
            except Exhausted as error:
                world.defect(str(error))
            world.defects += world.loop.failures
            yield world
    finally:
        server_decisions.DEADLINE.update(deadlines)
        executors.run.follow_work = follow_work
        if world is not None:
            _dispose(world)
        shutil.rmtree(directory)


async def _follow_work(bus, host, executors, handler):
    await bus.network.works[host].follow(bus, handler)


def _dispose(world):
    """Let go of what never ended; what that says is of no interest."""
    for process in world.all_processes:
        if process.alive:
            process.alive = False
            for resource in process.resources:
                resource()
        for task in process.tasks:
            task._log_destroy_pending = False
    for task in asyncio.all_tasks(world.loop):
        task._log_destroy_pending = False


def collect():
    """Collect the garbage of simulations past, unheard."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
