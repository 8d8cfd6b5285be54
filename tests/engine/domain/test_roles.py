"""Who has which role where: groups, inheritance, implication, and what stands for a user."""

import pytest
from msgspec.structs import replace

from engine.decider import authenticate
from engine.domain.state import Cell
from schemas.compute import CreateKeypair
from schemas.envelope import Actor
from schemas.errors import Unauthorized
from schemas.identity import (
    AddGroupMember,
    CreateApplicationCredential,
    CreateCredential,
    CreateDomain,
    CreateGroup,
    CreateProject,
    CreateRole,
    CreateTrust,
    CreateUser,
    DeleteApplicationCredential,
    DeleteDomain,
    DeleteGroup,
    DeleteProject,
    DeleteRole,
    DeleteTrust,
    DeleteUser,
    EndRoleImplication,
    GrantRole,
    ImplyRole,
    RemoveGroupMember,
    RevokeRole,
    UpdateDomain,
    UpdateProject,
    UpdateUser,
    UseTrust,
)
from tests.engine.world import SECRET, World


@pytest.fixture
def world() -> World:
    return World()


class Acme:
    """A domain with a project in a project, a user in a group, and its manager."""

    def __init__(self, world: World, name: str = "acme") -> None:
        self.world, admin = world, world.admin
        self.domain = world.ok(admin, CreateDomain(name=name))["domain_id"]
        in_domain = {"domain_id": self.domain}
        self.top = world.ok(admin, CreateProject(name="top", **in_domain))["project_id"]
        below = CreateProject(name="below", parent_id=self.top, **in_domain)
        self.below = world.ok(admin, below)["project_id"]
        self.ann = self.user("ann")
        self.group = world.ok(admin, CreateGroup(name="crew", **in_domain))["group_id"]
        world.ok(admin, AddGroupMember(group_id=self.group, user_id=self.ann))
        boss = self.user("boss")
        self.give("manager", user_id=boss, domain_id=self.domain)
        self.manager = Actor(kind="user", user_id=boss, domain_id=self.domain, issued_at=world.now)

    def user(self, name: str) -> str:
        made = CreateUser(name=name, domain_id=self.domain, password=SECRET)
        return self.world.ok(self.world.admin, made)["user_id"]

    def role(self, name: str, domain_id: str = "") -> str:
        return self.world.cell.index.role_names[domain_id, name]

    def give(self, role: str, **where: object) -> None:
        self.world.ok(self.world.admin, GrantRole(role_id=self.role(role), **where))

    def on(self, target: str, user: str | None = None) -> frozenset[str]:
        return held(self.world.cell, user or self.ann, target)


def held(cell: Cell, user_id: str, target: str) -> frozenset[str]:
    where = "domain_id" if target in cell.state.domains else "project_id"
    actor = Actor(kind="user", user_id=user_id, issued_at=2**52, **{where: target})
    if target == "system":
        actor = Actor(kind="user", user_id=user_id, issued_at=2**52, system=True)
    return authenticate(cell, actor)


MEMBER = frozenset({"member", "reader"})


def test_built_in_roles_imply_each_other(world):
    assert held(world.cell, world.admin.user_id, world.admin.project_id) == {
        "admin", "manager", "member", "reader"
    }  # fmt: skip
    assert held(world.cell, world.admin.user_id, "system") >= {"admin"}


@pytest.mark.parametrize(
    ("where", "top", "below", "domain"),
    [
        ({"project_id": "top"}, MEMBER, frozenset(), frozenset()),
        ({"project_id": "top", "inherited": True}, frozenset(), MEMBER, frozenset()),
        ({"domain_id": "domain"}, frozenset(), frozenset(), MEMBER),
        ({"domain_id": "domain", "inherited": True}, MEMBER, MEMBER, frozenset()),
    ],
)
@pytest.mark.parametrize("holder", ["ann", "group"])
def test_where_a_role_counts(world, holder, where, top, below, domain):
    acme = Acme(world)
    target = {k: getattr(acme, v) if isinstance(v, str) else v for k, v in where.items()}
    kind = "user_id" if holder == "ann" else "group_id"

    acme.give("member", **{kind: getattr(acme, holder)}, **target)

    assert (acme.on(acme.top), acme.on(acme.below), acme.on(acme.domain)) == (top, below, domain)


