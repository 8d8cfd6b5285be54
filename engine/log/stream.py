"""The log's stream: made once, compared at every start, never altered.

Every field of its configuration is compared, known ones with what we asked for and unknown ones
with "off": a later server that adds a way to lose history must be looked at by a person.
"""

import asyncio
from typing import Any

import msgspec

from engine.bus.client import Bus, BusError, BusTimeout, Disconnected, NoResponders
from engine.log.readiness import check_servers

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

    For ``admin``, who alone may create it, and ``engine``.

    Raises:
        LogConfigDiffers: names the fields; the server is to be set right by an administrator.
        ServerUnfit: a server is older than 2.15, or does not sync every append.
        BusError: no server answers.
    """
    await check_servers(bus, replicas=replicas)
    wanted = log_config(bus.subjects.log_stream, bus.subjects.log, replicas)
    found = await ensure_stream(bus, wanted)
    differences = {
        name: (wanted.get(name), found.get(name))
        for name in sorted(wanted.keys() | found.keys())
        if not _same(wanted.get(name), found.get(name))
    }
    if differences:
        raise LogConfigDiffers(bus.subjects.log_stream, differences)


def log_config(stream: str, subject: str, replicas: int) -> dict[str, Any]:
    """Return the log's configuration: file, for ever, nothing can be deleted, nothing expires."""
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
    }


async def ensure_stream(
    bus: Bus, wanted: dict[str, Any], *, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Create the stream unless it is there; return its configuration as the server has it.

    A cluster that has no leader yet is waited for, ``patience_s`` at the most.
    """
    name = wanted["name"]
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await _found_or_created(bus, name, wanted)
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
