"""Who leads, and in which stream: the first commit of each decider names its epoch."""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import engine as s
from schemas.envelope import Fact
from schemas.errors import Conflict
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def facts_of(action: s.ElectLeader | s.ConfirmLead, now: Micros) -> list[Fact]:
    """Return what follows from a new leader's first requests."""
    if isinstance(action, s.ConfirmLead):
        return []
    return [s.LeaderElected(epoch=action.epoch, node=action.node, elected_at=now)]


def elect_leader(cell: Cell, ctx: Context, action: s.ElectLeader) -> Decision:
    """Begin an epoch; it must be a new one."""
    if action.epoch <= cell.state.epoch:
        raise Conflict(f"epoch {action.epoch} is over; the log is at {cell.state.epoch}")
    return facts_of(action, ctx.now), {}


def confirm_lead(cell: Cell, ctx: Context, action: s.ConfirmLead) -> Decision:
    """Take one more place in the log for the epoch that has just begun."""
    if action.epoch != cell.state.epoch:
        raise Conflict(f"epoch {action.epoch} is not the log's, which is {cell.state.epoch}")
    return facts_of(action, ctx.now), {}


def roll_log(cell: Cell, ctx: Context, action: s.RollLog) -> Decision:
    """Close the log's stream; the next has the next number."""
    now = cell.state.log_number
    if action.number != now + 1:
        raise Conflict(f"the log is in stream {now}, so it can go on in {now + 1}")
    return [s.LogRolled(number=action.number)], {"number": action.number}


def log_rolled(cell: Cell, fact: s.LogRolled, at: Micros) -> None:
    cell.state.log_number = fact.number


def leader_elected(cell: Cell, fact: s.LeaderElected, at: Micros) -> None:
    cell.state.epoch = fact.epoch
