"""Who may do what, and when tokens stop being good."""

import pytest

from engine.decider import authenticate
from schemas.compute import CreateFlavor
from schemas.errors import Unauthorized
from schemas.identity import (
    Bootstrap,
    CreateProject,
    CreateUser,
    DeleteProject,
    DeleteUser,
    GrantRole,
    RevokeRole,
    RevokeToken,
    UpdateProject,
    UpdateUser,
)
from schemas.network import CreateNetwork, CreatePort, CreateSubnet, DeletePort
from tests.engine.world import SECRET, SYSTEM, World


@pytest.fixture
def world() -> World:
    return World()


def test_bootstrap_happens_once(world):
    assert world.refused(SYSTEM, Bootstrap(admin_password=SECRET)).code == "Conflict"


def test_only_the_system_bootstraps(world):
    assert world.refused(world.admin, Bootstrap(admin_password=SECRET)).code == "Forbidden"


@pytest.mark.parametrize(
    "action",
    [
        CreateProject(name="p"),
        CreateUser(name="u"),
        CreateFlavor(name="f", vcpus=1, memory_mib=1),
        DeleteUser(user_id="u"),
        DeleteProject(project_id="p"),
    ],
)
def test_a_member_administers_nothing(world, action):
    assert world.refused(world.member("m"), action).code == "Forbidden"


def test_names_are_taken_once(world):
    world.ok(world.admin, CreateProject(name="p"))
    world.ok(world.admin, CreateUser(name="u", password=SECRET))

    assert world.refused(world.admin, CreateProject(name="p")).code == "Duplicate"
    assert world.refused(world.admin, CreateUser(name="u")).code == "Duplicate"


def test_roles_are_those_the_state_grants_not_those_claimed(world):
    member = world.member("m")
    claims = type(member)(
        kind="user",
        user_id=member.user_id,
        project_id=member.project_id,
        roles=("admin",),
        issued_at=member.issued_at,
    )

    assert authenticate(world.cell, claims) == {"member", "reader"}
    assert world.refused(claims, CreateProject(name="x")).code == "Forbidden"


@pytest.mark.parametrize("how", ["disable", "password", "delete", "revoke", "project"])
def test_a_token_ends(world, how):
    member = world.member("m")
    assert authenticate(world.cell, member)

    match how:
        case "disable":
            world.ok(world.admin, UpdateUser(user_id=member.user_id, enabled=False))
        case "password":
            world.ok(member, UpdateUser(user_id=member.user_id, password=SECRET))
        case "delete":
            world.ok(world.admin, DeleteUser(user_id=member.user_id))
        case "revoke":
            member = type(member)(
                kind="user",
                user_id=member.user_id,
                project_id=member.project_id,
                issued_at=member.issued_at,
                audit_id="a1",
            )
            world.ok(member, RevokeToken(audit_id="a1", expires_at=world.now + 10))
        case "project":
            world.ok(world.admin, UpdateProject(project_id=member.project_id, enabled=False))

    with pytest.raises(Unauthorized):
        authenticate(world.cell, member)


def test_a_user_changes_its_own_password_and_nothing_else(world):
    member = world.member("m")

    world.ok(member, UpdateUser(user_id=member.user_id, email="m@example.org"))

    assert world.refused(member, UpdateUser(user_id=member.user_id, name="x")).code == "Forbidden"
    other = UpdateUser(user_id=world.admin.user_id, password=SECRET)
    assert world.refused(world.member("n"), other).code == "NotFound"


def test_a_role_taken_away_is_gone_at_once(world):
    member = world.member("m")
    role = next(r.role_id for r in world.cell.state.roles.values() if r.name == "member")
    fields = {"user_id": member.user_id, "project_id": member.project_id, "role_id": role}

    world.ok(world.admin, RevokeRole(**fields))

    assert authenticate(world.cell, member) == frozenset()
    assert world.refused(world.admin, RevokeRole(**fields)).code == "NotFound"
    world.ok(world.admin, GrantRole(**fields))
    assert world.submit(world.admin, GrantRole(**fields)).facts == ()


def test_what_a_project_owned_stays_and_an_empty_one_leaves_nothing(world):
    """As in OpenStack: other services' things do not stand in the way of a project's end."""
    member = world.member("m")
    network = world.network(member)
    world.ok(world.admin, DeleteProject(project_id=member.project_id))
    assert world.cell.state.networks[network].project_id == member.project_id

    empty = world.ok(world.admin, CreateProject(name="empty"))["project_id"]
    groups = len(world.cell.state.security_groups)
    world.ok(world.admin, DeleteProject(project_id=empty))

    assert len(world.cell.state.security_groups) == groups - 1
    assert empty not in world.cell.state.projects


def test_a_port_keeps_its_security_group_when_its_project_goes(world):
    network = world.ok(world.admin, CreateNetwork(name="all", shared=True))["network_id"]
    world.ok(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/24"))
    other = world.member("other")
    port = world.ok(other, CreatePort(network_id=network))["port_id"]
    delete = DeleteProject(project_id=other.project_id)

    world.ok(world.admin, delete)

    (group,) = world.cell.state.ports[port].security_group_ids
    assert group in world.cell.state.security_groups
    world.ok(world.admin, DeletePort(port_id=port))
