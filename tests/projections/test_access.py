"""A node keeps what stream ACCESS holds, no more, and knows what is missing."""

import asyncio
import contextlib
import sqlite3

import pytest
import pytest_asyncio

from engine.bus.access import append_access, ensure_access_stream
from engine.log.stream import call
from projections import access
from projections.access import AccessReader, Filters, Gap, Keeper
from schemas.access import AccessBatch, AccessEntry, encode
from schemas.errors import Unavailable
from schemas.units import SECOND

EDGE = "edge-1"


class Node:
    """A stream, a node that keeps it, and edges that are played."""

    def __init__(self, bus, path):
        self.bus = bus
        self.path = path
        self.reader = AccessReader(path)

    async def tell(self, number, *entries, boot="boot-1", edge=EDGE, at=None, **more):
        at = at or number * SECOND
        batch = AccessBatch(
            edge=edge, boot=boot, number=number, at=at, until=at + SECOND, entries=entries, **more
        )
        await append_access(self.bus, edge, f"{edge}.{boot}.{number}", encode(batch))

    async def keep(self):
        """Take in what is in the stream now, as a projector that starts does."""
        keeper = Keeper(self.bus, self.path)
        await keeper.open()
        await keeper.prune()
        while await keeper.take():
            pass
        keeper.close()

    def ids(self, limit=100, **filters):
        return [f.entry.request_id for f in self.reader.entries(Filters(**filters), limit)]


@pytest_asyncio.fixture
async def node(nats, tmp_path):
    bus = await nats.connect()
    await ensure_access_stream(bus)
    yield Node(bus, tmp_path / "access" / "node-1.sqlite")
    await call(bus, f"STREAM.DELETE.{bus.subjects.access_stream}")


def an_entry(name, at=1, status=200, **more):
    return AccessEntry(at=at * SECOND, request_id=f"req-{name}", status=status, **more)


async def test_entries_are_found_by_who_whence_what_and_when(node):
    await node.tell(
        1,
        an_entry("a", 1, user_id="u", project_id="p", address="10.0.0.1", about=("s-1", "port-1")),
        an_entry("b", 2, user_id="u", project_id="q", action="compute:servers:read"),
        an_entry("c", 3, 401, address="10.0.0.1", reason="the token is not valid"),
        an_entry("d", 4, 403, user_id="v", project_id="p", about=("s-1",)),
        an_entry("e", 5, 202, user_id="v", ordinal=7),
        an_entry("f", 6, 202, user_id="v", ordinal=7, repeated=True),
    )
    await node.keep()

    assert node.ids() == ["req-f", "req-e", "req-d", "req-c", "req-b", "req-a"]
    for filters, wanted in (
        ({"user_id": "u"}, "ba"),
        ({"project_id": "p"}, "da"),
        ({"address": "10.0.0.1"}, "ca"),
        ({"action": "compute:servers:read"}, "b"),
        ({"request_id": "req-c"}, "c"),
        ({"resource_id": "s-1"}, "da"),
        ({"resource_id": "port-1"}, "a"),
        ({"denied": True}, "dc"),
        ({"refused": False}, "feba"),
        ({"logged": False}, "fdcba"),
        ({"since": 3 * SECOND, "until": 5 * SECOND}, "dc"),
        ({"since": 3 * SECOND, "user_id": "v"}, "fed"),
    ):
        assert node.ids(**filters) == [f"req-{letter}" for letter in wanted], filters
    assert set(node.reader.of_requests(["req-a", "req-x"])) == {"req-a"}


