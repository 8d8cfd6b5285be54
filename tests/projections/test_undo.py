"""A plan takes back what requests did, whatever they were, and says what it cannot take back."""

import itertools
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import models, undo
from projections.compensation import DELETED_SERVER, GROWN, REBOOTED
from projections.explanation import LEFT_OUT, fields_of
from projections.usage import USAGE
from schemas import compute as c
from schemas import identity as i
from schemas import image as m
from schemas import network as n
from schemas import policy as p
from schemas import quota as q
from schemas.envelope import Record, decode_action
from tests.engine.history import everything
from tests.engine.world import SECRET
from tests.projections.story import Story, a_small_story, reading

_numbers = itertools.count()
# Of a row, not of what people have made it.
ASIDE = ("updated_at", "revision", "version", "tokens_valid_from", "vni")


def plan(story: Story, tmp_path, *records: Record, caller=None) -> list[undo.Step]:
    reader = reading(story, tmp_path / f"{next(_numbers)}.sqlite")
    wanted = {record.request.request_id for record in records}
    requests = [e for e in reader.audit_log(limit=100_000) if e.request_id in wanted]
    requests.sort(key=lambda event: event.ordinal)
    return undo.plan(reader.db(), requests, (caller or story.admin).user_id)


def carried_out(story: Story, actor, steps: list[undo.Step]) -> None:
    for step in steps:
        assert step.action is not None, step
        reply = story.ok(actor, decode_action(msgspec.json.encode(step.action)))
        if "operation_id" in reply:
            story.report(reply["operation_id"], running=step.action["type"] != "StopServer")


def rows(story: Story, tmp_path) -> dict[Any, Any]:
    """Return all that is there, but for when it was last changed."""
    reader = reading(story, tmp_path / f"{next(_numbers)}.sqlite")
    found: dict[Any, Any] = {}
    for table in models.TABLES:
        if table in {*LEFT_OUT, USAGE}:
            continue
        for (body,) in reader.db().execute(f"SELECT body FROM {table.name}"):
            row = table.decode(body)
            fields = {k: v for k, v in fields_of(row).items() if k not in ASIDE}
            if fields.get("vm_state") != "deleted":
                found[table.name, table.key_of(table.values(row))] = fields
    return found


def stable(found: dict[Any, Any]) -> dict[Any, Any]:
    """Leave out what starting and stopping a server count."""
    counted = ("boot", "operation_id", "launched_at")
    return {
        row: {k: v for k, v in fields.items() if k not in counted} for row, fields in found.items()
    }


# What is there and says nothing: rules and a policy that were set are put back to what they are
# where none was ever set.
NOTHING_SET = [
    ("policy", {"rules": {}}),
    ("password_policy", fields_of(i.PasswordPolicy())),
]


