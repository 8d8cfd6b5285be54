"""The policy's rules that an operator has set, over the default table."""

from collections.abc import Mapping

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import policy as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def set_policy(cell: Cell, ctx: Context, action: s.SetPolicy) -> Decision:
    """Replace rules; the whole table that results is in the fact."""
    table = cell.state.policy
    changed = replaced(table, action.rules)
    if changed == table:
        return [], {"version": table.version}
    return [s.PolicySet(table=changed)], {"version": changed.version}


def replaced(table: s.PolicyTable, given: Mapping[str, tuple[str, ...] | None]) -> s.PolicyTable:
    """Return a table with rules replaced; the same if that changes nothing.

    Raises:
        InvalidInput: a rule or one of its entries is none that an operator sets.
        Conflict: nobody could change the policy any more.
    """
    rules = dict(table.rules)
    for name, entries in given.items():
        default = s.DEFAULT.get(name)
        if default is None:
            raise InvalidInput(f"there is no action {name!r} in the policy")
        if any(s.parse(entry).internal for entry in default):
            raise InvalidInput(f"{name} is for the cloud's own processes: its rule is fixed")
        if entries is None or entries == default:
            rules.pop(name, None)
        else:
            rules[name] = _understood(entries)
    if not any(
        (who := s.parse(entry)).role == "admin" and who.scope in {"cloud", "system"}
        for entry in rules.get("SetPolicy", s.DEFAULT["SetPolicy"])
    ):
        raise Conflict(
            "SetPolicy must stay open to administrators, or nobody could change it again"
        )
    if rules == table.rules:
        return table
    return s.PolicyTable(version=table.version + 1, rules=dict(sorted(rules.items())))


def _understood(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        try:
            who = s.parse(entry)
        except s.BadEntry as error:
            raise InvalidInput(str(error)) from error
        if who.internal:
            raise InvalidInput(f"{entry!r} speaks of the cloud's own processes")
    return tuple(dict.fromkeys(entries))


def policy_set(cell: Cell, fact: s.PolicySet, at: Micros) -> None:
    cell.state.policy = fact.table