def test_a_role_in_the_system_counts_nowhere_else(world):
    acme = Acme(world)

    acme.give("reader", user_id=acme.ann, system=True)

    assert acme.on("system") == {"reader"}
    assert acme.on(acme.top) == acme.on(acme.domain) == frozenset()


def test_leaving_a_group_takes_its_roles_at_once(world):
    acme = Acme(world)
    acme.give("member", group_id=acme.group, project_id=acme.top)
    assert acme.on(acme.top) == MEMBER

    world.ok(world.admin, RemoveGroupMember(group_id=acme.group, user_id=acme.ann))

    assert acme.on(acme.top) == frozenset()


def test_a_domains_own_role_counts_by_what_it_implies_only(world):
    acme = Acme(world)
    made = CreateRole(name="admin", domain_id=acme.domain)
    own = world.ok(world.admin, made)["role_id"]
    world.ok(world.admin, GrantRole(role_id=own, user_id=acme.ann, project_id=acme.top))
    assert acme.on(acme.top) == frozenset()

    world.ok(world.admin, ImplyRole(prior_role_id=own, implied_role_id=acme.role("member")))

    assert acme.on(acme.top) == MEMBER
    elsewhere = GrantRole(role_id=own, user_id=acme.ann, project_id=world.admin.project_id)
    assert world.refused(world.admin, elsewhere).code == "Forbidden"


def test_no_role_comes_to_imply_itself_or_admin(world):
    acme = Acme(world)
    one = world.ok(world.admin, CreateRole(name="one"))["role_id"]
    two = world.ok(world.admin, CreateRole(name="two"))["role_id"]
    world.ok(world.admin, ImplyRole(prior_role_id=one, implied_role_id=two))
    world.ok(world.admin, ImplyRole(prior_role_id=acme.role("reader"), implied_role_id=one))

    for prior, implied in ((two, one), (one, one), (two, acme.role("member"))):
        circle = ImplyRole(prior_role_id=prior, implied_role_id=implied)
        assert world.refused(world.admin, circle).code == "InvalidInput"
    up = ImplyRole(prior_role_id=two, implied_role_id=acme.role("admin"))
    assert world.refused(world.admin, up).code == "Forbidden"
    fixed = EndRoleImplication(
        prior_role_id=acme.role("admin"), implied_role_id=acme.role("member")
    )
    assert world.refused(world.admin, fixed).code == "Forbidden"


def test_a_deleted_role_is_nobodys(world):
    acme = Acme(world)
    extra = world.ok(world.admin, CreateRole(name="extra"))["role_id"]
    world.ok(world.admin, GrantRole(role_id=extra, user_id=acme.ann, project_id=acme.top))
    world.ok(world.admin, ImplyRole(prior_role_id=extra, implied_role_id=acme.role("reader")))

    world.ok(world.admin, DeleteRole(role_id=extra))

    assert acme.on(acme.top) == frozenset()
    assert world.cell.state.implied_roles == {}
    assert world.refused(world.admin, DeleteRole(role_id=acme.role("reader"))).code == "Forbidden"


@pytest.mark.parametrize("how", ["user", "project", "domain", "group"])
def test_what_goes_takes_its_roles_along(world, how):
    acme = Acme(world)
    before = len(world.cell.state.grants)
    for where in ({"user_id": acme.ann}, {"group_id": acme.group}):
        acme.give("member", project_id=acme.below, **where)
        acme.give("member", project_id=acme.below, inherited=True, **where)

    match how:
        case "user":
            world.ok(world.admin, DeleteUser(user_id=acme.ann))
            world.ok(world.admin, DeleteGroup(group_id=acme.group))
        case "group":
            world.ok(world.admin, DeleteGroup(group_id=acme.group))
            world.ok(world.admin, DeleteUser(user_id=acme.ann))
        case "project":
            world.ok(world.admin, DeleteProject(project_id=acme.below))
        case "domain":
            world.ok(world.admin, UpdateDomain(domain_id=acme.domain, enabled=False))
            world.ok(world.admin, DeleteDomain(domain_id=acme.domain))
            before -= 1  # its manager's

    assert len(world.cell.state.grants) == before
    assert world.cell.state.inherited_grants == {}
    assert acme.below not in world.cell.index.target_holders


