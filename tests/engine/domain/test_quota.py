"""Nobody is given more than their quota, and what is counted is what is there."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.fold import fold
from engine.domain.index import index_of
from engine.domain.quota import DEFAULTS, limit_of
from engine.domain.state import State, digest
from engine.domain.usage import BY_USER, COUNTED, held_by, project_usage, usage_after
from schemas import compute as c
from schemas import identity as d
from schemas import image as i
from schemas import network as n
from schemas.envelope import Accepted
from schemas.quota import ResetQuota, SetQuota, SetQuotaClass
from tests.engine.stories import Story
from tests.engine.world import SECRET, World

CONTENT = {"md5": "0" * 32, "sha512": "0" * 128}


@pytest.fixture
def world() -> World:
    world = World()
    world.host()
    world.flavor(vcpus=2, memory_mib=512, disk_gib=3)
    world.image()
    return world


def limited(world: World, name: str = "demo", **limits: int):
    """Return a member of a project with these limits."""
    member = world.member(name)
    world.ok(world.admin, SetQuota(project_id=member.project_id, limits=limits))
    return member


def a_server(world: World, **fields):
    (flavor,), image = world.cell.state.flavors, next(iter(world.cell.state.images))
    values = {"name": "web", "flavor_id": flavor, "image_id": image, "networks": (), **fields}
    return c.CreateServer(**values)


def a_subnet(world: World, member):
    network = world.ok(member, n.CreateNetwork(name="net"))["network_id"]
    return n.CreateSubnet(network_id=network, cidr="10.0.0.0/24")


def an_upload(world: World, member, size_bytes: int = 10):
    image = world.ok(member, i.CreateImage(name="mine", disk_format="raw"))["image_id"]
    return i.UploadImage(image_id=image, blob_id="mine", size_bytes=size_bytes, **CONTENT)


def a_trust(world: World, member, **fields):
    role = next(r.role_id for r in world.cell.state.roles.values() if r.name == "member")
    return d.CreateTrust(
        trustee_user_id=world.admin.user_id,
        impersonation=True,
        project_id=member.project_id,
        role_ids=(role,),
        **fields,
    )


def a_credential(_world: World, member):
    return d.CreateCredential(user_id=member.user_id, kind="totp", blob=SECRET)


A_KEY = c.CreateKeypair(name="key", public_key="ssh-ed25519 AAAA")
A_RULE = d.NewAccessRule(service="compute", method="GET", path="/servers")
AN_APPLICATION = d.CreateApplicationCredential(name="a", secret=SECRET, access_rules=(A_RULE,))


@pytest.mark.parametrize(
    ("resource", "asked", "action", "refusal"),
    [
        ("servers", 1, a_server, (403, "QuotaExceeded")),
        ("vcpus", 2, a_server, (403, "QuotaExceeded")),
        ("memory_mib", 512, a_server, (403, "QuotaExceeded")),
        ("disk_gib", 3, a_server, (403, "QuotaExceeded")),
        ("keypairs", 1, A_KEY, (403, "QuotaExceeded")),
        ("application_credentials", 1, AN_APPLICATION, (403, "QuotaExceeded")),
        ("access_rules", 1, AN_APPLICATION, (403, "QuotaExceeded")),
        ("credentials", 1, a_credential, (403, "QuotaExceeded")),
        ("trusts", 1, a_trust, (403, "QuotaExceeded")),
        ("networks", 1, n.CreateNetwork(name="net"), (409, "OverQuota")),
        ("subnets", 1, a_subnet, (409, "OverQuota")),
        ("ports", 1, a_subnet, (409, "OverQuota")),  # that of its DHCP server
        ("images", 1, i.CreateImage(name="i", disk_format="raw"), (413, "ContentQuotaExceeded")),
        ("image_bytes", 10, an_upload, (413, "ContentQuotaExceeded")),
    ],
)
def test_one_less_than_is_asked_for_is_refused_and_just_enough_is_not(
    world, resource, asked, action, refusal
):
    """The refusal has the status that its service's clients expect, and the numbers."""
    member = limited(world, **{resource: asked - 1})
    if callable(action):
        action = action(world, member) if action is not a_server else a_server(world)

    refused = world.refused(member, action)

    assert (refused.status, refused.code) == refusal
    numbers = {"resource": resource, "used": 0, "asked": asked, "limit": asked - 1}
    assert refused.fields == numbers
    assert f"{asked} {resource} asked for where 0 of {asked - 1} are used" in refused.reason
    more = SetQuota(project_id=member.project_id, limits={resource: asked})
    world.ok(world.admin, more)
    world.ok(member, action)


