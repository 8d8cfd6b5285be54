"""All that followed from a thing is found, once each, and nothing that did not follow."""

import pytest
from msgspec.structs import replace

from projections import blast_radius
from schemas.compute import CreateKeypair, StopServer
from schemas.envelope import Actor
from schemas.identity import CreateApplicationCredential, CreateUser, GrantRole
from schemas.network import CreateNetwork
from tests.engine.world import SECRET
from tests.projections.story import Story, a_small_story, reading


@pytest.fixture
def story():
    return a_small_story()


@pytest.fixture
def walk(story, tmp_path):
    def walk(kind, identity, **how):
        story.number = getattr(story, "number", 0) + 1
        return reading(story, tmp_path / f"{story.number}.sqlite").blast_radius(
            kind, identity, **how
        )

    return walk


def nodes(radius):
    """Return all nodes but the root."""

    def below(node):
        for one in node.below:
            yield one
            yield from below(one)

    return list(below(radius.root))


def ids(radius, kind):
    return [node.id for node in nodes(radius) if node.kind == kind]


def test_an_image_leads_to_the_servers_made_from_it(story: Story, walk):
    others = story.image()
    elsewhere = story.server(story.demo, name="elsewhere", image_id=others)
    state = story.cell.state
    image = state.servers[story.first].image_id
    alive = {s.server_id for s in state.servers.values() if s.image_id == image}

    found = walk("image", image)

    assert set(ids(found, "server")) == alive | {story.second}
    assert [node.id for node in nodes(found) if node.gone] == [story.second]
    assert elsewhere not in ids(found, "server")
    assert found.counts == {"server": {"made from it": len(alive) + 1}}
    assert found.since <= found.until
    mine = walk("image", image, project_id=story.other.project_id)
    assert mine.projects == (story.other.project_id,)
    assert walk("image", "nothing") is None


def test_a_key_is_its_users_and_leads_to_the_servers_that_have_it(story: Story, walk):
    for actor in (story.demo, story.other):
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVxdWFsbHkgZmluZSBmb3IgdGVzdHMgb25seQ"
        story.ok(actor, CreateKeypair(name="mine", public_key=key))
    mine = story.server(story.demo, name="a", key_name="mine")
    theirs = story.server(story.other, name="b", key_name="mine")

    assert ids(walk("keypair", "mine", user_id=story.demo.user_id), "server") == [mine]
    assert ids(walk("keypair", "mine"), "server") == [mine, theirs]
    assert ids(walk("keypair", "mine", project_id=story.other.project_id), "server") == [theirs]


def test_a_host_leads_to_what_was_placed_on_it(story: Story, walk):
    found = walk("host", "host-1")

    placed = {s.server_id for s in story.cell.state.servers.values() if s.host_id == "host-1"}
    assert set(ids(found, "server")) == placed | {story.second}


def taken_over(story: Story) -> tuple[Actor, Actor]:
    """Let an administrator's account make itself a second one, and use that."""
    state, admin = story.cell.state, story.admin
    mallory = story.ok(admin, CreateUser(name="mallory", password=SECRET))["user_id"]
    member = story.cell.index.role_names["", "member"]
    project = story.demo.project_id
    story.ok(admin, GrantRole(user_id=mallory, project_id=project, role_id=member))
    second = Actor(kind="user", user_id=mallory, project_id=project, issued_at=story.now)
    wish = CreateApplicationCredential(name="back-door", secret=SECRET)
    ident = story.ok(second, wish)["application_credential_id"]
    assert ident in state.application_credentials
    return second, replace(second, application_credential_id=ident)


def test_what_a_user_did_is_followed_through_the_accounts_it_made(story: Story, walk):
    second, door = taken_over(story)
    server = story.server(door, name="miner")
    network = story.ok(door, CreateNetwork(name="tunnel"))["network_id"]
    story.refused(second, CreateUser(name="more", password=SECRET))
    story.ok(story.demo, CreateNetwork(name="innocent"))

    found = walk("user", story.admin.user_id)

    assert second.user_id in ids(found, "user")
    assert server in ids(found, "server")
    assert network in ids(found, "network")
    assert f"{second.user_id}@{story.demo.project_id}" in ids(found, "grant")
    assert found.refused == 2, "another user that it made was refused something, too"
    assert found.reports > 0
    assert {story.admin.user_id, second.user_id} <= set(found.users)
    assert found.complete
    every = [(node.kind, node.id) for node in nodes(found)]
    assert len(every) == len(set(every))


def test_a_credential_leads_to_what_was_asked_with_it_alone(story: Story, walk):
    second, door = taken_over(story)
    with_it = story.ok(door, CreateNetwork(name="with"))["network_id"]
    without = story.ok(second, CreateNetwork(name="without"))["network_id"]

    found = walk("application_credential", door.application_credential_id)
    whole = walk("user", second.user_id)

    assert ids(found, "network") == [with_it]
    assert {with_it, without} <= set(ids(whole, "network"))
    assert found.users == (second.user_id,)
    token = replace(second, audit_id="token-1")
    net = story.ok(token, CreateNetwork(name="by-token"))["network_id"]
    assert ids(walk("token", "token-1", user_id=second.user_id), "network") == [net]


def test_a_request_leads_to_its_facts_and_what_it_caused(story: Story, walk):
    first = story.submit(story.demo, StopServer(server_id=story.first))
    cause = first.request.request_id
    caused = story.submit(story.demo, CreateNetwork(name="n"), cause=cause)
    (created,) = [fact.network.network_id for fact in caused.facts]
    ordinal = story.cell.state.ordinal

    found = walk("request", cause)
    event = walk("event", str(ordinal))

    assert ids(found, "request") == [caused.request.request_id]
    assert ids(found, "network") == [created]
    (server,) = [node for node in nodes(found) if node.kind == "server"]
    assert (server.id, server.how, server.below) == (story.first, "changed", ())
    assert ids(event, "network") == [created], "the fact that made it"
    assert walk("request", cause, project_id=story.other.project_id) is None
    assert walk("event", "0") is walk("event", "x") is None


def test_only_what_came_since_counts(story: Story, walk):
    then = story.now + 1
    story.later(1_000_000)
    late = story.ok(story.demo, CreateNetwork(name="late"))["network_id"]

    found = walk("user", story.demo.user_id, since=then)

    assert ids(found, "network") == [late]
    assert ids(found, "server") == []
    image = story.cell.state.servers[story.first].image_id
    assert nodes(walk("image", image, since=then)) == []


def test_a_project_sees_its_own_part_alone(story: Story, walk):
    taken_over(story)

    found = walk("user", story.admin.user_id, project_id=story.demo.project_id)

    assert set(found.projects) <= {story.demo.project_id}
    assert walk("user", story.demo.user_id, project_id=story.other.project_id) is None


def test_a_walk_ends_at_its_bound_and_says_so(story: Story, walk, monkeypatch):
    monkeypatch.setattr(blast_radius, "NODES_MAX", 5)

    found = walk("user", story.admin.user_id)

    assert not found.complete
    assert len(nodes(found)) == 4
