"""Reads: filters, pages, patterns, positions, and files that come, go and are switched."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.identity.directory import roles_on
from projections import files
from projections.answers import BadPattern, BadSort, MarkerNotFound
from projections.models import apply_commit
from projections.reader import Reader
from schemas.compute import CreateKeypair, RenameServer
from schemas.errors import Unavailable
from tests.projections.story import OPENED, Story, a_small_story, projected, reading


@pytest.fixture
def story():
    return a_small_story()


@pytest.fixture
def reader(story, tmp_path):
    return reading(story, tmp_path / "n.sqlite")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Forty servers of two projects, some with the same time and name."""
    story = Story()
    story.without_quotas()
    story.host(vcpus=1000, memory=10**6, disk=10**6)
    demo, other = story.member("demo"), story.member("other")
    story.network(demo)
    for number in range(40):
        story.server(other if number % 4 == 0 else demo, name=f"web-{number % 7}")
        if number % 3 == 0:
            story.now -= 1000 * 2
    path = tmp_path_factory.mktemp("fleet") / "n.sqlite"
    projected(story, path, batch=1000).db.close()
    OPENED.clear()
    reader = Reader(path)
    yield reader, demo.project_id
    reader.close()


def test_names_are_expressions_matched_anywhere(reader):
    def names(pattern):
        return sorted(s.name for s in reader.servers(name=pattern))

    assert names("web") == ["web-1"]
    assert names("^db$") == ["db"]
    assert names("^w.*s$") == ["waits"]
    assert names("o+-b") == ["too-big"]
    assert names("(db|web)") == ["db", "web-1"]
    assert names("") == ["db", "too-big", "waits", "web-1"]
    assert names("WEB") == []


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|b)*c",
        "a*b*c*d",
        r"(a)\1",
        "(?:a)",
        "(?=a)",
        "[",
        "a{2}{3}",
        "(" * 50,
        "a" * 255 + ".",
    ],
)
def test_expressions_that_could_run_away_are_refused(reader, pattern):
    with pytest.raises(BadPattern):
        reader.servers(name=pattern)


def test_a_search_that_takes_long_is_ended(tmp_path):
    story = Story()
    story.without_quotas()
    story.host(vcpus=1000, memory=10**6, disk=10**6)
    demo = story.member("demo")
    for _ in range(60):
        story.server(demo, name="a" * 254)
    reader = reading(story, tmp_path / "n.sqlite")

    with pytest.raises(BadPattern, match="too long"):
        reader.servers(name="a*a*b")


def test_addresses_are_matched_and_listed(story, reader):
    (server,) = reader.servers(ip=r"^10\.0\.0\.", name="web-1")

    addresses = reader.addresses([server.server_id, "unknown"])

    assert addresses["unknown"] == ()
    (address,) = addresses[server.server_id]
    (port,) = reader.ports(device_ids=[server.server_id])
    assert (address.port_id, address.mac_address) == (port.port_id, port.mac_address)
    assert address.network_name == "net"
    assert reader.servers(ip="192.168") == []


def test_an_unplugged_port_takes_its_addresses_along(story, reader):
    gone = reader.server_view(story.second, deleted=True)

    assert gone is not None
    assert gone.addresses == ()


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, {"web-1", "db", "waits", "too-big"}),
        ({"status": ["ERROR", "BUILD"]}, {"waits", "too-big"}),
        ({"status": []}, set()),
        ({"host_id": "host-1"}, {"web-1", "db", "waits"}),
        ({"host_id": "host-9"}, set()),
        ({"ids": ["nothing"]}, set()),
        ({"key_name": "k"}, set()),
        ({"changed_since": 2**52}, set()),
        ({"changed_before": 1}, set()),
    ],
)
def test_filters_on_servers(reader, filters, names):
    assert {server.name for server in reader.servers(**filters)} == names


def test_servers_of_a_project_are_its_own(story, reader):
    own = reader.servers(project_id=story.demo.project_id)

    assert {server.project_id for server in own} == {story.demo.project_id}
    assert reader.server(story.first, project_id=story.other.project_id) is None
    assert reader.server(story.first, project_id=story.demo.project_id) is not None


