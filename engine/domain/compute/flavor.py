"""Flavors: the sizes that servers may have."""

from engine.domain.compute.naming import printable_name
from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import Duplicate, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def create_flavor(cell: Cell, ctx: Context, action: s.CreateFlavor) -> Decision:
    """Make a flavor."""
    flavor_id = action.flavor_id or ctx.new_id()
    name = printable_name(action.name, "flavor")
    for other in cell.state.flavors.values():
        if other.flavor_id == flavor_id:
            raise Duplicate(f"a flavor with the id {flavor_id} exists")
        if other.name == name:
            raise Duplicate(f"a flavor named {name!r} exists")
    flavor = s.Flavor(
        flavor_id=flavor_id,
        name=name,
        vcpus=action.vcpus,
        memory_mib=action.memory_mib,
        disk_gib=action.disk_gib,
        is_public=action.is_public,
        description=action.description,
    )
    return [s.FlavorCreated(flavor=flavor)], {"flavor_id": flavor_id}


def delete_flavor(cell: Cell, ctx: Context, action: s.DeleteFlavor) -> Decision:
    """Remove a flavor."""
    if action.flavor_id not in cell.state.flavors:
        raise NotFound(f"there is no flavor {action.flavor_id}")
    return [s.FlavorDeleted(flavor_id=action.flavor_id)], {}


def flavor_created(cell: Cell, fact: s.FlavorCreated, at: Micros) -> None:
    cell.state.flavors[fact.flavor.flavor_id] = fact.flavor


def flavor_deleted(cell: Cell, fact: s.FlavorDeleted, at: Micros) -> None:
    del cell.state.flavors[fact.flavor_id]
