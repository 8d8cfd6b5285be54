"""Whether the servers keep the log as it must be kept; asked of each of them at every start.

A stream's own configuration does not say whether an append is synced to disk before it is
acknowledged: that is said by each server's, which only the server's own account may ask for. The
accounts that Cumulog configures hand on that one question (``engine.log.accounts.SERVERS``).
"""

import contextlib
import re
from typing import Any

import msgspec

from engine.bus.client import Bus, BusError, BusTimeout, NoResponders, NotPermitted
from engine.log.accounts import SERVERS

VERSION_MIN = (2, 15)
ANSWER_S = 2.0


class ServerUnfit(BusError):
    """A server would not keep the log as it must be kept. The message names it, and why."""


async def check_servers(bus: Bus, *, replicas: int = 1) -> list[str]:
    """Ask every server of the cluster how it keeps streams; return the names of those that answer.

    One that is away does not answer, and is not waited for once ``replicas`` have: it is asked by
    whoever starts when it is back. For ``engine`` and ``admin``.

    Raises:
        ServerUnfit: one is older than 2.15, has no JetStream or does not sync every append; or it
            is not said, since the server was not configured by Cumulog.
    """
    known: dict[str, dict[str, Any]] = {}
    answers = bus.store.ask_many(SERVERS, b'{"config":true}', timeout_s=ANSWER_S)
    try:
        async with contextlib.aclosing(answers):
            async for answer in answers:
                reply: dict[str, Any] = msgspec.json.decode(answer.payload)
                known[str(reply["server"]["name"])] = reply
                if len(known) >= replicas:
                    break
    except BusTimeout as error:
        if not known:
            raise ServerUnfit(f"no server says how it keeps streams: {error}") from error
    except (NoResponders, NotPermitted) as error:
        raise ServerUnfit(
            f"the servers do not say how they keep streams ({error}); `cumulog admin nats-config` "
            "writes the configuration that they need"
        ) from error
    faults = [f"server {name}: {fault}" for name in sorted(known) if (fault := unfit(known[name]))]
    if faults:
        raise ServerUnfit("; ".join(faults))
    return sorted(known)


def unfit(reply: dict[str, Any]) -> str:
    """Return why a server that answers so cannot keep the log, or "".

    ``reply`` is nats-server's answer to ``$SYS.REQ.SERVER.PING.JSZ`` with ``config``.
    """
    version = str(reply["server"].get("ver", "0"))
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < VERSION_MIN:
        return f"nats-server {version} is older than 2.15"
    data = reply.get("data") or {}
    if data.get("disabled") or "config" not in data:
        return "JetStream is not enabled"
    if not data["config"].get("sync_always"):
        return "JetStream does not sync every append (sync_interval is not `always`)"
    return ""
