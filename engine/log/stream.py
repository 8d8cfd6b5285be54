"""The log's streams: made once, compared at every start, never altered.

Every field of its configuration is compared, known ones with what we asked for and unknown ones
with "off": a later server that adds a way to lose history must be looked at by a person.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from engine.bus.client import Bus, BusError, BusTimeout, Disconnected, NoResponders
from engine.log.readiness import check_servers
from engine.log.streams import numbers_in

API_S = 10.0
NOT_FOUND = 10059
# For a cluster that is starting, or has just lost a node.
PATIENCE_S = 60.0
ATTEMPT_S = 4.0
RETRY_S = 0.2
# No leader yet, or not all nodes known to it (nats-server, errors.json).
SOON = frozenset({10003, 10004, 10005, 10008, 10009, 10023, 10074, 10118})


class LogConfigDiffers(Exception):
    """The stream is not as it must be. Nothing was changed; an administrator has to decide."""

    def __init__(self, stream: str, fields: dict[str, tuple[Any, Any]]) -> None:
        listed = ", ".join(
            f"{name}: {found!r}, not {want!r}" for name, (want, found) in fields.items()
        )
        super().__init__(f"stream {stream} differs from what the log needs: {listed}")
        self.fields = fields


class StreamApiError(BusError):
    """JetStream refused a call. ``code`` is its error code (nats-server ``errors.json``)."""

    def __init__(self, call: str, error: dict[str, Any]) -> None:
        super().__init__(f"{call}: {error.get('description')} ({error.get('err_code')})")
        self.code = int(error.get("err_code", 0))


async def ensure_log(bus: Bus, *, replicas: int = 1) -> None:
    """Create the cell's log if it is not there, and compare its configuration. Can be repeated.

    For ``admin``, who alone may create it, and ``engine``. All streams that it lies in are looked
    at; each must go on where the one before ends.

    Raises:
        LogConfigDiffers: names the fields; the server is to be set right by an administrator.
        ServerUnfit: a server is older than 2.15, or does not sync every append.
        BusError: no server answers.
    """
    await check_servers(bus, replicas=replicas)
    names = bus.subjects
    numbers = await log_numbers(bus)
    if not numbers:
        await ensure_stream(bus, log_config(names.log_stream, names.log, replicas))
    end = 0
    for number in numbers or [1]:
        stream = names.log_stream_of(number)
        info = await stream_info(bus, number)
        # The oldest begins where those that were dropped ended.
        first = end + 1 if end else int(info["config"].get("first_seq", 0))
        compare(log_config(stream, names.log_subject(number), replicas, first), info["config"])
        end = int(info["state"]["last_seq"])


async def log_numbers(bus: Bus) -> list[int]:
    """Return the numbers of the streams that the log lies in, in order.

    Raises:
        BusError: nobody answers who knows.
    """
    request = {"subject": bus.subjects.log_all}
    found = await patiently(lambda: call(bus, "STREAM.NAMES", request))
    return numbers_in(bus.cell, found.get("streams") or ())


async def stream_info(bus: Bus, number: int) -> dict[str, Any]:
    """Return what the broker says of one of the log's streams.

    Raises:
        BusError: nobody answers, or it is not there.
    """
    return await patiently(lambda: call(bus, f"STREAM.INFO.{bus.subjects.log_stream_of(number)}"))


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare a stream's configuration with what it must be.

    Raises:
        LogConfigDiffers: names the fields.
    """
    differences = {
        name: (wanted.get(name), found.get(name))
        for name in sorted(wanted.keys() | found.keys())
        if not _same(wanted.get(name), found.get(name))
    }
    if differences:
        raise LogConfigDiffers(wanted["name"], differences)


def log_config(stream: str, subject: str, replicas: int, first_seq: int = 0) -> dict[str, Any]:
    """Return a stream's configuration: file, for ever, nothing can be deleted, nothing expires.

    ``first_seq`` is where it goes on; 0 for the log's first.
    """
    return {
        "name": stream,
        "subjects": [subject],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "num_replicas": replicas,
        "duplicate_window": 10_000_000_000,
        "compression": "none",
        "allow_direct": True,
        "mirror_direct": False,
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
        "allow_atomic": True,  # a new leader's first commits
        **({"first_seq": first_seq} if first_seq else {}),
    }


async def ensure_stream(
    bus: Bus, wanted: dict[str, Any], *, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Create the stream unless it is there; return its configuration as the server has it.

    A cluster that has no leader yet is waited for, ``patience_s`` at the most.
    """
    name = wanted["name"]
    return await patiently(lambda: _found_or_created(bus, name, wanted), patience_s=patience_s)


async def patiently[T](ask: Callable[[], Awaitable[T]], *, patience_s: float = PATIENCE_S) -> T:
    """Ask until a cluster that has no leader yet has one, ``patience_s`` at the most.

    Raises:
        StreamApiError: it answered with an error that stays.
        BusError: nobody answered in time.
    """
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await ask()
        except (StreamApiError, BusTimeout, Disconnected, NoResponders) as error:
            if isinstance(error, StreamApiError) and error.code not in SOON:
                raise
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(RETRY_S)


async def _found_or_created(bus: Bus, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        reply = await call(bus, f"STREAM.INFO.{name}", timeout_s=ATTEMPT_S)
    except StreamApiError as error:
        if error.code != NOT_FOUND:
            raise
        reply = await call(bus, f"STREAM.CREATE.{name}", wanted)
    config: dict[str, Any] = reply["config"]
    return config


async def call(
    bus: Bus, name: str, body: Any = None, *, timeout_s: float = API_S
) -> dict[str, Any]:
    """Call the JetStream API and return its answer.

    Raises:
        StreamApiError: it answered with an error.
        BusError: it did not answer.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await bus.store.request(f"$JS.API.{name}", payload, timeout_s=timeout_s)
    reply: dict[str, Any] = msgspec.json.decode(answer)
    if "error" in reply:
        raise StreamApiError(name, reply["error"])
    return reply


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(found, dict):  # metadata: the server's own notes start with "_nats."
        found = {key: value for key, value in found.items() if not key.startswith("_nats.")}
    return wanted == found or (not wanted and not found)
