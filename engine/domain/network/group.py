"""Security groups: which there are, and what a project's first one lets through."""

from engine.domain.context import Context
from engine.domain.state import Cell, drop_member
from schemas import network as s
from schemas.errors import UnknownReference
from schemas.units import Micros


def default_group(ctx: Context, project_id: str) -> s.SecurityGroup:
    """Return a project's first group: all egress; of ingress, ICMP and TCP 22."""

    def rule(**fields: object) -> s.SecurityGroupRule:
        return s.SecurityGroupRule(rule_id=ctx.new_id(), **fields)  # type: ignore[arg-type]

    return s.SecurityGroup(
        security_group_id=ctx.new_id(),
        name="default",
        project_id=project_id,
        description="Default security group",
        rules=(
            rule(direction="egress", ethertype="IPv4"),
            rule(direction="egress", ethertype="IPv6"),
            rule(direction="ingress", ethertype="IPv4", protocol="icmp"),
            rule(
                direction="ingress",
                ethertype="IPv4",
                protocol="tcp",
                port_range_min=22,
                port_range_max=22,
            ),
        ),
        created_at=ctx.now,
        updated_at=ctx.now,
    )


def groups_of(cell: Cell, ctx: Context, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return security group ids for names or ids; None means the project's default group.

    Raises:
        UnknownReference: one is not there.
    """
    held = sorted(cell.index.project_groups.get(ctx.actor.project_id, ()))
    names: dict[str, str] = {}
    for group_id in held:
        names.setdefault(cell.state.security_groups[group_id].name, group_id)
        names[group_id] = group_id
    result: dict[str, None] = {}
    for name in ("default",) if wanted is None else wanted:
        if name not in names:
            raise UnknownReference(f"there is no security group {name!r}")
        result[names[name]] = None
    return tuple(result)


def group_created(cell: Cell, fact: s.SecurityGroupCreated, at: Micros) -> None:
    group = fact.group
    cell.state.security_groups[group.security_group_id] = group
    cell.index.project_groups.setdefault(group.project_id, set()).add(group.security_group_id)


def group_deleted(cell: Cell, fact: s.SecurityGroupDeleted, at: Micros) -> None:
    group = cell.state.security_groups.pop(fact.security_group_id)
    drop_member(cell.index.project_groups, group.project_id, group.security_group_id)