def test_a_server_is_refused_for_the_ports_it_needs_as_compute_refuses(world):
    member = limited(world, ports=1)
    network = world.network(member)
    networks = (c.NetworkRequest(network_id=network),)

    refused = world.refused(member, a_server(world, networks=networks))

    assert (refused.code, refused.status) == ("QuotaExceeded", 403)
    assert refused.fields == {"resource": "ports", "used": 1, "asked": 1, "limit": 1}


def test_every_limit_that_is_in_the_way_is_named(world):
    member = limited(world, servers=0, vcpus=1)

    refused = world.refused(member, a_server(world))

    assert "1 servers asked for where 0 of 0 are used" in refused.reason
    assert "2 vcpus asked for where 0 of 1 are used" in refused.reason


def test_a_server_may_not_have_more_metadata_than_its_limit(world):
    member = limited(world, server_metadata=1)

    refused = world.refused(member, a_server(world, metadata={"a": "1", "b": "2"}))

    assert refused.fields == {"resource": "server_metadata", "used": 0, "asked": 2, "limit": 1}
    world.ok(member, a_server(world, metadata={"a": "1"}))


def test_what_is_given_back_can_be_had_again(world):
    member = limited(world, servers=1)
    first = world.server(member, networks=())
    assert world.refused(member, a_server(world)).fields["used"] == 1

    operation = world.ok(member, c.DeleteServer(server_id=first))["operation_id"]
    assert world.refused(member, a_server(world)).fields["used"] == 1  # it is still there
    world.report(operation, running=False)

    world.ok(member, a_server(world))


def test_bytes_that_were_found_bad_are_given_back(world):
    member = limited(world, image_bytes=10)
    upload = an_upload(world, member)
    operation = world.ok(member, upload)["operation_id"]
    assert project_usage(world.cell, member.project_id, "")["image_bytes"] == 10

    world.report(operation, succeeded=False, cause="no disk")

    assert project_usage(world.cell, member.project_id, "")["image_bytes"] == 0
    world.ok(member, upload)


def test_over_a_lowered_limit_only_growth_is_refused(world):
    member = limited(world, servers=3, networks=2)
    servers = [world.server(member, networks=()) for _ in range(3)]
    world.ok(world.admin, SetQuota(project_id=member.project_id, limits={"servers": 1}))

    assert world.refused(member, a_server(world)).fields == {
        "resource": "servers", "used": 3, "asked": 1, "limit": 1
    }  # fmt: skip
    world.ok(member, n.CreateNetwork(name="other things are as before"))
    world.ok(member, c.StopServer(server_id=servers[0]))
    for server in servers[1:]:
        operation = world.ok(member, c.DeleteServer(server_id=server))["operation_id"]
        world.report(operation, running=False)
    assert world.refused(member, a_server(world)).fields["used"] == 1


def test_minus_one_is_no_limit(world):
    member = limited(world, networks=-1)
    world.ok(world.admin, SetQuotaClass(limits={"networks": 0}))

    for _ in range(DEFAULTS["networks"] + 1):
        world.ok(member, n.CreateNetwork(name="net"))

    other = world.member("other")
    assert world.refused(other, n.CreateNetwork(name="net")).fields["limit"] == 0


def test_a_projects_own_limit_comes_before_the_class_and_that_before_the_built_in(world):
    member, state = world.member("demo"), world.cell.state
    project = member.project_id
    assert limit_of(state, project, "servers") == DEFAULTS["servers"]

    world.ok(world.admin, SetQuotaClass(limits={"servers": 5}))
    assert limit_of(state, project, "servers") == 5
    world.ok(world.admin, SetQuota(project_id=project, limits={"servers": 7}))
    assert limit_of(state, project, "servers") == 7
    world.ok(world.admin, ResetQuota(project_id=project))
    assert limit_of(state, project, "servers") == 5


def test_only_the_limits_that_are_named_are_reset(world):
    member = limited(world, servers=1, ports=2)

    world.ok(world.admin, ResetQuota(project_id=member.project_id, names=("ports", "networks")))

    assert world.cell.state.quotas == {member.project_id: {"servers": 1}}


def test_setting_what_is_set_says_nothing_new(world):
    member = limited(world, servers=1)
    again = SetQuota(project_id=member.project_id, limits={"servers": 1})

    assert world.submit(world.admin, again).facts == ()
    world.ok(world.admin, SetQuotaClass(limits={"ports": 1}))
    assert world.submit(world.admin, SetQuotaClass(limits={"ports": 1})).facts == ()
    world.ok(world.admin, ResetQuota(project_id=member.project_id))
    assert world.submit(world.admin, ResetQuota(project_id=member.project_id)).facts == ()


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (lambda project: SetQuota(project_id=project, limits={"banana": 1}), "InvalidInput"),
        (lambda project: ResetQuota(project_id=project, names=("banana",)), "InvalidInput"),
        (lambda _: SetQuotaClass(limits={"banana": 1}), "InvalidInput"),
        (lambda _: SetQuota(project_id="none", limits={"servers": 1}), "NotFound"),
        (lambda _: ResetQuota(project_id="none"), "NotFound"),
    ],
)
def test_what_makes_no_sense_is_refused(world, action, code):
    project = world.member("demo").project_id

    assert world.refused(world.admin, action(project)).code == code


