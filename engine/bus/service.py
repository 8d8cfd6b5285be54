"""What others ask of the engine: submit a request, a host's desired state, a question.

A request is sent again with the same id when its answer is lost: the engine answers an id that is
already in the log with its outcome, so it is carried out once.
"""

import asyncio
import random

import msgspec

from engine.bus.client import Bus, BusError, BusTimeout, NotPermitted
from schemas.envelope import Outcome, Request, decode_outcome, encode
from schemas.errors import Unavailable
from schemas.work import DesiredState, decode_desired_state

# Nobody answers for a leader that is stopped, so the first attempts are short; a repetition joins
# what is under way, and is cheap.
ATTEMPT_FIRST_S = 0.8
ATTEMPT_MAX_S = 5.0
WAIT_FIRST_S = 0.02
WAIT_MAX_S = 0.5


async def submit(
    bus: Bus, request: Request, *, host: str | None = None, timeout_s: float = 10.0
) -> Outcome:
    """Have a request decided, and return the outcome once it is durable. Safe to repeat.

    ``host`` says that an agent reports, on the subject of its own host.

    Raises:
        Unavailable: no outcome in ``timeout_s``; the request may still be carried out.
    """
    subject = bus.subjects.submit_agent(host) if host else bus.subjects.submit_api
    return await _decided(bus, subject, request, timeout_s)


async def submit_as_courier(bus: Bus, request: Request, *, timeout_s: float = 10.0) -> Outcome:
    """Have decided what the courier may ask for. As ``submit``.

    Raises:
        Unavailable: no outcome in ``timeout_s``; the request may still be carried out.
    """
    return await _decided(bus, bus.subjects.submit_courier, request, timeout_s)


async def submit_as_history(bus: Bus, request: Request, *, timeout_s: float = 10.0) -> Outcome:
    """Have decided what the archiver may ask for. As ``submit``.

    Raises:
        Unavailable: no outcome in ``timeout_s``; the request may still be carried out.
    """
    return await _decided(bus, bus.subjects.submit_history, request, timeout_s)


async def submit_as_admin(bus: Bus, request: Request, *, timeout_s: float = 10.0) -> Outcome:
    """Have decided what the broker's administrator may ask for. As ``submit``.

    Raises:
        Unavailable: no outcome in ``timeout_s``; the request may still be carried out.
    """
    return await _decided(bus, bus.subjects.submit_admin, request, timeout_s)


async def desired_state(bus: Bus, host: str, *, timeout_s: float = 10.0) -> DesiredState:
    """Return all that ``host`` shall have.

    Raises:
        Unavailable: the engine did not answer in time.
    """
    answer = await _ask(bus, bus.subjects.desired(host), b"", timeout_s)
    try:
        return decode_desired_state(answer)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the engine's answer cannot be read: {error}") from error


async def ask_engine(
    bus: Bus, question: str, payload: bytes = b"", *, timeout_s: float = 10.0
) -> bytes:
    """Ask ``<cell>.engine.<question>`` and return the answer as it is.

    Raises:
        Unavailable: the engine did not answer in time.
    """
    return await _ask(bus, bus.subjects.engine(question), payload, timeout_s)


async def _decided(bus: Bus, subject: str, request: Request, timeout_s: float) -> Outcome:
    answer = await _ask(bus, subject, encode(request), timeout_s)
    try:
        return decode_outcome(answer)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the engine's answer cannot be read: {error}") from error


async def _ask(bus: Bus, subject: str, payload: bytes, timeout_s: float) -> bytes:
    """Ask until there is an answer. An empty one means "not now", as while the engine folds."""
    now = asyncio.get_running_loop().time
    deadline = now() + timeout_s
    wait_s, attempt_s = WAIT_FIRST_S, ATTEMPT_FIRST_S
    why = "it is not ready"
    while (left := deadline - now()) > 0:
        try:
            if answer := await bus.request(subject, payload, timeout_s=min(left, attempt_s)):
                return answer
        except NotPermitted:
            raise
        except BusTimeout as error:
            why = str(error)
            attempt_s = min(2 * attempt_s, ATTEMPT_MAX_S)
            continue  # It has waited already.
        except BusError as error:
            why = str(error)
        pause_s = random.uniform(wait_s / 2, wait_s)  # spreads retries
        await asyncio.sleep(min(pause_s, max(0.0, deadline - now())))
        wait_s = min(2 * wait_s, WAIT_MAX_S)
    raise Unavailable(f"the engine did not answer in {timeout_s} s: {why}")