class Changes:
    """What may be asked for, by number: each a request that can be taken back whole."""

    def __init__(self, story: Story) -> None:
        self.story = story
        index = story.cell.index
        self.member, self.reader = index.role_names["", "member"], index.role_names["", "reader"]
        self.user = story.ok(story.admin, i.CreateUser(name="ann", password=SECRET))["user_id"]
        self.group = story.ok(story.admin, i.CreateGroup(name="crew"))["group_id"]
        self.image = next(iter(story.cell.state.images))

    def action(self, kind: int, number: int) -> Any:
        story, project = self.story, self.story.demo.project_id
        state = story.cell.state
        server = state.servers[story.first]
        grant = {"user_id": self.user, "project_id": project}
        role = (self.member, self.reader)[number % 2]
        has = role in state.grants.get(self.user, {}).get(project, ())
        inside = self.group in state.memberships.get(self.user, ())
        turn = c.StopServer if server.status == "ACTIVE" else c.StartServer
        name = f"n{number}"
        return [
            lambda: c.RenameServer(server_id=story.first, name=name),
            lambda: turn(server_id=story.first),
            lambda: n.CreateNetwork(name=name),
            lambda: i.CreateUser(name=f"{name}-{next(_numbers)}", password=SECRET),
            lambda: i.CreateProject(name=f"{name}-{next(_numbers)}"),
            lambda: (i.RevokeRole if has else i.GrantRole)(role_id=role, **grant),
            lambda: (i.RemoveGroupMember if inside else i.AddGroupMember)(
                group_id=self.group, user_id=self.user
            ),
            lambda: q.SetQuota(
                project_id=project, limits={("servers", "ports")[number % 2]: 50 + number}
            ),
            lambda: q.SetQuotaClass(limits={"images": 100 + number}),
            lambda: p.SetPolicy(rules={"RebootServer": ("admin in cloud",) * (number % 2)}),
            lambda: i.UpdateProject(
                project_id=project, description=name, extra={("a", "b")[number % 2]: name}
            ),
            lambda: i.UpdateUser(user_id=self.user, description=name, enabled=number % 2 == 0),
            lambda: m.UpdateImage(image_id=self.image, name=name, tags=(name,)),
            lambda: c.CreateFlavor(
                name=f"{name}-{next(_numbers)}", vcpus=1, memory_mib=64, flavor_id=None
            ),
            lambda: (
                i.ImplyRole(prior_role_id=self.reader, implied_role_id=self.member)
                if False
                else i.SetPasswordPolicy(policy=i.PasswordPolicy(history=number % 5))
            ),
            lambda: c.CreateServer(
                name=name,
                flavor_id=server.flavor.flavor_id,
                image_id=server.image_id,
                networks=(),
            ),
        ][kind]()


