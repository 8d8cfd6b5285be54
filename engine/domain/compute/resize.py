"""Resizing a server on its host: asked for, then kept or taken back by its owner.

Invariant: until that, host and quota hold the larger of both flavors (and the host both disks, if
the disk grows), so that either answer always has the room it needs.
"""

import msgspec

from engine.domain.compute.evolve import room_held
from engine.domain.compute.server import begun, host_of, server_operation, settled
from engine.domain.context import Context
from engine.domain.placement import disk_need_gib, lack_of_room
from engine.domain.state import Cell, Usage
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, UnknownReference

type Decision = tuple[list[Fact], dict[str, object]]


def resize_server(cell: Cell, ctx: Context, action: s.ResizeServer) -> Decision:
    """Give a server that runs or is off another flavor, if its host has the room."""
    server = settled(cell, ctx, action.server_id, "resize", "ACTIVE", "SHUTOFF")
    flavor = cell.state.flavors.get(action.flavor_id)
    if flavor is None or not (flavor.is_public or ctx.may("compute:flavors:read_private")):
        raise UnknownReference(f"there is no flavor {action.flavor_id}")
    if flavor.flavor_id == server.flavor.flavor_id:
        raise InvalidInput(f"the server has the flavor {flavor.name} already")
    old_disk, new_disk = _disks(cell, server, flavor)
    resize = s.Resize(
        old=server.flavor,
        new=flavor,
        old_disk_gib=old_disk,
        new_disk_gib=new_disk,
        boot=server.boot + 1,
    )
    _need_room(cell, server, resize)
    operation = server_operation(ctx, "resize", server, host_of(server))
    requested = s.ServerResizeRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        flavor=flavor,
        old_disk_gib=old_disk,
        new_disk_gib=new_disk,
        boot=resize.boot,
        disk_config=action.disk_config,
    )
    return begun(requested, operation)


def _disks(cell: Cell, server: s.Server, flavor: s.Flavor) -> tuple[int, int]:
    """Return the GiB of the root disk as it is and as it would be: never less.

    Raises:
        InvalidInput: the image asks for more, or the disk would shrink, which no guest survives.
    """
    image = cell.state.images.get(server.image_id or "")
    if image is not None and flavor.memory_mib < image.min_memory_mib:
        raise InvalidInput(
            f"the flavor has {flavor.memory_mib} MiB of memory, "
            f"the image needs {image.min_memory_mib}"
        )
    if image is None and not (server.flavor.disk_gib and flavor.disk_gib):
        raise InvalidInput(
            "a flavor without a disk size means the image's, and the server's image is gone"
        )
    size_bytes = 0 if image is None else image.virtual_size_bytes or 0
    if server.flavor.disk_gib and not flavor.disk_gib:
        raise InvalidInput("a server with a disk size cannot have a flavor without one")
    old = disk_need_gib(server.flavor.disk_gib, size_bytes)
    new = disk_need_gib(flavor.disk_gib, size_bytes)
    if new < old:
        raise InvalidInput(
            f"the flavor has {new} GiB of disk, the server has {old}, and disks do not shrink"
        )
    return old, new


def _need_room(cell: Cell, server: s.Server, resize: s.Resize) -> None:
    """Refuse what the server's host has no room for: servers do not move.

    Raises:
        Conflict: the text says what is lacking, and what can be done.
    """
    held = room_held(server)
    needed = room_held(msgspec.structs.replace(server, resize=resize))
    more = Usage(
        vcpus=needed.vcpus - held.vcpus,
        memory_mib=needed.memory_mib - held.memory_mib,
        disk_gib=needed.disk_gib - held.disk_gib,
    )
    lack = lack_of_room(cell, host_of(server), more)
    if lack is not None:
        raise Conflict(
            f"the server's host has no room for the flavor {resize.new.name}, and a server stays "
            f"on its host. {lack.host_id}: {lack.reason}. Choose a smaller flavor, or make another "
            "server of this one"
        )


def confirm_server_resize(cell: Cell, ctx: Context, action: s.ConfirmServerResize) -> Decision:
    """Keep the flavor a server was resized to."""
    server = settled(cell, ctx, action.server_id, "confirm the resize of", "VERIFY_RESIZE")
    confirmed = s.ServerResizeConfirmed(server_id=server.server_id, running=server.power_state == 1)
    return [confirmed], {"server_id": server.server_id}


def revert_server_resize(cell: Cell, ctx: Context, action: s.RevertServerResize) -> Decision:
    """Give a server back what it had before it was resized."""
    server = settled(cell, ctx, action.server_id, "revert the resize of", "VERIFY_RESIZE")
    operation = server_operation(ctx, "revert", server, host_of(server))
    requested = s.ServerResizeRevertRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        boot=server.boot + 1,
    )
    return begun(requested, operation)
