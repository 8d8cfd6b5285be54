"""The policy's table: who may do what, and how far that goes."""

import pytest

from engine.policy import Policies, Policy, authorize, merged
from schemas.compute import DeleteServer
from schemas.envelope import Accepted, Actor, Refused
from schemas.errors import Forbidden
from schemas.policy import DEFAULT, BadEntry, PolicyTable, SetPolicy, parse
from tests.engine.world import SYSTEM, World

ADMIN = frozenset({"admin", "manager", "member", "reader"})
MEMBER = frozenset({"member", "reader"})


@pytest.mark.parametrize(
    ("entry", "scope", "target"),
    [
        ("admin in cloud", "cloud", "any"),
        ("reader in system", "system", "any"),
        ("manager in domain", "domain", "domain"),
        ("member in project", "project", "project"),
        ("reader in project over any", "project", "any"),
        ("reader in project over self", "project", "self"),
        ("user over self", "user", "self"),
        ("agent", "agent", "any"),
    ],
)
def test_entries_are_understood(entry, scope, target):
    who = parse(entry)

    assert (who.scope, who.target) == (scope, target)


@pytest.mark.parametrize(
    "entry",
    [
        "", "admin", "admin in", "admin in everything", "in cloud", "admin in cloud over project",
        "member in project over domain", "user", "user over project", "admin  in cloud",
        "admin in cloud ", "ADMIN IN cloud over", "member in project over any or all", "\n",
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(entry):
    with pytest.raises(BadEntry):
        parse(entry)


@pytest.mark.parametrize(
    ("action", "scope", "roles", "reach"),
    [
        ("DeleteServer", "project", ADMIN, {"any", "project"}),
        ("DeleteServer", "system", ADMIN, {"any"}),
        ("DeleteServer", "domain", ADMIN, None),
        ("DeleteServer", "project", MEMBER, {"project"}),
        ("DeleteServer", "project", frozenset({"reader"}), None),
        ("DeleteServer", "", ADMIN, None),
        ("compute:servers:read", "system", frozenset({"reader"}), {"any"}),
        ("compute:flavors:read", "", frozenset(), {"any"}),
        ("compute:flavors:read", "engine", frozenset(), None),
        ("CreateKeypair", "project", frozenset({"reader"}), {"user"}),
        ("MarkHost", "project", ADMIN, None),
        ("MarkHost", "engine", frozenset(), {"any"}),
        ("RegisterHost", "engine", frozenset(), None),
        ("NoSuchAction", "system", ADMIN, None),
    ],
)
def test_what_the_defaults_give(action, scope, roles, reach):
    found = Policy(DEFAULT).reach(action, scope, roles)

    given = ("any", "project", "domain", "user")
    assert (None if found is None else {t for t in given if getattr(found, t)}) == reach


def test_the_rule_that_decided_is_recorded_with_the_verdict():
    world = World()
    member = world.member("somebody")

    accepted = world.submit(world.admin, SetPolicy(rules={"DeleteServer": ("reader in project",)}))
    refused = world.submit(member, SetPolicy(rules={"DeleteServer": None}))
    looked = world.submit(member, DeleteServer(server_id="none"))

    assert isinstance(accepted.verdict, Accepted)
    assert accepted.verdict.rule == "SetPolicy: admin in cloud"
    assert isinstance(refused.verdict, Refused)
    assert (refused.verdict.code, refused.verdict.rule) == (
        "Forbidden",
        "SetPolicy: admin in cloud",
    )
    assert isinstance(looked.verdict, Refused)
    assert (looked.verdict.code, looked.verdict.rule) == (
        "NotFound",
        "DeleteServer: reader in project",
    )


@pytest.mark.parametrize(
    "rules",
    [
        {"NoSuchAction": ("admin in cloud",)},
        {"MarkHost": ("admin in cloud",)},
        {"DeleteServer": ("agent",)},
        {"DeleteServer": ("everybody",)},
        {"SetPolicy": ()},
        {"SetPolicy": ("member in project",)},
    ],
)
def test_a_policy_that_must_not_be_is_refused(rules):
    world = World()

    record = world.submit(world.admin, SetPolicy(rules=rules))

    assert isinstance(record.verdict, Refused)
    assert record.verdict.status in {400, 409}
    assert world.cell.state.policy == PolicyTable()


def test_an_operator_can_close_and_open_an_action():
    world = World()
    member = world.member("somebody")
    delete = DeleteServer(server_id="none")

    world.ok(world.admin, SetPolicy(rules={"DeleteServer": ()}))
    closed = world.submit(member, delete)
    world.ok(world.admin, SetPolicy(rules={"DeleteServer": None}))
    opened = world.submit(member, delete)

    assert (closed.verdict.code, opened.verdict.code) == ("Forbidden", "NotFound")
    assert world.cell.state.policy == PolicyTable(version=2)


def test_a_table_is_compiled_once():
    policies, table = Policies(), PolicyTable(version=1, rules={"DeleteServer": ()})

    first = policies.of(table)

    assert policies.of(table) is first
    assert policies.of(PolicyTable(version=2)) is not first


def test_the_clock_and_agents_need_their_own_rules():
    policy = merged(PolicyTable())
    agent = Actor(kind="agent", host_id="host-1")

    assert authorize(policy, SYSTEM, frozenset(), "MarkHost").any
    assert authorize(policy, agent, frozenset(), "RegisterHost").any
    for actor, action in ((agent, "MarkHost"), (SYSTEM, "RegisterHost"), (SYSTEM, "DeleteServer")):
        with pytest.raises(Forbidden):
            authorize(policy, actor, ADMIN, action)