@pytest.mark.parametrize("limit", [-2, -(2**70), 2**53, 2**70, 1.5, "1", None, True])
def test_a_limit_is_a_whole_number_from_minus_one_on(limit):
    body = {"type": "SetQuota", "project_id": "p", "limits": {"servers": limit}}

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, SetQuota)


def test_the_largest_limit_there_is_can_be_set(world):
    member = limited(world, servers=2**53 - 1)

    world.ok(member, a_server(world))


def test_a_checked_limit_is_not_set_below_what_is_held(world):
    member = world.member("demo")
    world.server(member, networks=())
    lower = SetQuota(project_id=member.project_id, limits={"servers": 0}, check_limit=True)

    refused = world.refused(world.admin, lower)

    assert (refused.code, refused.status) == ("LimitBelowUse", 400)
    assert refused.fields == {"resource": "servers", "used": 1, "limit": 0}
    for limit in (1, -1):
        world.ok(world.admin, msgspec.structs.replace(lower, limits={"servers": limit}))


@pytest.mark.parametrize("role", ["member", "reader"])
def test_quotas_are_set_by_administrators_alone(world, role):
    member = world.member("demo", role)

    for action in (
        SetQuota(project_id=member.project_id, limits={"servers": 99}),
        ResetQuota(project_id=member.project_id),
        SetQuotaClass(limits={"servers": 99}),
    ):
        assert world.refused(member, action).code == "Forbidden"


def test_keypairs_are_counted_by_user_whatever_the_project(world):
    member = limited(world, keypairs=1)
    other = world.member("other")
    role = next(r.role_id for r in world.cell.state.roles.values() if r.name == "member")
    grant = d.GrantRole(user_id=member.user_id, project_id=other.project_id, role_id=role)
    world.ok(world.admin, grant)
    world.ok(member, A_KEY)

    elsewhere = msgspec.structs.replace(member, project_id=other.project_id)
    assert project_usage(world.cell, other.project_id, member.user_id)["keypairs"] == 1
    world.ok(world.admin, SetQuota(project_id=other.project_id, limits={"keypairs": 1}))

    second = msgspec.structs.replace(A_KEY, name="second")
    assert world.refused(elsewhere, second).fields["used"] == 1
    world.ok(other, A_KEY)


def test_what_comes_with_a_project_is_not_refused(world):
    world.ok(world.admin, SetQuotaClass(limits={"security_groups": 0, "security_group_rules": 0}))

    member = world.member("demo")

    held = project_usage(world.cell, member.project_id, "")
    assert (held["security_groups"], held["security_group_rules"]) == (1, 4)


def test_a_project_that_is_gone_leaves_no_limits(world):
    member = limited(world, servers=1)

    world.ok(world.admin, d.DeleteProject(project_id=member.project_id))

    assert world.cell.state.quotas == {}
    assert member.project_id not in world.cell.index.usage


def test_a_user_that_is_gone_holds_no_keypairs(world):
    member = world.member("demo")
    world.ok(member, A_KEY)
    world.ok(member, a_trust(world, member))

    world.ok(world.admin, d.DeleteUser(user_id=member.user_id))

    assert set(project_usage(world.cell, "", member.user_id).values()) == {0}


def test_a_trust_counts_for_who_made_it(world):
    """Else anybody could use up another's quota."""
    member = world.member("demo")
    world.ok(member, a_trust(world, member))

    assert project_usage(world.cell, "", member.user_id)["trusts"] == 1
    assert project_usage(world.cell, "", world.admin.user_id)["trusts"] == 0


def test_what_goes_with_something_else_is_not_counted_any_more(world):
    """A trust that was handed on, and all that stood for users on a project."""
    member = world.member("demo")
    first = world.ok(member, a_trust(world, member, redelegation_count=1))["trust_id"]
    by_trust = msgspec.structs.replace(
        member, user_id=world.admin.user_id, trust_id=first, project_id=member.project_id
    )
    world.ok(by_trust, a_trust(world, member))
    world.ok(member, AN_APPLICATION)
    assert project_usage(world.cell, "", member.user_id)["trusts"] == 2

    gone = [d.TrustDeleted(trust_id=first)]
    assert usage_after(world.cell, gone, "", member.user_id)["trusts"] == 0
    gone = [d.ProjectDeleted(project_id=member.project_id)]
    left = usage_after(world.cell, gone, "", member.user_id)
    world.ok(world.admin, d.DeleteProject(project_id=member.project_id))

    assert left == project_usage(world.cell, "", member.user_id)
    assert (left["trusts"], left["application_credentials"]) == (0, 0)


