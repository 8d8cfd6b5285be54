"""Who waits for answers on the bus: for one, or for as many as come.

What is taken is a message or an error; the first error ends the wait.
"""

import asyncio
from abc import ABC, abstractmethod

from nats.aio.msg import Msg

from engine.bus.errors import FellSilent

# On a question: signs of life are awaited. On what comes meanwhile: it is one, and no answer.
SIGN = "Cumulog-Sign"


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

    __slots__ = ("_silence", "_silent_s", "future")

    def __init__(self, subject: str, silent_s: float | None = None) -> None:
        """``silent_s`` is how long there may be neither an answer nor a sign of life."""
        super().__init__(subject)
        self.future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._silent_s = silent_s
        self._silence: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Wait no longer."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def take(self, answer: Msg | Exception) -> None:
        """See ``Waiter.take``."""
        if self.future.done():
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        elif answer.headers and SIGN in answer.headers:
            self._listen()
        else:
            self.future.set_result(answer)

    def _listen(self) -> None:
        """Count the silence from now on."""
        self.close()
        if self._silent_s is not None:
            error = FellSilent(f"nothing was heard from {self.subject} for {self._silent_s:.1f} s")
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(self._silent_s, self.take, error)


class ManyAnswers(Waiter):
    """Keeps answers in order until they are asked for."""

    __slots__ = ("queue",)

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.queue: asyncio.Queue[Msg | Exception] = asyncio.Queue()

    def take(self, answer: Msg | Exception) -> None:
        """See ``Waiter.take``."""
        self.queue.put_nowait(answer)
