"""Wait for several things, and for threads, without losing sight of any.

A thread cannot be interrupted: whoever stops waiting for one must still know that it has come to
an end before undoing what it did.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from executors.errors import HostError


async def in_thread[T](executor: Executor, work: Callable[[], T], *, deadline_s: float) -> T:
    """Run blocking work in a thread and return its result.

    A cancelled caller gets its cancellation only when the thread is done (at the latest at the
    deadline), so that undoing cannot overtake doing.

    Raises:
        HostError: the thread was still busy at the deadline. It goes on by itself.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.wait_for(asyncio.shield(future), deadline_s)
    except TimeoutError as error:
        raise HostError(f"a step on the host took longer than {deadline_s:g} s") from error
    except asyncio.CancelledError:
        await asyncio.wait([future], timeout=deadline_s)
        if future.done() and not future.cancelled():
            future.exception()  # looked at, so that nobody complains that it was not
        raise


async def together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run steps at the same time, wait for all, then raise the first error or return the results.

    Cancelling cancels all steps and waits for them.
    """
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    for task in tasks:
        if (error := task.exception()) is not None:
            raise error
    return [task.result() for task in tasks]
