"""Who waits for answers on the bus: for one, or for as many as come.

What is taken is a message or an error; the first error ends the wait.
"""

import asyncio
from abc import ABC, abstractmethod

from nats.aio.msg import Msg


class Waiter(ABC):
    """Somebody who waits for an answer from ``subject``."""

    __slots__ = ("subject",)

    def __init__(self, subject: str) -> None:
        self.subject = subject

    @abstractmethod
    def take(self, answer: Msg | Exception) -> None:
        """Hand over an answer, or why there will be none."""


class OneAnswer(Waiter):
    """Waits for one; what comes later is dropped."""

    __slots__ = ("future",)

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def take(self, answer: Msg | Exception) -> None:
        """See ``Waiter.take``."""
        if self.future.done():
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class ManyAnswers(Waiter):
    """Keeps answers in order until they are asked for."""

    __slots__ = ("queue",)

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.queue: asyncio.Queue[Msg | Exception] = asyncio.Queue()

    def take(self, answer: Msg | Exception) -> None:
        """See ``Waiter.take``."""
        self.queue.put_nowait(answer)
