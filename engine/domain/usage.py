"""What each project and user holds, counted: for quotas, and for those who ask before they do.

What is a project's is added up: each fact says what it changes, as a function of the state before
it, in the index and in the read model alike. What is a user's goes with the user, or a project, by
no fact of its own, and so is counted where it lies. Invariant: what was added up is what counting
everything anew gives (``engine.domain.index``), so that no count drifts from what is there. Sizes
are as in a server's flavor, or as in the larger of two while it is being resized.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from engine.domain.compute.evolve import evolve_server
from engine.domain.compute.evolve import held as held_of_server
from engine.domain.state import Cell
from schemas import compute as c
from schemas import identity as d
from schemas import image as i
from schemas import network as n
from schemas.envelope import Fact

type Held = dict[str, int]
type Change = tuple[str, str, int]  # whose, of what, how much more


def _trusts(cell: Cell, user_id: str) -> int:
    """Count those that the user has made, not those made for it: others could fill its quota."""
    made = cell.index.user_trusts.get(user_id, ())
    return sum(cell.state.trusts[trust].trustor_user_id == user_id for trust in made)


BY_USER: dict[str, Callable[[Cell, str], int]] = {
    "keypairs": lambda cell, user: len(cell.state.keypairs.get(user, ())),
    "application_credentials": lambda cell, user: len(
        cell.index.user_application_credentials.get(user, ())
    ),
    "access_rules": lambda cell, user: len(cell.state.access_rules.get(user, ())),
    "credentials": lambda cell, user: len(cell.index.user_credentials.get(user, ())),
    "trusts": _trusts,
}
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
    *BY_USER,
)


class Lookup[T](Protocol):
    """Things of one kind, found by id."""

    def __getitem__(self, key: str, /) -> T:
        """Return the one of that id, which is there."""


class Before(Protocol):
    """What is there before a fact: the state's tables, or whatever answers for them."""

    @property
    def servers(self) -> Lookup[c.Server]:
        """By id."""

    @property
    def images(self) -> Lookup[i.Image]:
        """By id."""

    @property
    def networks(self) -> Lookup[n.Network]:
        """By id."""

    @property
    def subnets(self) -> Lookup[n.Subnet]:
        """By id."""

    @property
    def ports(self) -> Lookup[n.Port]:
        """By id."""

    @property
    def security_groups(self) -> Lookup[n.SecurityGroup]:
        """By id."""


def held_by(cell: Cell, owner: str, name: str) -> int:
    """Return how much of one thing a project holds, or a user if it is counted by user."""
    if name in BY_USER:
        return BY_USER[name](cell, owner)
    return cell.index.usage.get(owner, {}).get(name, 0)


def project_usage(cell: Cell, project_id: str, user_id: str) -> Held:
    """Return how much of each thing a project holds, or the user if it is counted by user."""
    return {
        name: held_by(cell, user_id if name in BY_USER else project_id, name) for name in COUNTED
    }


def usage_after(cell: Cell, facts: Iterable[Fact], project_id: str, user_id: str) -> Held:
    """Return what a project would hold once these facts were written."""
    held = project_usage(cell, project_id, user_id)
    for fact in facts:
        for owner, name, change in changes(cell, fact):
            if owner == (user_id if name in BY_USER else project_id):
                held[name] += change
    return held


def changes(cell: Cell, fact: Struct) -> Sequence[Change]:
    """Return what a fact changes of all that is counted."""
    kind = type(fact)
    if kind in CHANGES:
        return CHANGES[kind](cell.state, fact)
    return OF_USERS[kind](cell, fact) if kind in OF_USERS else ()


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
    project_id, held = server.project_id, held_of_server(server)
    return (
        (project_id, "servers", sign),
        (project_id, "vcpus", sign * held.vcpus),
        (project_id, "memory_mib", sign * held.memory_mib),
        (project_id, "disk_gib", sign * held.disk_gib),
    )


def _server_created(_before: Before, fact: c.ServerCreated) -> Sequence[Change]:
    return _server(fact.server, 1)


def _server_deleted(before: Before, fact: c.ServerDeleted) -> Sequence[Change]:
    return _server(before.servers[fact.server_id], -1)


type Resizing = (
    c.ServerResizeRequested | c.ServerResizeConfirmed | c.ServerResizeReverted | c.ServerTaskFailed
)


def _server_resized(before: Before, fact: Resizing) -> Sequence[Change]:
    server = before.servers[fact.server_id]
    after = evolve_server(server, fact, server.updated_at)
    assert after is not None, "a server that is resized is there"
    old, new = held_of_server(server), held_of_server(after)
    return (
        (server.project_id, "vcpus", new.vcpus - old.vcpus),
        (server.project_id, "memory_mib", new.memory_mib - old.memory_mib),
        (server.project_id, "disk_gib", new.disk_gib - old.disk_gib),
    )


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