def test_a_disabled_domain_lets_nobody_in(world):
    acme = Acme(world)
    acme.give("member", user_id=acme.ann, project_id=acme.top)
    stranger = world.member("stranger")
    acme.give("member", user_id=stranger.user_id, project_id=acme.top)

    world.ok(world.admin, UpdateDomain(domain_id=acme.domain, enabled=False))

    for user in (acme.ann, stranger.user_id):
        with pytest.raises(Unauthorized):
            acme.on(acme.top, user)
    assert world.refused(world.admin, UpdateDomain(domain_id="default", enabled=False))


# Who rules a domain


def test_a_manager_rules_its_domain(world):
    acme = Acme(world)
    boss, ok = acme.manager, world.ok
    project = ok(boss, CreateProject(name="new", domain_id=acme.domain))["project_id"]
    user = ok(boss, CreateUser(name="new", domain_id=acme.domain))["user_id"]
    group = ok(boss, CreateGroup(name="new", domain_id=acme.domain))["group_id"]
    ok(boss, AddGroupMember(group_id=group, user_id=user))
    ok(boss, UpdateUser(user_id=user, password=SECRET, description="x" * 300))
    ok(boss, UpdateProject(project_id=project, tags=("a", "a")))
    grant = {"role_id": acme.role("manager"), "group_id": group, "project_id": project}
    ok(boss, GrantRole(**grant))
    ok(boss, RevokeRole(**grant))
    ok(boss, DeleteGroup(group_id=group))
    ok(boss, DeleteUser(user_id=user))
    ok(boss, DeleteProject(project_id=project))


def test_a_manager_does_not_see_beyond_its_domain(world):
    acme, other = Acme(world), Acme(world, "other")
    boss, member = acme.manager, acme.role("member")
    beyond = [
        (CreateProject(name="x", domain_id=other.domain), "UnknownReference"),
        (CreateProject(name="x", domain_id=acme.domain, parent_id=other.top), "UnknownReference"),
        (CreateUser(name="x", domain_id="default"), "UnknownReference"),
        (UpdateUser(user_id=other.ann, password=SECRET), "NotFound"),
        (UpdateProject(project_id=other.top, name="x"), "NotFound"),
        (DeleteGroup(group_id=other.group), "NotFound"),
        (AddGroupMember(group_id=acme.group, user_id=other.ann), "NotFound"),
        (GrantRole(role_id=member, user_id=other.ann, project_id=acme.top), "NotFound"),
        (GrantRole(role_id=member, user_id=acme.ann, project_id=other.top), "NotFound"),
        (GrantRole(role_id=member, user_id=acme.ann, domain_id=other.domain), "NotFound"),
        (GrantRole(role_id=member, user_id=acme.ann, system=True), "Forbidden"),
        (CreateDomain(name="x"), "Forbidden"),
        (CreateRole(name="x"), "Forbidden"),
    ]

    for action, code in beyond:
        assert world.refused(boss, action).code == code, action


def test_a_manager_makes_nobody_who_rules_the_cloud(world):
    acme = Acme(world)
    boss = acme.manager
    acme.give("admin", group_id=acme.group, project_id=acme.top)

    for role in ("admin", "service"):
        grant = GrantRole(role_id=acme.role(role), user_id=acme.ann, project_id=acme.top)
        assert world.refused(boss, grant).code == "Forbidden"
    # Ann rules the cloud by her group: neither her password nor the group is the manager's.
    assert world.refused(boss, UpdateUser(user_id=acme.ann, password=SECRET)).code == "Forbidden"
    assert world.refused(boss, DeleteUser(user_id=acme.ann)).code == "Forbidden"
    friend = acme.user("friend")
    join = AddGroupMember(group_id=acme.group, user_id=friend)
    assert world.refused(boss, join).code == "Forbidden"


