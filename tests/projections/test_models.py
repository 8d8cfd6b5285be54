"""The read model is the fold of the log: the decider's state, however it was batched."""

import ast
import importlib.util
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.fold import UnknownFact
from engine.domain.state import Cell
from projections import models, store
from projections.models import LogDiffers, apply_commit
from projections.reader import Reader
from projections.store import Superseded, Writer
from schemas.compute import (
    CreateKeypair,
    CreateServer,
    DeleteKeypair,
    DeleteServer,
    RebootServer,
    RenameServer,
    ReportServerState,
    StartServer,
    StopServer,
)
from schemas.host import MarkHost
from schemas.identity import CreateUser, DeleteUser, RevokeToken, UpdateProject
from schemas.image import DeleteImage, UpdateImage
from schemas.network import CreatePort, DeleteNetwork, DeletePort
from schemas.operation import PassDeadline
from schemas.policy import PolicyTable
from tests.engine.world import SECRET, SYSTEM
from tests.projections.story import OPENED, Story, a_small_story, projected, reading


def in_memory() -> Writer:
    db = store.open_file(Path(":memory:"))
    OPENED.append(db)
    store.create(db, models.made_by(), models.STATEMENTS)
    return Writer(db)


def folded(story: Story, batch: int = 1) -> Writer:
    writer = in_memory()
    for number, (seq, data) in enumerate(story.commits, 1):
        apply_commit(writer, seq, data)
        if number % batch == 0:
            writer.commit()
    writer.commit()
    return writer


def assert_shows(reader: Reader, cell: Cell) -> None:
    """Everything that can be read is what the decider knows, and nothing else is there."""
    state = cell.state
    assert reader.position() == state.ordinal
    assert {s.server_id: s for s in reader.servers()} == state.servers
    assert {f.flavor_id: f for f in reader.flavors()} == state.flavors
    assert {i.image_id: i for i in reader.images()} == state.images
    assert {n.network_id: n for n in reader.networks()} == state.networks
    assert {n.subnet_id: n for n in reader.subnets()} == state.subnets
    assert {p.port_id: p for p in reader.ports()} == state.ports
    assert {g.security_group_id: g for g in reader.security_groups()} == state.security_groups
    assert {h.host_id: h for h in reader.hosts()} == state.hosts
    assert {d.domain_id: d for d in reader.domains()} == state.domains
    assert {p.project_id: p for p in reader.projects()} == state.projects
    assert {u.user_id: u for u in reader.users()} == state.users
    assert {r.role_id: r for r in reader.roles()} == state.roles
    running = {o.operation.operation_id: o.operation for o in reader.operations(running=True)}
    assert running == state.operations
    grants = {(g.inherited, g.holder, g.target, g.role_id) for g in reader.grants()}
    assert grants == {
        (inherited, holder, target, role)
        for inherited, held in ((False, state.grants), (True, state.inherited_grants))
        for holder, targets in held.items()
        for target, roles in targets.items()
        for role in roles
    }
    assert {g.group_id: g for g in reader.groups()} == state.groups
    memberships = {u: tuple(sorted(found)) for u in state.users if (found := reader.groups_of(u))}
    assert memberships == state.memberships
    implied = {r: tuple(sorted(found)) for r in state.roles if (found := reader.implied(r))}
    assert implied == state.implied_roles
    applications = {a.application_credential_id: a for a in reader.application_credentials()}
    assert applications == state.application_credentials
    rules = {u: {r.access_rule_id: r for r in reader.access_rules(u)} for u in state.users}
    assert {u: held for u, held in rules.items() if held} == state.access_rules
    assert {c.credential_id: c for c in reader.credentials()} == state.credentials
    assert {t.trust_id: t for t in reader.trusts()} == state.trusts
    assert {r.region_id: r for r in reader.regions()} == state.regions
    assert {v.service_id: v for v in reader.services()} == state.services
    assert {e.endpoint_id: e for e in reader.endpoints()} == state.endpoints
    assert reader.password_policy() == state.password_policy
    assert (reader.policy() or PolicyTable()) == state.policy
    for user_id in state.users:
        keypairs = {k.name: k for k in reader.keypairs(user_id)}
        assert keypairs == state.keypairs.get(user_id, {})
    lists: dict[str, tuple[object, ...]] = {}
    for price_list in reader.price_lists():
        lists[price_list.name] = (*lists.get(price_list.name, ()), price_list)
    assert lists == state.price_lists
    for view in reader.server_views():
        addresses = [
            ip.ip_address
            for port_id in view.server.port_ids
            if port_id in state.ports
            for ip in state.ports[port_id].fixed_ips
        ]
        assert [a.ip_address for a in view.addresses] == addresses


def test_what_is_read_is_what_the_decider_knows(tmp_path):
    story = a_small_story()

    assert_shows(reading(story, tmp_path / "n.sqlite"), story.cell)