def test_what_others_may_see(story, reader):
    demo, other = story.demo.project_id, story.other.project_id
    (image,) = reader.images()

    assert reader.image(image.image_id, visible_to=other) == image
    assert reader.images(visible_to=other) == [image]
    assert reader.network(story.net, visible_to=other) is None
    assert reader.network(story.net, visible_to=demo) is not None
    assert [n.network_id for n in reader.networks(visible_to=demo)] == [story.net]
    (subnet,) = reader.subnets(visible_to=demo)
    assert reader.subnet(subnet.subnet_id, visible_to=other) is None
    assert reader.subnets(visible_to=other) != [subnet]
    port = reader.ports(project_id=demo)[0]
    assert reader.port(port.port_id, project_id=other) is None
    group = reader.security_groups(project_id=demo)[0]
    assert reader.security_group(group.security_group_id, project_id=other) is None


def test_ports_by_what_they_hold(story, reader):
    port = reader.ports(device_ids=[story.first])[0]
    fixed = port.fixed_ips[0]

    assert reader.ports(ip_address=fixed.ip_address, subnet_id=fixed.subnet_id) == [port]
    assert reader.ports(ip_address=fixed.ip_address[:-1]) == []
    assert reader.ports(mac_address=port.mac_address) == [port]
    assert reader.ports(network_ids=[story.net], device_owners=["compute:nova"], status="ACTIVE")


def test_who_has_which_role(story, reader):
    demo = story.demo

    assert roles_on(reader, demo.user_id, demo.project_id) == {"member", "reader"}
    assert roles_on(reader, demo.user_id, story.other.project_id) == frozenset()
    assert [p.project_id for p in reader.projects(user_id=demo.user_id)] == [demo.project_id]
    assert [u.user_id for u in reader.users(name="demo", domain_id="default")] == [demo.user_id]


def test_keypairs_of_two_users_may_share_a_name(story, tmp_path):
    for actor, key in ((story.demo, "AAAA1"), (story.other, "AAAA2")):
        story.ok(actor, CreateKeypair(name="k", public_key=f"ssh-ed25519 {key}"))
    reader = reading(story, tmp_path / "m.sqlite")

    keys = [reader.keypair(a.user_id, "k") for a in (story.demo, story.other, story.demo)]

    assert [k and k.public_key[-1] for k in keys] == ["1", "2", "1"]
    assert reader.keypair(story.demo.user_id, "none") is None


