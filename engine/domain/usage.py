"""What each project holds, counted: for quotas, and for those who ask before they do.

Each fact says what it changes, as a function of the state before it; the fold adds that up, in the
index and in the read model alike. Invariant: what was added up is what counting everything anew
gives (``engine.domain.index``), so that a count cannot drift from what is there. Keypairs are
counted by user, all else by project. Sizes are as in a server's flavor.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from engine.domain.compute.evolve import disk_held
from engine.domain.state import Cell
from schemas import compute as c
from schemas import identity as d
from schemas import image as i
from schemas import network as n
from schemas.envelope import Fact

type Held = dict[str, int]
type Change = tuple[str, str, int]  # whose, of what, how much more

BY_USER = frozenset({"keypairs"})
COUNTED: tuple[str, ...] = (
    "servers",
    "vcpus",
    "memory_mib",
    "disk_gib",
    "networks",
    "subnets",
    "ports",
    "security_groups",
    "security_group_rules",
    "images",
    "image_bytes",
    "keypairs",
)


class Before(Protocol):
    """What is there before a fact: the state's tables, or whatever answers for them."""

    @property
    def servers(self) -> Mapping[str, c.Server]:
        """By id."""

    @property
    def images(self) -> Mapping[str, i.Image]:
        """By id."""

    @property
    def networks(self) -> Mapping[str, n.Network]:
        """By id."""

    @property
    def subnets(self) -> Mapping[str, n.Subnet]:
        """By id."""

    @property
    def ports(self) -> Mapping[str, n.Port]:
        """By id."""

    @property
    def security_groups(self) -> Mapping[str, n.SecurityGroup]:
        """By id."""

    @property
    def keypairs(self) -> Mapping[str, Mapping[str, c.Keypair]]:
        """By user and name."""


def project_usage(cell: Cell, project_id: str, user_id: str) -> Held:
    """Return how much of each thing a project holds, and of keypairs the user."""
    usage = cell.index.usage
    project, user = usage.get(project_id, {}), usage.get(user_id, {})
    return {name: (user if name in BY_USER else project).get(name, 0) for name in COUNTED}


def usage_after(cell: Cell, facts: Iterable[Fact], project_id: str, user_id: str) -> Held:
    """Return what a project would hold once these facts were written."""
    held = project_usage(cell, project_id, user_id)
    for fact in facts:
        for owner, name, change in changes(cell.state, fact):
            if owner == (user_id if name in BY_USER else project_id):
                held[name] += change
    return held


def changes(before: Before, fact: Struct) -> Sequence[Change]:
    """Return what a fact changes."""
    found = CHANGES.get(type(fact))
    return () if found is None else found(before, fact)


def count(usage: dict[str, Held], due: Iterable[Change]) -> None:
    """Add up, in place; nothing that is zero is kept."""
    for owner, name, change in due:
        held = usage.setdefault(owner, {})
        left = held.get(name, 0) + change
        assert left >= 0, f"{owner} would hold {left} {name}"
        if left:
            held[name] = left
            continue
        held.pop(name, None)
        if not held:
            del usage[owner]


def _server(server: c.Server, sign: int) -> Sequence[Change]:
    project_id, flavor = server.project_id, server.flavor
    return (
        (project_id, "servers", sign),
        (project_id, "vcpus", sign * flavor.vcpus),
        (project_id, "memory_mib", sign * flavor.memory_mib),
        (project_id, "disk_gib", sign * disk_held(server)),
    )


def _server_created(_before: Before, fact: c.ServerCreated) -> Sequence[Change]:
    return _server(fact.server, 1)


def _server_deleted(before: Before, fact: c.ServerDeleted) -> Sequence[Change]:
    return _server(before.servers[fact.server_id], -1)


def _keypair_created(_before: Before, fact: c.KeypairCreated) -> Sequence[Change]:
    return ((fact.keypair.user_id, "keypairs", 1),)


def _keypair_deleted(_before: Before, fact: c.KeypairDeleted) -> Sequence[Change]:
    return ((fact.user_id, "keypairs", -1),)


