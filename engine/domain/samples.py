"""Samples of servers, rolled up by the hosts they are on: each hour of a counter once.

A host is believed about what its own servers used, as far as its numbers fit each other: there is
nobody else to ask. It is not believed about other hosts' servers, about hours that are not over or
lie before the server was, and what was recorded stays, whatever it tells later.
"""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import samples as s
from schemas.envelope import Fact
from schemas.errors import ClockAhead, Forbidden, InvalidInput
from schemas.units import HOUR, SECOND, Micros

type Decision = tuple[list[Fact], dict[str, object]]

MONITORS_MAX = 64  # of one server; what is remembered of each is held for as long as the server is
READINGS_MAX = HOUR // SECOND


def report_samples(cell: Cell, ctx: Context, action: s.ReportSamples) -> Decision:
    """Record the hours of servers on this host that were not recorded yet; leave out the rest."""
    host_id = ctx.actor.host_id
    if host_id is None or host_id not in cell.state.hosts:
        raise Forbidden("only a registered host's agent reports samples")
    facts: list[Fact] = []
    known: dict[str, dict[str, Micros]] = {}
    for rollup in action.rollups:
        _need_sound(rollup, ctx.now)
        server = cell.state.servers.get(rollup.server_id)
        if server is None or server.host_id != host_id:
            continue  # it is gone, or another host's to tell of
        if rollup.hour + HOUR <= server.created_at:
            continue
        if rollup.server_id not in known:
            known[rollup.server_id] = dict(cell.state.sampled.get(rollup.server_id, {}))
        hours = known[rollup.server_id]
        if rollup.hour <= hours.get(rollup.monitor, -1):
            continue  # told before
        if rollup.monitor not in hours and len(hours) >= MONITORS_MAX:
            continue
        hours[rollup.monitor] = rollup.hour
        facts.append(s.SamplesRolledUp(project_id=server.project_id, rollup=rollup))
    return facts, {"recorded": len(facts)}


def _need_sound(rollup: s.Rollup, now: Micros) -> None:
    if rollup.hour % HOUR:
        raise InvalidInput("a roll-up is of a whole hour")
    if rollup.hour + HOUR > now:
        raise ClockAhead("a roll-up is of a whole hour that is over", claimed=rollup.hour, now=now)
    readings = (rollup.first, rollup.last)
    if (
        not 0 < rollup.count <= READINGS_MAX
        or not all(rollup.minimum <= r <= rollup.maximum for r in readings)
        # By each reading it grew by what that says above the one before, or by all that it says.
        or not rollup.maximum - rollup.first <= rollup.increase <= rollup.count * rollup.maximum
    ):
        raise InvalidInput("a roll-up's numbers do not fit each other")


# Evolve


def samples_rolled_up(cell: Cell, fact: s.SamplesRolledUp, at: Micros) -> None:
    rollup = fact.rollup
    cell.state.sampled.setdefault(rollup.server_id, {})[rollup.monitor] = rollup.hour
