"""Who leads: the first commit of each decider names its epoch."""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import engine as s
from schemas.envelope import Fact
from schemas.errors import Conflict
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def elect_leader(cell: Cell, ctx: Context, action: s.ElectLeader) -> Decision:
    """Begin an epoch; it must be a new one."""
    if action.epoch <= cell.state.epoch:
        raise Conflict(f"epoch {action.epoch} is over; the log is at {cell.state.epoch}")
    return [s.LeaderElected(epoch=action.epoch, node=action.node, elected_at=ctx.now)], {}


def leader_elected(cell: Cell, fact: s.LeaderElected, at: Micros) -> None:
    cell.state.epoch = fact.epoch
