"""What an edge refused before it became an action: put on record with its own code."""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import access as s
from schemas.envelope import Fact
from schemas.errors import Rejected

type Decision = tuple[list[Fact], dict[str, object]]


class RefusedAtEdge(Rejected):
    """The edge has told its client already: the record says the same."""

    def __init__(self, action: s.RefuseRequest) -> None:
        # Of this refusal alone: what others say is fixed by their class.
        self.code = action.code  # type: ignore[misc]
        self.status = action.status  # type: ignore[misc]
        super().__init__(action.reason, rule=action.rule)  # not the one that let this be recorded


def refuse_request(cell: Cell, ctx: Context, action: s.RefuseRequest) -> Decision:
    """Refuse, always."""
    raise RefusedAtEdge(action)