async def test_pages_follow_each_other_without_repeating(node):
    await node.tell(1, *(an_entry(f"{n}", 5 - n // 3) for n in range(9)))
    await node.keep()
    seen: list[str] = []
    before = None

    while page := node.reader.entries(Filters(before=before), 2):
        seen += [f.entry.request_id for f in page]
        before = (page[-1].entry.at, page[-1].id)

    assert sorted(seen) == [f"req-{n}" for n in range(9)]
    assert seen == node.ids()


async def test_what_is_missing_is_noted(node):
    await node.tell(3, an_entry("a"))  # what came before was dropped by the stream's limits
    await node.tell(5, an_entry("b"))
    await node.tell(6, an_entry("c"), lost=12, lost_since=5 * SECOND)
    await node.tell(20, boot="boot-2")
    await node.tell(2, boot="boot-1", edge="edge-2")
    await node.keep()

    gaps, since = node.reader.gaps(10)

    begun_late = Gap(edge=EDGE, what="missing", since=20 * SECOND, until=20 * SECOND, messages=19)
    ended = Gap(edge=EDGE, what="ended", since=7 * SECOND, until=20 * SECOND)
    lost = Gap(edge=EDGE, what="lost", since=5 * SECOND, until=6 * SECOND, requests=12)
    missing = Gap(edge=EDGE, what="missing", since=4 * SECOND, until=5 * SECOND, messages=1)
    assert sorted(gaps[:2], key=repr) == sorted([begun_late, ended], key=repr)
    assert gaps[2:] == [lost, missing]
    assert since == 1 * SECOND


async def test_an_edge_that_is_replaced_leaves_no_gap(node):
    """Its successor begins before it ends, and they may tell in turn for a while."""
    await node.tell(1, an_entry("a"))
    await node.tell(1, an_entry("b"), boot="boot-2", at=2 * SECOND)
    await node.tell(2, an_entry("c"), at=3 * SECOND, stopping=True)
    await node.tell(2, an_entry("d"), boot="boot-2", at=4 * SECOND)
    await node.keep()
    assert node.reader.gaps(10)[0] == []

    await node.tell(3, an_entry("e"), at=5 * SECOND, stopping=True, last=True)
    await node.tell(3, boot="boot-2", at=1000 * SECOND)
    await node.keep()

    assert node.reader.gaps(10)[0] == []


async def test_an_edge_that_was_told_to_stop_and_never_did_leaves_a_gap(node):
    await node.tell(1, an_entry("a"), at=1 * SECOND, stopping=True)
    await node.tell(1, an_entry("b"), boot="boot-2", at=2 * SECOND)
    await node.tell(2, boot="boot-2", at=1000 * SECOND)
    await node.keep()

    assert node.reader.gaps(10)[0] == [
        Gap(edge=EDGE, what="ended", since=2 * SECOND, until=2 * SECOND)
    ]


async def test_a_node_goes_on_where_it_stopped(node):
    await node.tell(1, an_entry("a"))
    await node.keep()
    await node.tell(2, an_entry("b", 2))

    await node.keep()

    assert node.ids() == ["req-b", "req-a"]
    assert node.reader.gaps(10)[0] == []


async def test_what_the_stream_drops_is_dropped(node, monkeypatch):
    monkeypatch.setattr(access, "PRUNED_AT_ONCE", 2)
    await node.tell(1, *(an_entry(f"a{n}", about=("s-1",)) for n in range(5)))
    await node.tell(2, an_entry("b", 2, about=("s-1",)))
    await node.keep()
    name = node.bus.subjects.access_stream
    await call(node.bus, f"STREAM.PURGE.{name}", {"seq": 2})

    await node.keep()

    assert node.ids() == ["req-b"]
    assert node.ids(resource_id="s-1") == ["req-b"]
    await call(node.bus, f"STREAM.PURGE.{name}", {})
    await node.keep()
    assert node.ids() == []
    await node.tell(3, an_entry("c", 3))
    await node.keep()
    assert node.ids() == ["req-c"]


async def test_another_stream_is_read_from_its_beginning(node):
    for number in (1, 2, 3):
        await node.tell(number, an_entry(f"old-{number}"))
    await node.keep()
    await call(node.bus, f"STREAM.DELETE.{node.bus.subjects.access_stream}")
    await ensure_access_stream(node.bus)
    await node.tell(1, an_entry("new"), boot="boot-2")

    await node.keep()

    assert node.ids() == ["req-new"]


async def test_a_node_follows_as_it_comes(node):
    following = asyncio.create_task(access.keep(node.bus, node.path))
    await node.tell(1, an_entry("a"))
    await found(node, ["req-a"])
    await node.tell(2, an_entry("b", 2))
    await found(node, ["req-b", "req-a"])
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def found(node, ids):
    """Wait until the node has these."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                if node.ids() == ids:
                    return
            await asyncio.sleep(0.01)


async def test_a_message_that_cannot_be_read_is_passed_over(node):
    await append_access(node.bus, EDGE, "x", b"not JSON")
    await node.tell(1, an_entry("a"))

    await node.keep()

    assert node.ids() == ["req-a"]


async def test_a_file_of_another_version_is_made_anew(node):
    await node.tell(1, an_entry("a"))
    await node.keep()
    with contextlib.closing(sqlite3.connect(node.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Unavailable):
        node.ids()

    await node.keep()

    assert node.ids() == ["req-a"]


async def test_nothing_is_read_before_there_is_a_file(node):
    with pytest.raises(Unavailable):
        node.reader.entries(Filters(), 1)


def test_a_thread_that_is_late_does_not_open_what_was_closed(tmp_path):
    keeper = Keeper(None, tmp_path / "access.sqlite")
    keeper.close()

    for late in (keeper._open, keeper._begin_anew):
        with pytest.raises(sqlite3.OperationalError, match="not kept any more"):
            late()
    assert keeper._db is None