# What is a project's. Facts that are not here change nothing of it.
CHANGES: dict[type, Callable[[Before, Any], Sequence[Change]]] = {
    c.ServerCreated: _server_created,
    c.ServerResizeRequested: _server_resized,
    c.ServerResizeConfirmed: _server_resized,
    c.ServerResizeReverted: _server_resized,
    c.ServerTaskFailed: _server_resized,
    c.ServerDeleted: _server_deleted,
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


def _keypair_created(_cell: Cell, fact: c.KeypairCreated) -> Sequence[Change]:
    return ((fact.keypair.user_id, "keypairs", 1),)


def _keypair_deleted(_cell: Cell, fact: c.KeypairDeleted) -> Sequence[Change]:
    return ((fact.user_id, "keypairs", -1),)


def _application_credential_created(
    _cell: Cell, fact: d.ApplicationCredentialCreated
) -> Sequence[Change]:
    return ((fact.application_credential.user_id, "application_credentials", 1),)


def _application_credential_deleted(
    cell: Cell, fact: d.ApplicationCredentialDeleted
) -> Sequence[Change]:
    gone = cell.state.application_credentials[fact.application_credential_id]
    return ((gone.user_id, "application_credentials", -1),)


def _access_rule_created(_cell: Cell, fact: d.AccessRuleCreated) -> Sequence[Change]:
    return ((fact.user_id, "access_rules", 1),)


def _access_rule_deleted(_cell: Cell, fact: d.AccessRuleDeleted) -> Sequence[Change]:
    return ((fact.user_id, "access_rules", -1),)


def _credential_created(_cell: Cell, fact: d.CredentialCreated) -> Sequence[Change]:
    return ((fact.credential.user_id, "credentials", 1),)


def _credential_deleted(cell: Cell, fact: d.CredentialDeleted) -> Sequence[Change]:
    return ((cell.state.credentials[fact.credential_id].user_id, "credentials", -1),)


def _trust_created(_cell: Cell, fact: d.TrustCreated) -> Sequence[Change]:
    return ((fact.trust.trustor_user_id, "trusts", 1),)


def _trust_deleted(cell: Cell, fact: d.TrustDeleted) -> Sequence[Change]:
    return _trusts_gone(cell, (fact.trust_id,))


def _user_deleted(cell: Cell, fact: d.UserDeleted) -> Sequence[Change]:
    user_id = fact.user_id
    gone = [
        (user_id, name, -held)
        for name, counted in BY_USER.items()
        if (held := counted(cell, user_id))
    ]
    others = _trusts_gone(cell, cell.index.user_trusts.get(user_id, ()))
    return (*gone, *(change for change in others if change[0] != user_id))


def _project_deleted(cell: Cell, fact: d.ProjectDeleted) -> Sequence[Change]:
    state, index, project_id = cell.state, cell.index, fact.project_id
    applications = index.project_application_credentials.get(project_id, ())
    credentials = index.project_credentials.get(project_id, ())
    return (
        *(
            (state.application_credentials[ident].user_id, "application_credentials", -1)
            for ident in applications
        ),
        *((state.credentials[ident].user_id, "credentials", -1) for ident in credentials),
        *_trusts_gone(cell, index.project_trusts.get(project_id, ())),
    )


def _trusts_gone(cell: Cell, trust_ids: Iterable[str]) -> Sequence[Change]:
    """Return what goes with trusts: also those that were handed on from them."""
    gone: set[str] = set()
    left = list(trust_ids)
    while left:
        ident = left.pop()
        if ident not in gone:
            gone.add(ident)
            left += cell.index.redelegated_trusts.get(ident, ())
    return [(cell.state.trusts[ident].trustor_user_id, "trusts", -1) for ident in gone]


# What is users'. It is not added up: these facts tell what would be, before they are folded.
OF_USERS: dict[type, Callable[[Cell, Any], Sequence[Change]]] = {
    c.KeypairCreated: _keypair_created,
    c.KeypairDeleted: _keypair_deleted,
    d.ApplicationCredentialCreated: _application_credential_created,
    d.ApplicationCredentialDeleted: _application_credential_deleted,
    d.AccessRuleCreated: _access_rule_created,
    d.AccessRuleDeleted: _access_rule_deleted,
    d.CredentialCreated: _credential_created,
    d.CredentialDeleted: _credential_deleted,
    d.TrustCreated: _trust_created,
    d.TrustDeleted: _trust_deleted,
    d.UserDeleted: _user_deleted,
    d.ProjectDeleted: _project_deleted,
}
assert not OF_USERS.keys() & CHANGES.keys(), "a fact is about a project's things or users'"