@given(
    sort=st.lists(
        st.tuples(
            st.sampled_from(["name", "created_at", "id", "status", "key_name"]), st.booleans()
        ),
        min_size=1,
        max_size=3,
    ),
    size=st.integers(1, 15),
    everyone=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_make_up_the_list(fleet, sort, size, everyone):
    """Whatever the order: the pages joined are the list, nothing twice, nothing lost."""
    reader, demo = fleet
    project_id = None if everyone else demo
    whole = reader.servers(project_id=project_id, sort=sort)

    paged, marker = [], None
    while page := reader.servers(project_id=project_id, sort=sort, marker=marker, limit=size):
        paged += page
        marker = page[-1].server_id

    assert paged == whole
    assert len(whole) == (40 if everyone else 30)


def test_a_marker_of_another_project_is_unknown(fleet):
    reader, demo = fleet
    foreign = next(s for s in reader.servers() if s.project_id != demo)

    with pytest.raises(MarkerNotFound):
        reader.servers(project_id=demo, marker=foreign.server_id)


@pytest.mark.parametrize("column", ["body", "ordinal", "nothing", "id; DROP TABLE servers"])
def test_only_columns_can_be_sorted_by(reader, column):
    with pytest.raises(BadSort):
        reader.servers(sort=[(column, False)])


def test_a_limit_of_zero_is_an_empty_list(reader):
    assert reader.servers(limit=0) == []


def test_before_there_is_a_file_nothing_can_be_read(tmp_path):
    reader = Reader(tmp_path / "n.sqlite")

    assert reader.position() == 0
    assert reader.head().ordinal == 0
    with pytest.raises(Unavailable):
        reader.servers()


def test_a_file_of_another_version_is_not_read(story, tmp_path):
    writer = projected(story, tmp_path / "n.sqlite")
    writer.db.execute("UPDATE made_by SET layout = 'other'")
    reader = Reader(tmp_path / "n.sqlite")

    assert reader.position() == 0
    with pytest.raises(Unavailable, match="rebuilt"):
        reader.servers()


def test_a_file_that_other_code_made_is_read_until_it_is_replaced(story, tmp_path):
    writer = projected(story, tmp_path / "n.sqlite")
    writer.db.execute("UPDATE made_by SET code = 'other'")
    reader = Reader(tmp_path / "n.sqlite")
    OPENED.append(reader)

    assert reader.position() == story.cell.state.ordinal
    assert {s.server_id: s for s in reader.servers()} == story.cell.state.servers


def test_reads_see_each_commit_at_once(story, tmp_path):
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    reader = Reader(path)
    OPENED.append(reader)
    before = reader.server(story.first)
    story.ok(story.demo, RenameServer(server_id=story.first, name="renamed"))

    apply_commit(writer, *story.commits[-1])
    writer.commit()

    assert before is not None
    assert before.name == "web-1"
    assert reader.position() == story.cell.state.ordinal
    assert reader.server(story.first).name == "renamed"
    assert reader.head() == writer.position


def test_a_snapshot_holds_still(story, tmp_path):
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    reader = Reader(path)
    OPENED.append(reader)
    story.ok(story.demo, RenameServer(server_id=story.first, name="renamed"))

    with reader.snapshot() as at, reader.snapshot():
        apply_commit(writer, *story.commits[-1])
        writer.commit()
        held = reader.server(story.first).name, reader.position()

    assert held == ("web-1", at.ordinal)
    assert reader.server(story.first).name == "renamed"


def test_unchanged_resources_are_not_decoded_again(reader):
    assert [id(v) for v in reader.server_views()] == [id(v) for v in reader.server_views()]


def test_threads_read_beside_each_other(reader):
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(len(reader.servers()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert seen == [4] * 8


def test_a_switched_file_is_found(story, tmp_path, monkeypatch):
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()
    reader = Reader(path)
    OPENED.append(reader)
    assert reader.position() == story.cell.state.ordinal
    story.ok(story.demo, RenameServer(server_id=story.first, name="renamed"))
    writer = files.open_next(path)
    for seq, data in story.commits:
        apply_commit(writer, seq, data)
    writer.commit()
    writer.db.close()

    files.switch_to_next(path)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)

    assert reader.server(story.first).name == "renamed"
    assert sorted(p.name for p in tmp_path.glob("n.g*.sqlite")) == ["n.g2.sqlite"]


def test_a_list_read_again_shows_what_was_written_since(tmp_path):
    story = a_small_story()
    reader = reading(story, tmp_path / "n.sqlite")
    writer = files.open_current(tmp_path / "n.sqlite")
    assert writer is not None
    OPENED.append(writer.db)
    before = [s.name for s in reader.servers(project_id=story.demo.project_id)]
    assert [s.name for s in reader.servers(project_id=story.demo.project_id)] == before

    story.server(story.demo, name="later")
    for seq, data in story.commits:
        apply_commit(writer, seq, data)
    writer.commit()

    after = [s.name for s in reader.servers(project_id=story.demo.project_id)]
    assert after == ["later", *before]
    after.clear()
    assert len(reader.servers(project_id=story.demo.project_id)) == len(before) + 1


def test_a_thread_that_reads_while_all_is_closed_is_interrupted(tmp_path):
    reader = reading(a_small_story(), tmp_path / "r.sqlite")
    reads = threading.Event()
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT tell() UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )

    def read():
        db = reader.db()
        db.create_function("tell", 0, reads.set)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            db.execute(endless)
        with pytest.raises(Unavailable):
            reader.db()

    with ThreadPoolExecutor(1) as threads:
        ends = threads.submit(read)
        assert reads.wait(30)
        reader.end()
        ends.result(30)
