"""What identity providers say: whose users they are, which groups they give, and for how long."""

import pytest

from engine.decider import authenticate
from engine.domain.identity.federation import LIFETIME, federated_user_id
from schemas.envelope import Actor
from schemas.identity import (
    CreateApplicationCredential,
    CreateGroup,
    CreateIdentityProvider,
    CreateMapping,
    CreateProject,
    CreateProtocol,
    CreateUser,
    DeleteDomain,
    DeleteIdentityProvider,
    DeleteUser,
    GrantRole,
    Local,
    LocalProject,
    LocalRole,
    LocalUser,
    MappingRule,
    Remote,
    SignInFederated,
    UpdateDomain,
    UpdateIdentityProvider,
    UpdateMapping,
    UpdateUser,
)
from schemas.units import MINUTE
from tests.engine.world import SECRET, World

EDGE = Actor(kind="edge", user_id="node-1")
NAMES = {"idp_id": "corp", "protocol_id": "openid"}
RULES = (
    MappingRule(
        local=(Local(user=LocalUser(name="{0}")), Local(group_ids="{1}")),
        remote=(Remote(type="name"), Remote(type="groups")),
    ),
)


class Corp(World):
    """A cloud with a provider whose group ``crew`` are members of a project."""

    def __init__(self) -> None:
        super().__init__()
        self.ok(self.admin, CreateIdentityProvider(idp_id="corp"))
        self.domain = self.cell.state.identity_providers["corp"].domain_id
        self.ok(self.admin, CreateMapping(mapping_id="m", rules=RULES))
        self.ok(self.admin, CreateProtocol(**NAMES, mapping_id="m"))
        self.project = self.ok(self.admin, CreateProject(name="p"))["project_id"]
        self.crew = self.ok(self.admin, CreateGroup(name="crew"))["group_id"]
        member = self.cell.index.role_names["", "member"]
        grant = {"group_id": self.crew, "project_id": self.project, "role_id": member}
        self.ok(self.admin, GrantRole(**grant))

    def told(self, unique_id: str = "1", name: str = "ann", *groups: str) -> SignInFederated:
        claims = {"name": (name,), "groups": groups or (self.crew,)}
        return SignInFederated(**NAMES, unique_id=unique_id, claims=claims)

    def signed_in(self, *who: str) -> Actor:
        user_id = self.ok(EDGE, self.told(*who))["user_id"]
        return Actor(kind="user", user_id=user_id, project_id=self.project, issued_at=self.now)


@pytest.fixture
def corp() -> Corp:
    return Corp()


def test_a_user_is_made_when_it_first_comes_and_is_the_same_later(corp):
    first = corp.submit(EDGE, corp.told())
    again = corp.submit(EDGE, corp.told())

    user_id = federated_user_id("corp", "1")
    user = corp.cell.state.users[user_id]
    assert (user.name, user.domain_id, user.password) == ("ann", corp.domain, None)
    assert [type(fact).__name__ for fact in first.facts] == ["UserCreated", "FederatedUserSignedIn"]
    assert [type(fact).__name__ for fact in again.facts] == ["FederatedUserSignedIn"]
    assert corp.cell.state.federated[user_id].until == corp.now + LIFETIME


def test_groups_give_roles_for_a_while(corp):
    ann = corp.signed_in()
    assert authenticate(corp.cell, ann) == {"member", "reader"}

    corp.now += LIFETIME
    corp.ok(corp.admin, CreateProject(name="later"))

    assert authenticate(corp.cell, ann) == frozenset()


def test_a_manager_gives_no_password_to_who_rules_the_cloud_by_its_provider(corp):
    admin = corp.cell.index.role_names["", "admin"]
    corp.ok(corp.admin, GrantRole(role_id=admin, group_id=corp.crew, project_id=corp.project))
    manager = corp.cell.index.role_names["", "manager"]
    boss = corp.ok(corp.admin, CreateUser(name="boss", domain_id=corp.domain))["user_id"]
    corp.ok(corp.admin, GrantRole(role_id=manager, user_id=boss, domain_id=corp.domain))
    password = UpdateUser(user_id=corp.signed_in().user_id, password=SECRET)
    corp.now += LIFETIME
    corp.ok(corp.admin, CreateProject(name="later"))

    # What the provider has said counts no more; but it would once Ann comes again.
    actor = Actor(kind="user", user_id=boss, domain_id=corp.domain, issued_at=corp.now)
    assert corp.refused(actor, password).code == "Forbidden"


def test_what_is_said_last_counts(corp):
    ann = corp.signed_in()

    corp.ok(EDGE, corp.told("1", "ann", "no-such-group"))

    assert authenticate(corp.cell, ann) == frozenset()


