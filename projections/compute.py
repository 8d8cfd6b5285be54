"""Read models of compute: flavors, keypairs, servers.

A server is folded by the decider's own function, so that what a person reads is what the decider
knows; its addresses lie with it, kept up by ``network``. A deleted server keeps its row, with
``deleted`` set and ``vm_state`` "deleted".
"""

import msgspec

from engine.domain.compute import evolve_server
from projections.answers import Address, ServerView
from projections.identity import KEYPAIRS
from projections.store import Table, Writer
from schemas import compute as s
from schemas.units import Micros, Ordinal

NAME = "compute"
VERSION = 1
DELETED = "deleted"

FLAVORS = Table(
    "flavors",
    s.Flavor,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, is_public INTEGER NOT NULL, "
    "vcpus INTEGER NOT NULL, memory_mib INTEGER NOT NULL, disk_gib INTEGER NOT NULL",
    values=lambda f: (f.flavor_id, f.name, f.is_public, f.vcpus, f.memory_mib, f.disk_gib),
)


def _columns(server: s.Server) -> tuple[object, ...]:
    return (
        server.server_id,
        server.project_id,
        server.user_id,
        server.name,
        server.status,
        server.host_id,
        server.image_id,
        server.flavor.flavor_id,
        server.key_name,
        server.flavor.vcpus,
        server.flavor.memory_mib,
        server.created_at,
        server.updated_at,
        server.vm_state == DELETED,
    )


SERVERS = Table(
    "servers",
    ServerView,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, user_id TEXT NOT NULL, "
    "name TEXT NOT NULL, status TEXT NOT NULL, host_id TEXT, image_id TEXT, "
    "flavor_id TEXT NOT NULL, key_name TEXT, vcpus INTEGER NOT NULL, "
    "memory_mib INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, "
    "deleted INTEGER NOT NULL",
    values=lambda view: _columns(view.server),
    indexes=(
        "(project_id, deleted, created_at, id)",
        "(created_at, id) WHERE deleted = 0",
        "(image_id) WHERE image_id IS NOT NULL",
        "(host_id) WHERE host_id IS NOT NULL",
        "(key_name) WHERE key_name IS NOT NULL",
    ),
)

STATEMENTS = (*FLAVORS.create, *SERVERS.create)


def _flavor_created(writer: Writer, fact: s.FlavorCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(FLAVORS, fact.flavor, ordinal)


def _flavor_deleted(writer: Writer, fact: s.FlavorDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(FLAVORS, fact.flavor_id)


def _keypair_created(writer: Writer, fact: s.KeypairCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(KEYPAIRS, fact.keypair, ordinal)


def _keypair_deleted(
    writer: Writer, fact: s.KeypairDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(KEYPAIRS, (fact.user_id, fact.name))


def _server_created(writer: Writer, fact: s.ServerCreated, ordinal: Ordinal, at: Micros) -> None:
    server = evolve_server(None, fact, at)
    assert server is not None, "a created server is there"
    writer.put(SERVERS, ServerView(ordinal=ordinal, server=server), ordinal)


type ServerFact = (
    s.ServerPlaced
    | s.ServerBuildStarted
    | s.ServerRenamed
    | s.ServerStartRequested
    | s.ServerStarted
    | s.ServerStopRequested
    | s.ServerStopped
    | s.ServerRebootRequested
    | s.ServerRebooted
    | s.ServerResizeRequested
    | s.ServerResized
    | s.ServerResizeConfirmed
    | s.ServerResizeRevertRequested
    | s.ServerResizeReverted
    | s.ServerTaskFailed
    | s.ServerFailed
    | s.ServerDeleteRequested
)


def _server_changed(writer: Writer, fact: ServerFact, ordinal: Ordinal, at: Micros) -> None:
    old = writer.need(SERVERS, fact.server_id)
    new = evolve_server(old.server, fact, at)
    assert new is not None, f"{fact.server_id} is gone without having been deleted"
    _save(writer, new, old.addresses, ordinal)


def _server_deleted(writer: Writer, fact: s.ServerDeleted, ordinal: Ordinal, at: Micros) -> None:
    old = writer.need(SERVERS, fact.server_id)
    gone = msgspec.structs.replace(
        old.server,
        vm_state=DELETED,
        task_state=None,
        power_state=0,
        operation_id=None,
        updated_at=at,
        terminated_at=fact.observed_at,
    )
    _save(writer, gone, old.addresses, ordinal)


def _save(
    writer: Writer, server: s.Server, addresses: tuple[Address, ...], ordinal: Ordinal
) -> None:
    view = ServerView(ordinal=ordinal, server=server, addresses=addresses)
    writer.put(SERVERS, view, ordinal)


def save_addresses(
    writer: Writer, server_id: str, port_id: str, addresses: tuple[Address, ...], ordinal: Ordinal
) -> None:
    """Store which addresses a server has by one of its ports; none if it is unplugged."""
    view = writer.find(SERVERS, server_id)
    if view is None:
        return
    others = tuple(address for address in view.addresses if address.port_id != port_id)
    if addresses == tuple(address for address in view.addresses if address.port_id == port_id):
        return
    places = {port: place for place, port in enumerate(view.server.port_ids)}
    ordered = sorted((*others, *addresses), key=lambda a: places.get(a.port_id, len(places)))
    _save(writer, view.server, tuple(ordered), ordinal)


APPLY = {
    s.FlavorCreated: _flavor_created,
    s.FlavorDeleted: _flavor_deleted,
    s.KeypairCreated: _keypair_created,
    s.KeypairDeleted: _keypair_deleted,
    s.ServerCreated: _server_created,
    s.ServerPlaced: _server_changed,
    s.ServerBuildStarted: _server_changed,
    s.ServerRenamed: _server_changed,
    s.ServerStartRequested: _server_changed,
    s.ServerStarted: _server_changed,
    s.ServerStopRequested: _server_changed,
    s.ServerStopped: _server_changed,
    s.ServerRebootRequested: _server_changed,
    s.ServerRebooted: _server_changed,
    s.ServerResizeRequested: _server_changed,
    s.ServerResized: _server_changed,
    s.ServerResizeConfirmed: _server_changed,
    s.ServerResizeRevertRequested: _server_changed,
    s.ServerResizeReverted: _server_changed,
    s.ServerTaskFailed: _server_changed,
    s.ServerFailed: _server_changed,
    s.ServerDeleteRequested: _server_changed,
    s.ServerDeleted: _server_deleted,
}
