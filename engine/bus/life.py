"""Signs of life: who works on an answer for long says so, and who waits learns when it is gone.

Nobody else would tell: a broker knows when somebody stops listening, but not that a question was
lost with it; and a process that is stopped listens on. Invariant: as long as the work goes on, a
sign is given each ``SIGN_S``, whether the question is being answered or waits for its turn.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from engine.bus.client import BusError, Message
from engine.bus.waiting import SIGN

log = structlog.get_logger(__name__)

SIGN_S = 1.0


@contextlib.asynccontextmanager
async def at_work(message: Message) -> AsyncGenerator[None]:
    """Give signs of life for as long as a question is worked on, if its asker wants them."""
    if SIGN not in message.headers:
        yield
        return
    signs = asyncio.create_task(_give_signs(message))
    try:
        yield
    finally:
        signs.cancel()
        await asyncio.gather(signs, return_exceptions=True)


async def _give_signs(message: Message) -> None:
    while True:
        await asyncio.sleep(SIGN_S)
        try:
            await message.sign()
        except BusError as error:  # the answer may still find its way
            log.warning("sign_not_given", subject=message.subject, error=str(error))