KINDS = 16


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    done=st.lists(
        st.tuples(st.integers(0, KINDS - 1), st.integers(0, 9), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_what_was_done_and_undone_leaves_all_as_it_was(tmp_path_factory, done):
    """Some requests, then more; undoing all of the latter leads back to what was before them."""
    tmp_path = tmp_path_factory.mktemp("undo")
    story = a_small_story()
    changes = Changes(story)
    undone: list[Record] = []
    before: dict[Any, Any] = {}
    first = [kind for kind in done if not kind[2]]
    last = [kind for kind in done if kind[2]]
    for number, (kind, how, _) in enumerate([*first, *last]):
        if number == len(first):
            before = rows(story, tmp_path)
        record = story.submit(story.admin, changes.action(kind, how))
        assert not hasattr(record.verdict, "code"), record.verdict
        if "operation_id" in record.verdict.reply:
            stops = isinstance(record.request.action, c.StopServer)
            story.report(record.verdict.reply["operation_id"], running=not stops)
        if number >= len(first):
            undone.append(record)
    before = before or rows(story, tmp_path)

    steps = plan(story, tmp_path, *undone)
    carried_out(story, story.admin, steps)

    assert not [step for step in steps if step.changed_by]
    left = stable(rows(story, tmp_path))
    wanted = stable(before)
    for row, fields in wanted.items():
        assert left.pop(row) == fields, row
    for row, fields in left.items():
        assert (row[0], fields) in NOTHING_SET or row == ("quotas", "default"), row
    assert plan(story, tmp_path, *undone) == [], "once is enough"


def test_a_servers_end_and_a_reboot_are_final(tmp_path):
    story = a_small_story()
    deleted = story.submit(story.demo, c.DeleteServer(server_id=story.first))
    story.report(deleted.verdict.reply["operation_id"])
    other = story.server(story.demo, name="other")
    rebooted = story.submit(story.demo, c.RebootServer(server_id=other))
    story.report(rebooted.verdict.reply["operation_id"], running=True)

    steps = plan(story, tmp_path, deleted, rebooted)

    assert [(step.key, step.action, step.cannot) for step in steps] == [
        ((other,), None, REBOOTED),
        ((story.first,), None, DELETED_SERVER),
    ]


def test_a_resize_is_reverted_while_it_waits_and_then_resized_back(tmp_path):
    story = a_small_story()
    small = story.cell.state.servers[story.first].flavor
    wide = story.flavor(name="wide", vcpus=small.vcpus + 1, disk_gib=small.disk_gib)
    grown = story.flavor(name="grown", vcpus=small.vcpus, disk_gib=small.disk_gib + 1)

    def resized(flavor):
        record = story.submit(story.demo, c.ResizeServer(server_id=story.first, flavor_id=flavor))
        story.report(record.verdict.reply["operation_id"], running=True)
        return record

    def confirmed():
        story.ok(story.demo, c.ConfirmServerResize(server_id=story.first))

    waiting = resized(wide)
    steps = plan(story, tmp_path, waiting)
    assert [step.action["type"] for step in steps] == ["RevertServerResize"]
    carried_out(story, story.demo, steps)
    assert story.cell.state.servers[story.first].flavor == small

    kept = resized(wide)
    confirmed()
    steps = plan(story, tmp_path, kept)
    assert [step.action["type"] for step in steps] == ["ResizeServer"]
    carried_out(story, story.demo, steps)
    confirmed()
    assert story.cell.state.servers[story.first].flavor == small
    assert plan(story, tmp_path, kept) == [], "once is enough"

    larger = resized(grown)
    confirmed()
    assert [(step.action, step.cannot) for step in plan(story, tmp_path, larger)] == [(None, GROWN)]


def test_what_was_made_is_removed_the_newest_first(tmp_path):
    story = a_small_story()
    network = story.submit(story.other, n.CreateNetwork(name="n"))
    network_id = network.verdict.reply["network_id"]
    subnet = story.submit(story.other, n.CreateSubnet(network_id=network_id, cidr="10.9.0.0/24"))
    wish = c.NetworkRequest(network_id=network_id)
    size = next(iter(story.cell.state.flavors))
    image = next(iter(story.cell.state.images))
    server = story.submit(
        story.other,
        c.CreateServer(name="s", flavor_id=size, image_id=image, networks=(wish,)),
    )
    story.report(server.verdict.reply["operation_id"])

    steps = plan(story, tmp_path, network, subnet, server)

    assert [step.action["type"] for step in steps] == [
        "DeleteServer",
        "DeleteSubnet",
        "DeleteNetwork",
    ]
    carried_out(story, story.other, steps)
    assert plan(story, tmp_path, network, subnet, server) == [], "and once is enough"


def test_what_somebody_else_has_changed_since_is_marked(tmp_path):
    story = a_small_story()
    renamed = story.submit(story.demo, c.RenameServer(server_id=story.first, name="mine"))
    later = story.submit(story.demo, c.RenameServer(server_id=story.first, name="later"))

    (step,) = plan(story, tmp_path, renamed)

    assert step.action == {"type": "RenameServer", "server_id": story.first, "name": "web-1"}
    assert step.changed_by.request_id == later.request.request_id
    (both,) = plan(story, tmp_path, renamed, later)
    assert both.action == step.action
    assert both.changed_by is None
    assert both.undoes.request_id == renamed.request.request_id


def test_only_what_was_changed_is_set_back(tmp_path):
    story = a_small_story()
    project = story.demo.project_id
    first = story.submit(story.admin, i.UpdateProject(project_id=project, description="d"))
    story.submit(story.admin, i.UpdateProject(project_id=project, tags=("t",)))

    (step,) = plan(story, tmp_path, first)

    assert step.action == {"type": "UpdateProject", "project_id": project, "description": ""}
    assert step.changed_by is not None


def test_what_is_as_it_was_before_needs_nothing(tmp_path):
    """A plan that was cut is asked for again and holds what is left, of one thing too."""
    story = a_small_story()
    project = story.demo.project_id
    changed = i.UpdateProject(project_id=project, description="d", extra={"a": "1", "b": "1"})
    made = story.submit(story.admin, changed)
    renamed = story.submit(story.demo, c.RenameServer(server_id=story.first, name="mine"))
    story.ok(story.admin, i.UpdateProject(project_id=project, extra={"b": "2", "c": "3"}))

    first, second = plan(story, tmp_path, made, renamed)
    carried_out(story, story.admin, [first])
    (left,) = plan(story, tmp_path, made, renamed)
    assert left.action == second.action
    assert second.action["extra"] == {"a": None, "b": None}, "what others have set since stays"
    story.ok(story.admin, i.UpdateProject(project_id=project, description=""))
    (rest,) = plan(story, tmp_path, made, renamed)
    assert "description" not in rest.action
    carried_out(story, story.admin, [rest])
    assert plan(story, tmp_path, made, renamed) == []


def test_a_plan_that_was_cut_between_two_steps_of_one_thing_goes_on(tmp_path):
    """What names an undone request as its cause is a step of ours, and how its work ended, too."""
    story = a_small_story()
    renamed = story.submit(story.demo, c.RenameServer(server_id=story.first, name="mine"))
    stopped = story.submit(story.demo, c.StopServer(server_id=story.first))
    story.report(stopped.verdict.reply["operation_id"])

    rename, start = plan(story, tmp_path, renamed, stopped)
    assert (rename.action["type"], start.action["type"]) == ("RenameServer", "StartServer")
    cause = start.undoes.request_id
    begun = story.submit(story.admin, c.StartServer(server_id=story.first), cause=cause)
    assert [step.changed_by for step in plan(story, tmp_path, renamed, stopped)] == [None, None]
    story.report(begun.verdict.reply["operation_id"], running=True)

    (left,) = plan(story, tmp_path, renamed, stopped)
    assert (left.action, left.changed_by) == (rename.action, None)
    # Whoever does the same without saying why is somebody else.
    story.ok(story.admin, c.RenameServer(server_id=story.first, name="other"))
    (left,) = plan(story, tmp_path, renamed, stopped)
    assert (left.action, left.changed_by.tag) == (rename.action, "compute.server.renamed.v1")


def test_what_is_secret_or_gone_is_said(tmp_path):
    story = a_small_story()
    user = story.ok(story.admin, i.CreateUser(name="bob", password=SECRET))["user_id"]
    story.later(1_000_000)
    password = story.submit(
        story.admin,
        i.UpdateUser(
            user_id=user,
            password=msgspec.structs.replace(SECRET, nonce="BB=="),
            description="x",
        ),
    )
    removed = story.submit(story.admin, i.DeleteUser(user_id=user))
    key = c.CreateKeypair(
        name="k", public_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVxdWFsbHkgZmluZSBmb3IgdGVz"
    )
    keypair = story.submit(story.demo, key)
    story.submit(story.demo, n.CreateNetwork(name="n"))
    story.refused(story.other, c.DeleteServer(server_id=story.first))

    assert [s.cannot for s in plan(story, tmp_path, removed)] == [
        "its password and its id went with it"
    ]
    assert [s.cannot for s in plan(story, tmp_path, password)] == ["it is gone"]
    assert "user's own" in plan(story, tmp_path, keypair)[0].cannot
    (mine,) = plan(story, tmp_path, keypair, caller=story.demo)
    assert mine.action == {"type": "DeleteKeypair", "name": "k"}


def test_every_request_there_can_be_has_a_plan_that_is_an_action_or_a_reason(tmp_path):
    story = Story()
    for actor, action in everything(story):
        story.later(1000)
        story.submit(actor, action)
    reader = reading(story, tmp_path / "n.sqlite")

    requests = reader.audit_log(limit=100_000)
    one_of_each = {r.tag: r for r in requests if r.outcome == "accepted"}
    for request in one_of_each.values():
        for step in undo.plan(reader.db(), [request], story.admin.user_id):
            assert (step.action is None) == bool(step.cannot)
            if step.action is not None:
                decode_action(msgspec.json.encode(step.action))


def test_one_of_each_is_taken_back(tmp_path):
    story = a_small_story()
    changes = Changes(story)
    before = stable(rows(story, tmp_path))
    records = []
    for kind in range(KINDS):
        record = story.submit(story.admin, changes.action(kind, 3))
        if "operation_id" in record.verdict.reply:
            stops = isinstance(record.request.action, c.StopServer)
            story.report(record.verdict.reply["operation_id"], running=not stops)
        records.append(record)

    steps = plan(story, tmp_path, *records)
    carried_out(story, story.admin, steps)

    undone = {request_id for step in steps for request_id in step.requests}
    assert undone == {record.request.request_id for record in records}
    after = stable(rows(story, tmp_path))
    assert {row: after[row] for row in before} == before
