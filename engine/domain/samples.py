"""Samples of servers, rolled up by the hosts they are on: each hour of a counter once."""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import samples as s
from schemas.envelope import Fact
from schemas.errors import Forbidden, InvalidInput
from schemas.units import HOUR, Micros

type Decision = tuple[list[Fact], dict[str, object]]


def report_samples(cell: Cell, ctx: Context, action: s.ReportSamples) -> Decision:
    """Record the hours of servers on this host that were not recorded yet; leave out the rest."""
    host_id = ctx.actor.host_id
    if host_id is None or host_id not in cell.state.hosts:
        raise Forbidden("only a registered host's agent reports samples")
    facts: list[Fact] = []
    known: dict[tuple[str, str], Micros] = {}
    for rollup in action.rollups:
        _need_sound(rollup, ctx.now)
        server = cell.state.servers.get(rollup.server_id)
        if server is None or server.host_id != host_id:
            continue  # it is gone, or another host's to tell of
        of = cell.state.sampled.get(rollup.server_id, {})
        key = rollup.server_id, rollup.monitor
        if rollup.hour <= known.get(key, of.get(rollup.monitor, -1)):
            continue  # told before
        known[key] = rollup.hour
        facts.append(s.SamplesRolledUp(project_id=server.project_id, rollup=rollup))
    return facts, {"recorded": len(facts)}


def _need_sound(rollup: s.Rollup, now: Micros) -> None:
    if rollup.hour % HOUR or rollup.hour + HOUR > now:
        raise InvalidInput("a roll-up is of a whole hour that is over")
    readings = (rollup.first, rollup.last)
    if not rollup.count or not all(rollup.minimum <= r <= rollup.maximum for r in readings):
        raise InvalidInput("a roll-up's numbers do not fit each other")


# Evolve


def samples_rolled_up(cell: Cell, fact: s.SamplesRolledUp, at: Micros) -> None:
    rollup = fact.rollup
    cell.state.sampled.setdefault(rollup.server_id, {})[rollup.monitor] = rollup.hour