def test_another_projects_use_is_its_owners_whoever_asks(world):
    """An administrator's subnet on a project's network counts for the project."""
    member = limited(world, subnets=0)
    network = world.ok(member, n.CreateNetwork(name="net"))["network_id"]
    subnet = n.CreateSubnet(network_id=network, cidr="10.0.0.0/24")

    assert world.refused(world.admin, subnet).fields["resource"] == "subnets"


def test_what_an_agent_reports_is_never_refused(world):
    """It is so already."""
    member = world.member("demo")
    operation = world.ok(member, a_server(world))["operation_id"]
    world.ok(world.admin, SetQuotaClass(limits=dict.fromkeys(DEFAULTS, 0)))

    assert isinstance(world.report(operation).verdict, Accepted)


def test_an_old_log_folds_the_same_under_any_limits(world):
    """Limits are looked at when something is decided, and never when it is folded."""
    member = world.member("demo")
    for _ in range(5):
        world.ok(member, a_server(world))
    world.ok(world.admin, SetQuotaClass(limits=dict.fromkeys(DEFAULTS, 0)))

    assert digest(fold(world.messages)) == digest(world.cell)


def recounted(state: State) -> dict[str, Counter[str]]:
    """Count everything there is, one by one."""
    held = {name: Counter[str]() for name in COUNTED}
    for server in state.servers.values():
        for name, size in (
            ("servers", 1),
            ("vcpus", server.flavor.vcpus),
            ("memory_mib", server.flavor.memory_mib),
            ("disk_gib", server.flavor.disk_gib or 1),
        ):
            held[name][server.project_id] += size
    for name in ("networks", "subnets", "ports", "security_groups", "images"):
        for thing in getattr(state, name).values():
            held[name][thing.project_id] += 1
    for image in state.images.values():
        held["image_bytes"][image.project_id] += image.size_bytes or 0
    for group in state.security_groups.values():
        held["security_group_rules"][group.project_id] += len(group.rules)
    for name in ("keypairs", "access_rules"):
        for user_id, things in getattr(state, name).items():
            held[name][user_id] += len(things)
    for name in ("application_credentials", "credentials"):
        for thing in getattr(state, name).values():
            held[name][thing.user_id] += 1
    for trust in state.trusts.values():
        held["trusts"][trust.trustor_user_id] += 1
    return {name: +counts for name, counts in held.items()}


class Watched(World):
    """A world that recounts after each request, and compares with the limits of before."""

    grown = refused = 0

    def submit(self, actor, action, **fields):
        before, state = recounted(self.cell.state), self.cell.state
        projects = set(state.projects)
        limits = {(p, name): limit_of(state, p, name) for p in projects for name in COUNTED}
        record = super().submit(actor, action, **fields)
        after = recounted(state)
        usage = self.cell.index.usage
        owners = {*usage, *state.users}
        for name in COUNTED:
            counted = {owner: held_by(self.cell, owner, name) for owner in owners}
            assert {owner: held for owner, held in counted.items() if held} == after[name]
            for owner, now in after[name].items():
                if now > before[name][owner] and (name in BY_USER or owner in projects):
                    project_id = actor.project_id if name in BY_USER else owner
                    limit = limits[project_id, name]
                    assert limit == -1 or now <= limit
                    self.grown += 1
        self.refused += getattr(record.verdict, "code", "") in {
            "QuotaExceeded", "OverQuota", "ContentQuotaExceeded"
        }  # fmt: skip
        return record


class Quotas(Story):
    """A story in which limits change too."""

    def do_quota(self):
        limits = {self.dice.choice(COUNTED): self.dice.randrange(-1, 4) for _ in range(3)}
        if self.dice.random() < 0.3:
            self.ask(SetQuotaClass(limits=limits), self.world.admin)
            return
        project = self.one(self.world.cell.state.projects)
        change = SetQuota(project_id=project, limits=limits, check_limit=self.dice.random() < 0.2)
        if self.dice.random() < 0.2:
            change = ResetQuota(project_id=project)
        self.ask(change, self.world.admin)


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_no_history_of_accepted_requests_exceeds_a_limit_and_no_count_drifts(seed):
    """Recounted after each request; refusals that come from limits are among them."""
    world = Watched(seed)
    story = Quotas(world, seed)
    story.begin()

    story.play(120)

    assert world.grown > 0
    assert world.cell.index == index_of(world.cell.state)
    assert fold(world.messages).index.usage == world.cell.index.usage


def test_histories_do_come_upon_limits():
    """Else the property above would say nothing."""
    world = Watched(5)
    story = Quotas(world, 5)
    story.begin()

    story.play(600)

    assert world.refused > 5