def _user_deleted(before: Before, fact: d.UserDeleted) -> Sequence[Change]:
    return ((fact.user_id, "keypairs", -len(before.keypairs.get(fact.user_id, ()))),)


def _image(image: i.Image, sign: int) -> Sequence[Change]:
    return (
        (image.project_id, "images", sign),
        (image.project_id, "image_bytes", sign * (image.size_bytes or 0)),
    )


def _image_created(_before: Before, fact: i.ImageCreated) -> Sequence[Change]:
    return _image(fact.image, 1)


def _image_updated(before: Before, fact: i.ImageUpdated) -> Sequence[Change]:
    old, new = before.images[fact.image.image_id], fact.image
    if (old.project_id, old.size_bytes) == (new.project_id, new.size_bytes):
        return ()
    return (*_image(old, -1), *_image(new, 1))


def _image_uploaded(before: Before, fact: i.ImageUploaded) -> Sequence[Change]:
    old = before.images[fact.image_id]
    return ((old.project_id, "image_bytes", fact.size_bytes - (old.size_bytes or 0)),)


def _image_rejected(before: Before, fact: i.ImageRejected) -> Sequence[Change]:
    old = before.images[fact.image_id]
    return ((old.project_id, "image_bytes", -(old.size_bytes or 0)),)


def _image_deleted(before: Before, fact: i.ImageDeleted) -> Sequence[Change]:
    return _image(before.images[fact.image_id], -1)


def _network_created(_before: Before, fact: n.NetworkCreated) -> Sequence[Change]:
    return ((fact.network.project_id, "networks", 1),)


def _network_deleted(before: Before, fact: n.NetworkDeleted) -> Sequence[Change]:
    return ((before.networks[fact.network_id].project_id, "networks", -1),)


def _subnet_created(_before: Before, fact: n.SubnetCreated) -> Sequence[Change]:
    return ((fact.subnet.project_id, "subnets", 1),)


def _subnet_deleted(before: Before, fact: n.SubnetDeleted) -> Sequence[Change]:
    return ((before.subnets[fact.subnet_id].project_id, "subnets", -1),)


def _port_created(_before: Before, fact: n.PortCreated) -> Sequence[Change]:
    return ((fact.port.project_id, "ports", 1),)


def _port_deleted(before: Before, fact: n.PortDeleted) -> Sequence[Change]:
    return ((before.ports[fact.port_id].project_id, "ports", -1),)


def _group(group: n.SecurityGroup, sign: int) -> Sequence[Change]:
    return (
        (group.project_id, "security_groups", sign),
        (group.project_id, "security_group_rules", sign * len(group.rules)),
    )


def _group_created(_before: Before, fact: n.SecurityGroupCreated) -> Sequence[Change]:
    return _group(fact.group, 1)


def _group_deleted(before: Before, fact: n.SecurityGroupDeleted) -> Sequence[Change]:
    return _group(before.security_groups[fact.security_group_id], -1)


# Facts that are not here change nothing that is counted.
CHANGES: dict[type, Callable[[Before, Any], Sequence[Change]]] = {
    c.ServerCreated: _server_created,
    c.ServerDeleted: _server_deleted,
    c.KeypairCreated: _keypair_created,
    c.KeypairDeleted: _keypair_deleted,
    d.UserDeleted: _user_deleted,
    i.ImageCreated: _image_created,
    i.ImageUpdated: _image_updated,
    i.ImageUploaded: _image_uploaded,
    i.ImageRejected: _image_rejected,
    i.ImageDeleted: _image_deleted,
    n.NetworkCreated: _network_created,
    n.NetworkDeleted: _network_deleted,
    n.SubnetCreated: _subnet_created,
    n.SubnetDeleted: _subnet_deleted,
    n.PortCreated: _port_created,
    n.PortDeleted: _port_deleted,
    n.SecurityGroupCreated: _group_created,
    n.SecurityGroupDeleted: _group_deleted,
}
