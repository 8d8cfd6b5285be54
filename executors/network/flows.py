"""Forget the connections of ports that are gone.

The kernel follows a connection by addresses, for days. The next owner of an address must not be
reached through what its predecessor had let in.
"""

import shutil
from collections.abc import Iterable, Mapping

import structlog

from executors.commands import SEARCH_PATH, run
from executors.errors import CommandFailed, reason
from schemas.work import PortSpec

log = structlog.get_logger(__name__)

_COMMAND_S = 10.0
_NOTHING_DELETED = 1


def forget_flows(zones: Mapping[str, int], ports: Iterable[PortSpec]) -> None:
    """Drop what the kernel tracks for these ports, in the thread's namespace. Blocks.

    ``zones`` are the networks' zones. Where conntrack(8) is not installed, flows time out.
    """
    if shutil.which("conntrack", path=SEARCH_PATH) is None:
        return
    for spec in ports:
        zone = zones.get(spec.network.network_id)
        if zone is None:
            continue
        for fixed in spec.port.fixed_ips:
            for side in ("--orig-src", "--orig-dst"):
                command = ["conntrack", "-D", "--zone", str(zone), side, fixed.ip_address]
                try:
                    run(command, deadline_s=_COMMAND_S, accept=frozenset({0, _NOTHING_DELETED}))
                except CommandFailed as error:
                    log.warning("flows.kept", address=fixed.ip_address, why=reason(error))