def test_a_provider_can_say_how_long_it_is_believed(corp):
    corp.ok(corp.admin, UpdateIdentityProvider(idp_id="corp", authorization_ttl=5))

    assert corp.ok(EDGE, corp.told())["until"] == corp.now + 5 * MINUTE


@pytest.mark.parametrize("how", ["disabled", "deleted"])
def test_a_provider_that_is_gone_gives_nothing(corp, how):
    ann = corp.signed_in()

    if how == "disabled":
        corp.ok(corp.admin, UpdateIdentityProvider(idp_id="corp", enabled=False))
    else:
        corp.ok(corp.admin, DeleteIdentityProvider(idp_id="corp"))

    assert authenticate(corp.cell, ann) == frozenset()
    assert corp.refused(EDGE, corp.told()).code in {"Unauthorized", "NotFound"}


def test_only_edges_say_who_was_vouched_for(corp):
    for actor in (corp.admin, Actor(kind="agent", host_id="h"), Actor(kind="system")):
        assert corp.refused(actor, corp.told()).code == "Forbidden"
    assert corp.refused(EDGE, CreateProject(name="x")).code == "Forbidden"


def test_a_provider_signs_nobody_in_as_somebody_of_here(corp):
    """A name that is taken in the provider's own domain is not taken over either."""
    corp.ok(corp.admin, CreateUser(name="boss", domain_id=corp.domain, password=SECRET))

    assert corp.refused(EDGE, corp.told("2", "boss")).code == "Conflict"
    admin = corp.ok(EDGE, corp.told("3", "admin"))["user_id"]
    assert admin != corp.admin.user_id


def test_the_providers_name_of_a_user_may_change(corp):
    ann = corp.signed_in("1", "ann")

    renamed = corp.signed_in("1", "anna")

    assert renamed.user_id == ann.user_id
    assert corp.cell.state.users[ann.user_id].name == "anna"


def test_a_disabled_user_is_not_let_in(corp):
    ann = corp.signed_in()
    corp.ok(corp.admin, UpdateUser(user_id=ann.user_id, enabled=False))

    assert corp.refused(EDGE, corp.told()).code == "Unauthorized"


def test_tokens_of_a_deleted_user_do_not_come_back_with_it(corp):
    ann = corp.signed_in()
    corp.ok(corp.admin, DeleteUser(user_id=ann.user_id))
    corp.signed_in()

    with pytest.raises(Exception, match="issued before"):
        authenticate(corp.cell, ann)


def test_projects_of_the_providers_domain_are_given(corp):
    corp.ok(corp.admin, CreateProject(name="lab", domain_id=corp.domain))
    projects = (LocalProject(name="lab", roles=(LocalRole(name="reader"),)),)
    local = Local(user=LocalUser(name="{0}"), projects=projects)
    rules = (MappingRule(local=(local,), remote=(Remote(type="name"),)),)
    corp.ok(corp.admin, UpdateMapping(mapping_id="m", rules=rules))

    first, again = corp.submit(EDGE, corp.told()), corp.submit(EDGE, corp.told())

    assert [type(fact).__name__ for fact in first.facts][-1] == "RoleGranted"
    assert len(again.facts) == 1


def test_an_application_credential_ends_with_what_was_said(corp):
    ann = corp.signed_in()
    wish = CreateApplicationCredential(name="ci", secret=SECRET)
    ident = corp.ok(ann, wish)["application_credential_id"]
    program = Actor(
        kind="user",
        user_id=ann.user_id,
        project_id=corp.project,
        issued_at=corp.now,
        application_credential_id=ident,
    )
    assert authenticate(corp.cell, program)

    corp.ok(EDGE, corp.told("1", "ann", "no-such-group"))

    assert authenticate(corp.cell, program) == frozenset()


def test_a_providers_domain_stays_while_it_does(corp):
    corp.ok(corp.admin, UpdateDomain(domain_id=corp.domain, enabled=False))

    assert corp.refused(corp.admin, DeleteDomain(domain_id=corp.domain)).code == "InUse"
    assert corp.refused(EDGE, corp.told()).code == "Unauthorized"
    corp.ok(corp.admin, DeleteIdentityProvider(idp_id="corp"))
    corp.ok(corp.admin, DeleteDomain(domain_id=corp.domain))


def test_a_remote_id_is_of_one_provider(corp):
    corp.ok(corp.admin, UpdateIdentityProvider(idp_id="corp", remote_ids=("a", "b")))
    other = CreateIdentityProvider(idp_id="other", remote_ids=("b",))

    assert corp.refused(corp.admin, other).code == "Duplicate"


def test_a_protocol_is_not_called_as_a_method_of_here(corp):
    wish = CreateProtocol(idp_id="corp", protocol_id="password", mapping_id="m")

    assert corp.refused(corp.admin, wish).code == "InvalidInput"