def test_what_goes_is_gone(tmp_path):
    """Deletions, updates and marks of every area reach the read model."""
    story = a_small_story()
    user = story.ok(story.admin, CreateUser(name="temp", password=SECRET))["user_id"]
    story.ok(story.demo, CreateKeypair(name="k1", public_key="ssh-ed25519 AAAA1"))
    story.ok(story.demo, CreateKeypair(name="k2", public_key="ssh-ed25519 AAAA2"))
    story.ok(story.demo, DeleteKeypair(name="k1"))
    story.ok(story.admin, DeleteUser(user_id=user))
    image = story.image(story.demo)
    story.ok(story.demo, UpdateImage(image_id=image, name="renamed"))
    story.ok(story.demo, DeleteImage(image_id=image))
    spare = story.network(story.other, "10.9.0.0/24")
    port = story.ok(story.other, CreatePort(network_id=spare))["port_id"]
    story.ok(story.other, DeletePort(port_id=port))
    story.ok(story.other, DeleteNetwork(network_id=spare))
    story.ok(SYSTEM, MarkHost(host_id="host-1", status="down", reason="silent"))
    story.ok(story.admin, UpdateProject(project_id=story.demo.project_id, description="new"))
    story.ok(story.demo, RenameServer(server_id=story.first, name="renamed"))
    story.ok(story.demo, RevokeToken(audit_id="a1", expires_at=story.now + 1))

    reader = reading(story, tmp_path / "n.sqlite")

    assert_shows(reader, story.cell)
    assert reader.token_revoked("a1")
    assert not reader.token_revoked("a2")


def test_an_expired_revocation_is_forgotten(tmp_path):
    story = a_small_story()
    story.ok(story.demo, RevokeToken(audit_id="a1", expires_at=story.now + 1))
    story.later(1_000_000)
    story.ok(story.demo, RevokeToken(audit_id="a2", expires_at=story.now + 10**9))

    reader = reading(story, tmp_path / "n.sqlite")

    assert not reader.token_revoked("a1")
    assert reader.token_revoked("a2")


@pytest.mark.parametrize("seed", range(12))
def test_whatever_people_do_is_read_as_decided(tmp_path, seed):
    """A walk through what may be asked for, in any order, accepted or refused."""
    story = Story(seed)
    choose = story.random
    story.host(vcpus=6)
    demo = story.member("demo")
    story.network(demo)
    story.flavor()
    story.image()
    story.prices()
    for _ in range(60):
        story.later(choose.randrange(10**9))
        servers = list(story.cell.state.servers)
        operations = list(story.cell.state.operations.values())
        server = choose.choice(servers) if servers else "none"
        operation = choose.choice(operations) if operations else None
        match choose.randrange(9):
            case 0 | 1:
                image = next(iter(story.cell.state.images))
                flavor = next(iter(story.cell.state.flavors))
                story.submit(demo, CreateServer(name="w", flavor_id=flavor, image_id=image))
            case 2:
                story.submit(demo, StopServer(server_id=server))
            case 3:
                story.submit(demo, StartServer(server_id=server))
            case 4:
                story.submit(demo, RebootServer(server_id=server, hard=choose.random() < 0.5))
            case 5:
                story.submit(demo, DeleteServer(server_id=server))
            case 6 if operation is not None:
                running = operation.kind not in {"stop", "delete"}
                succeeded = choose.random() < 0.8
                story.report(operation.operation_id, succeeded=succeeded, running=running)
            case 7 if operation is not None:
                story.now = max(story.now, operation.deadline)
                action = PassDeadline(operation_id=operation.operation_id, generation=1)
                story.submit(SYSTEM, action)
            case 8 if servers:
                boot = story.cell.state.servers[server].boot
                story.submit(
                    story.agent(),
                    ReportServerState(
                        server_id=server, boot=boot, running=False, observed_at=story.now
                    ),
                )

    reader = reading(story, tmp_path / "n.sqlite")

    assert_shows(reader, story.cell)
    for server in story.cell.state.servers:
        assert all(a.finish_at or a.result is None for a in reader.instance_actions(server))


@given(st.integers(1, 100))
@settings(max_examples=15)
def test_batching_changes_nothing(batch):
    story = a_small_story()

    assert store.digest(folded(story, batch).db) == store.digest(folded(story).db)


def test_a_commit_that_is_folded_already_changes_nothing():
    story = a_small_story()
    writer = folded(story)
    before = store.digest(writer.db)

    for seq, data in story.commits:
        apply_commit(writer, seq, data)
    writer.commit()

    assert store.digest(writer.db) == before


def test_a_missing_commit_stops_the_fold():
    story = a_small_story()
    writer = in_memory()
    apply_commit(writer, *story.commits[0])

    with pytest.raises(LogDiffers):
        apply_commit(writer, *story.commits[2])


