"""Make what a cell keeps on its broker: log, keys, ACCESS. For the administrator alone.

A roll-over of the log that was cut short is completed.

The engine makes work items' stream and the lease by itself, since they are gone when all of the
broker was; what is made here must never be made twice by accident.
"""

from engine.bus.access import ensure_access_stream
from engine.bus.client import Bus
from engine.bus.keys import Keys
from engine.log.readiness import check_servers
from engine.log.rollover import open_next
from engine.log.stream import ensure_log
from schemas.config import Config


async def prepare_cell(config: Config) -> list[str]:
    """Make log, keys and ACCESS unless they are there; return the servers that keep them.

    Raises:
        LogConfigDiffers: the log is there and not as it must be.
        ServerUnfit: a server is older than 2.15, or does not sync every append.
        BusError: no server answers, or the password is wrong.
        OSError: the authority's file cannot be read.
    """
    bus = await Bus.configured(config, "prepare", store=True)
    try:
        await ensure_log(bus, replicas=config.replicas)
        await open_next(bus, replicas=config.replicas)
        keys = Keys(bus)
        await keys.ensure_bucket(replicas=config.replicas)
        await keys.ensure_token_keys()
        await ensure_access_stream(bus, replicas=config.replicas)
        return await check_servers(bus, replicas=config.replicas)
    finally:
        await bus.close()