@pytest.mark.parametrize(("role", "system"), [("reader", True), ("service", False)])
def test_a_manager_makes_nobody_who_sees_the_whole_cloud(world, role, system):
    acme = Acme(world)
    friend, boss = acme.user("friend"), acme.manager
    where = {"system": True} if system else {"project_id": acme.top}
    join = AddGroupMember(group_id=acme.group, user_id=friend)
    password = UpdateUser(user_id=acme.ann, password=SECRET)
    world.ok(boss, password)

    acme.give(role, group_id=acme.group, **where)

    # Whoever joins the group, or signs in as Ann, has what the manager could not give.
    grant = GrantRole(role_id=acme.role(role), user_id=friend, **where)
    for action in (grant, join, password, DeleteUser(user_id=acme.ann)):
        assert world.refused(boss, action).code == "Forbidden", action
    world.ok(world.admin, join)


# What stands for a user


def application_credential(world: World, actor: Actor, **fields: object) -> Actor:
    made = CreateApplicationCredential(name=world.new_id(), secret=SECRET, **fields)
    ident = world.ok(actor, made)["application_credential_id"]
    return replace(actor, application_credential_id=ident)


def test_an_application_credential_has_what_it_was_given_and_its_user_still_has(world):
    member = world.member("m")
    reader = world.cell.index.role_names["", "reader"]
    all_of_it = application_credential(world, member)
    some = application_credential(world, member, role_ids=(reader,))
    assert authenticate(world.cell, all_of_it) == MEMBER
    assert authenticate(world.cell, some) == {"reader"}

    admin = world.cell.index.role_names["", "admin"]
    more = CreateApplicationCredential(name="more", secret=SECRET, role_ids=(admin,))
    assert world.refused(member, more).code == "InvalidInput"
    role = world.cell.index.role_names["", "member"]
    taken = RevokeRole(role_id=role, user_id=member.user_id, project_id=member.project_id)
    world.ok(world.admin, taken)

    assert authenticate(world.cell, all_of_it) == frozenset()


def test_a_restricted_application_credential_makes_no_more_of_them(world):
    member = world.member("m")
    restricted = application_credential(world, member)
    unrestricted = application_credential(world, member, unrestricted=True)
    wishes = [
        CreateApplicationCredential(name="x", secret=SECRET),
        CreateCredential(user_id=member.user_id, kind="cert", blob=SECRET),
        CreateTrust(trustee_user_id=world.admin.user_id, impersonation=True),
        DeleteApplicationCredential(application_credential_id=restricted.application_credential_id),
    ]

    for wish in wishes:
        assert world.refused(restricted, wish).code == "Forbidden"
    world.ok(restricted, CreateKeypair(name="k", public_key="ssh-ed25519 AAAA"))
    for wish in wishes:
        world.ok(unrestricted, wish)
    with pytest.raises(Unauthorized):
        authenticate(world.cell, restricted)


def test_an_unrestricted_application_credential_gives_no_more_than_it_has(world):
    member, other = world.member("m"), world.member("o")
    names = world.cell.index.role_names
    held = {"role_id": names["", "member"], "user_id": member.user_id}
    world.ok(world.admin, GrantRole(**held, project_id=other.project_id))
    program = application_credential(
        world, member, unrestricted=True, role_ids=(names["", "reader"],)
    )

    assert world.refused(program, trust(world, member, other)).code == "Forbidden"
    elsewhere = trust(world, member, other, project_id=other.project_id)
    assert world.refused(program, elsewhere).code == "Forbidden"
    code = CreateCredential(user_id=member.user_id, kind="totp", blob=SECRET)
    assert world.refused(program, code).code == "Forbidden"
    for wish in (elsewhere, code):
        world.ok(member, wish)
    world.ok(program, trust(world, member, other, role_ids=(names["", "reader"],)))


def test_an_application_credential_is_good_on_its_project_only(world):
    member, other = world.member("m"), world.member("o")
    token = application_credential(world, member)

    with pytest.raises(Unauthorized):
        authenticate(world.cell, replace(token, project_id=other.project_id))
    with pytest.raises(Unauthorized):
        authenticate(world.cell, replace(token, user_id=other.user_id))


def trust(world: World, trustor: Actor, trustee: Actor, **fields: object) -> CreateTrust:
    given = {
        "trustee_user_id": trustee.user_id,
        "impersonation": False,
        "project_id": trustor.project_id,
        "role_ids": (world.cell.index.role_names["", "member"],),
    }
    return CreateTrust(**given | fields)