def test_another_log_stops_the_fold():
    story, other = a_small_story(), Story(seed=2)
    writer = in_memory()
    apply_commit(writer, *story.commits[0])
    other.host()

    with pytest.raises(LogDiffers):
        apply_commit(writer, *other.commits[1])


def test_an_abandoned_batch_leaves_no_trace():
    story = a_small_story()
    writer = folded(story)
    before, position = store.digest(writer.db), writer.position
    story.ok(story.demo, RenameServer(server_id=story.first, name="x"))

    apply_commit(writer, *story.commits[-1])
    writer.abandon()
    writer.commit()

    assert (store.digest(writer.db), writer.position) == (before, position)


def test_two_writers_cannot_both_commit(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    first = projected(story, path)
    second = Writer(store.open_file(path.resolve()))
    OPENED.append(second.db)
    story.ok(story.demo, RenameServer(server_id=story.first, name="x"))
    story.ok(story.demo, RenameServer(server_id=story.first, name="y"))
    apply_commit(first, *story.commits[-2])
    first.commit()

    apply_commit(second, *story.commits[-2])
    apply_commit(second, *story.commits[-1])
    with pytest.raises(Superseded):
        second.commit()

    assert second.position == first.position


def test_a_deleted_server_can_still_be_read(tmp_path):
    story = a_small_story()
    reader = reading(story, tmp_path / "n.sqlite")

    gone = reader.server(story.second, deleted=True)

    assert reader.server(story.second) is None
    assert gone is not None
    assert (gone.vm_state, gone.task_state, gone.terminated_at is not None) == (
        "deleted",
        None,
        True,
    )
    assert [s.server_id for s in reader.servers(deleted=True)] == [story.second]
    assert len(reader.servers(deleted=None)) == len(reader.servers()) + 1


def test_every_row_says_which_ordinal_it_follows_from(tmp_path):
    """No state without its event: the ordinal of each row is a fact of that resource."""
    story = a_small_story()
    writer = projected(story, tmp_path / "n.sqlite")
    tables = [
        name
        for (name,) in writer.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if name not in {"timeline", "position", "made_by", "revoked_tokens"}
    ]

    for table in tables:
        loose = writer.db.execute(
            f"SELECT count(*) FROM {table} WHERE ordinal NOT IN "
            "(SELECT ordinal FROM timeline WHERE kind = 'fact')"
        ).fetchone()

        assert loose == (0,), table


def test_bodies_are_the_resources_as_json(tmp_path):
    story = a_small_story()
    writer = projected(story, tmp_path / "n.sqlite")

    for network_id, body in writer.db.execute("SELECT id, body FROM networks"):
        assert body == msgspec.json.encode(story.cell.state.networks[network_id])
    assert story.refused(story.other, DeleteServer(server_id="none")).status == 404


def test_an_unknown_fact_stops_the_projection():
    story = a_small_story()
    writer = in_memory()
    for seq, data in story.commits[:5]:
        apply_commit(writer, seq, data)
    writer.commit()
    seq, data = next((s, d) for s, d in story.commits[5:] if b".created.v1" in d)
    for between in story.commits[5 : seq - 1]:
        apply_commit(writer, *between)

    with pytest.raises(UnknownFact, match=r"v9.*newer version") as stopped:
        apply_commit(writer, seq, data.replace(b".created.v1", b".created.v9", 1))

    commit = models.decode_stored(data)
    assert commit.first < stopped.value.ordinal <= commit.first + len(commit.records[0].facts)


def test_the_code_that_projects_is_named_in_full():
    """Whatever of ours the named modules import has a part in the rows, and is named as well."""
    packages = {"schemas", "engine", "projections"}

    def named(module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in models.CODE)

    missing = set()
    for name in models.CODE:
        source = Path(importlib.util.find_spec(name).origin).read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in packages:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                modules = [m for m in whole if is_module(m)] or [node.module]
                missing |= {m for m in modules if not named(m)}
    assert missing == set()


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_layout_covers_what_lies_in_the_tables(monkeypatch):
    """Equal tables, but bodies of another shape: readers could not decode them."""
    before = models.layout.__wrapped__()
    assert models.layout.__wrapped__() == before == models.layout()

    class Flavor(msgspec.Struct):
        flavor_id: str
        new: int

    flavors = next(table for table in models.TABLES if table.name == "flavors")
    monkeypatch.setattr(flavors, "of", Flavor)
    with_body = models.layout.__wrapped__()
    monkeypatch.undo()
    monkeypatch.setattr(models, "STATEMENTS", (*models.STATEMENTS, "CREATE INDEX x ON hosts (id)"))
    with_index = models.layout.__wrapped__()

    assert len({before, with_body, with_index}) == 3