def test_a_trust_gives_what_its_trustor_still_has(world):
    trustor, trustee = world.member("a"), world.member("b")
    ident = world.ok(trustor, trust(world, trustor, trustee))["trust_id"]
    acting = replace(trustee, project_id=trustor.project_id, trust_id=ident)
    assert authenticate(world.cell, acting) == MEMBER

    more = trust(world, trustor, trustee, role_ids=(world.cell.index.role_names["", "admin"],))
    assert world.refused(trustor, more).code == "Forbidden"
    assert world.refused(trustee, DeleteTrust(trust_id=ident)).code == "Forbidden"
    assert world.refused(world.member("c"), DeleteTrust(trust_id=ident)).code == "NotFound"
    world.ok(world.admin, UpdateUser(user_id=trustor.user_id, enabled=False))

    with pytest.raises(Unauthorized):
        authenticate(world.cell, acting)


def test_a_trust_is_used_as_often_as_it_may(world):
    trustor, trustee = world.member("a"), world.member("b")
    ident = world.ok(trustor, trust(world, trustor, trustee, remaining_uses=2))["trust_id"]

    left = [world.ok(trustee, UseTrust(trust_id=ident))["remaining_uses"] for _ in range(2)]

    assert left == [1, 0]
    assert world.refused(trustee, UseTrust(trust_id=ident)).code == "Forbidden"
    assert world.refused(trustor, UseTrust(trust_id=ident)).code == "NotFound"


def test_a_trust_handed_on_gives_no_more(world):
    trustor, second, third = (world.member(name) for name in "abc")
    first = trust(world, trustor, second, redelegation_count=2)
    ident = world.ok(trustor, first)["trust_id"]
    acting = replace(second, project_id=trustor.project_id, trust_id=ident)
    refused = [
        {"redelegation_count": 2},
        {"impersonation": True},
        {"remaining_uses": 1},
        {"project_id": second.project_id},
        {"role_ids": (world.cell.index.role_names["", "admin"],)},
    ]

    for change in refused:
        assert world.refused(acting, trust(world, trustor, third, **change)).code == "Forbidden"
    onward = world.ok(acting, trust(world, trustor, third, redelegation_count=1))["trust_id"]
    world.ok(trustor, DeleteTrust(trust_id=ident))

    assert onward not in world.cell.state.trusts
    assert world.cell.index.user_trusts == {}


def test_a_deleted_user_leaves_nothing_that_stands_for_it(world):
    member, other = world.member("m"), world.member("o")
    application_credential(world, member)
    key = {"kind": "ec2", "blob": SECRET, "access": "A", "credential_id": "a" * 64}
    made = CreateCredential(user_id=member.user_id, project_id=member.project_id, **key)
    world.ok(member, made)
    world.ok(member, trust(world, member, other))
    world.ok(other, trust(world, other, member))

    world.ok(world.admin, DeleteUser(user_id=member.user_id))

    state = world.cell.state
    assert (state.application_credentials, state.credentials, state.trusts) == ({}, {}, {})


# Projects in projects


def test_projects_lie_in_projects_but_not_without_end(world):
    acme = Acme(world)
    parent = acme.below
    for name in ("third", "fourth"):
        made = CreateProject(name=name, domain_id=acme.domain, parent_id=parent)
        if name == "fourth":
            world.ok(world.admin, made)
            break
        parent = world.ok(world.admin, made)["project_id"]
    deepest = world.cell.index.project_names[acme.domain, "fourth"]

    too_deep = CreateProject(name="fifth", domain_id=acme.domain, parent_id=deepest)

    assert world.refused(world.admin, too_deep).code == "Forbidden"
    assert world.refused(world.admin, DeleteProject(project_id=acme.top)).code == "Forbidden"
    off = UpdateProject(project_id=acme.top, enabled=False)
    assert world.refused(world.admin, off).code == "Forbidden"
    elsewhere = CreateProject(name="x", domain_id="default", parent_id=acme.top)
    assert world.refused(world.admin, elsewhere).code == "InvalidInput"
